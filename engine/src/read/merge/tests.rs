//! Compares merges of sorted lists with one sorted list, through walks that turn around and seek.

use super::*;
use crate::key::{ValueKind, compare_internal};
use crate::manifest::tests::Random;

type Record = (Vec<u8>, Trailer);

/// A sorted list as a source.
struct ListCursor {
    records: Vec<Record>,
    at: Option<usize>,
    repeats: bool,
}

impl ListCursor {
    fn lower_bound(&self, key: &[u8], trailer: Trailer) -> usize {
        self.records.partition_point(|(k, t)| compare_internal(k, *t, key, trailer).is_lt())
    }

    fn to(&mut self, at: Option<usize>) -> Result<()> {
        self.at = at.filter(|&at| at < self.records.len());
        self.repeats = false;
        Ok(())
    }
}

impl Cursor for ListCursor {
    fn valid(&self) -> bool {
        self.at.is_some()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.to(Some(0))
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.to(self.records.len().checked_sub(1))
    }

    fn seek(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.to(Some(self.lower_bound(key, trailer)))
    }

    fn seek_before(&mut self, key: &[u8], trailer: Trailer) -> Result<()> {
        self.to(self.lower_bound(key, trailer).checked_sub(1))
    }

    fn next(&mut self) -> Result<Option<Standing>> {
        let key = self.key().to_vec();
        self.to(self.at.map(|at| at + 1))?;
        self.repeats = self.valid() && self.key() == key;
        Ok(self.standing())
    }

    fn standing(&self) -> Option<Standing> {
        self.valid().then(|| Standing { trailer: self.trailer(), repeats: self.repeats })
    }

    fn is_surely_newest(&self) -> bool {
        let before = self.at.and_then(|at| at.checked_sub(1)).map(|before| &self.records[before]);
        before.is_some_and(|(key, _)| key != self.key())
    }

    fn prev(&mut self) -> Result<Option<Standing>> {
        self.to(self.at.and_then(|at| at.checked_sub(1)))?;
        Ok(self.standing())
    }

    fn key(&self) -> &[u8] {
        &self.records[self.at.unwrap()].0
    }

    fn trailer(&self) -> Trailer {
        self.records[self.at.unwrap()].1
    }

    fn value(&self) -> &[u8] {
        &[]
    }
}

/// Keys whose heads are alike, or not, in all the ways there are: long common beginnings, some of them shared by few, zeros and ones at the
/// end, keys that are beginnings of others.
fn random_key(random: &mut Random) -> Vec<u8> {
    let mut key = match random.below(4) {
        0 => vec![0; random.below(24) as usize],
        1 => vec![0xff; random.below(40) as usize],
        _ => vec![b'k'; 20 + random.below(3) as usize],
    };
    key.extend((0..random.below(4)).map(|_| [0, 1, 0xff][random.below(3) as usize]));
    key
}

/// Some sources, of which some are empty and some cover a part only, and all their records.
fn random_sources(random: &mut Random) -> (Vec<ListCursor>, Vec<Record>) {
    let count = random.below(8) as usize;
    let mut lists = vec![Vec::new(); count];
    for sequence in 1..=random.below(120) {
        let Some(list) = lists.get_mut(random.below(count.max(1) as u64) as usize) else { break };
        if list.is_empty() && random.below(3) == 0 {
            continue;
        }
        list.push((random_key(random), Trailer::new(sequence, ValueKind::Put)));
    }
    let sort = |records: &mut Vec<Record>| {
        records.sort_by(|(a, at), (b, bt)| compare_internal(a, *at, b, *bt));
    };
    lists.iter_mut().for_each(sort);
    let mut all = lists.concat();
    sort(&mut all);
    let cursor = |records| ListCursor { records, at: None, repeats: false };
    (lists.into_iter().map(cursor).collect(), all)
}

#[test]
fn any_walk_through_a_merge_is_one_through_all_records() {
    let mut random = Random::from_environment();
    for _ in 0..if cfg!(miri) { 30 } else { 3000 } {
        let (sources, all) = random_sources(&mut random);
        let (mut merge, mut model) =
            (MergeCursor::new(sources), ListCursor { records: all, at: None, repeats: false });
        let mut forward = true;
        for _ in 0..120 {
            let turns = random.below(12) == 0;
            if !model.valid() || random.below(40) == 0 {
                let (key, trailer) = (random_key(&mut random), Trailer::seek(random.below(120)));
                match random.below(4) {
                    0 => (merge.seek_to_first().unwrap(), model.seek_to_first().unwrap()),
                    1 => (merge.seek_to_last().unwrap(), model.seek_to_last().unwrap()),
                    2 => (merge.seek(&key, trailer).unwrap(), model.seek(&key, trailer).unwrap()),
                    _ => (
                        merge.seek_before(&key, trailer).unwrap(),
                        model.seek_before(&key, trailer).unwrap(),
                    ),
                };
                forward = !merge.goes_backward();
            } else if forward != turns {
                forward = true;
                merge.next().unwrap();
                model.next().unwrap();
                assert!(!merge.valid() || merge.repeats() == model.repeats());
            } else {
                forward = false;
                merge.prev().unwrap();
                model.prev().unwrap();
            }
            assert_eq!(merge.valid(), model.valid());
            if merge.valid() {
                assert_eq!((merge.key(), merge.trailer()), (model.key(), model.trailer()));
                assert!(model.is_surely_newest() || !merge.is_surely_newest());
            }
        }
    }
}

#[test]
fn a_merge_of_distinct_keys_knows_going_backward_that_they_are_the_newest() {
    let list = |odd| {
        let key = |number: u8| (vec![number], Trailer::new(1, ValueKind::Put));
        let records = (0..200).filter(|number| number % 2 == odd).map(key).collect();
        ListCursor { records, at: None, repeats: false }
    };
    let mut merge = MergeCursor::new(vec![list(0), list(1)]);
    merge.seek_to_last().unwrap();
    let mut known = 0;
    while merge.valid() {
        known += usize::from(merge.is_surely_newest());
        merge.prev().unwrap();
    }
    assert_eq!(known, 198, "all but the first of each");
    assert_eq!(merge.take_switches(), 199);
}
