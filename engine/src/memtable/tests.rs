//! The memtable against a sorted map, alone and under concurrent use.

#![allow(clippy::disallowed_methods, reason = "threads of a test may be real ones")]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::cursor::Cursor;
use crate::key::ValueKind;

/// A small generator whose whole run follows from one printed number.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn from_environment() -> Self {
        let seed = match std::env::var("RUSTLITE_TEST_SEED") {
            Ok(seed) => seed.parse().expect("RUSTLITE_TEST_SEED must be a number"),
            Err(_) => std::process::id().into(),
        };
        eprintln!("replay with RUSTLITE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Another one, for a thread of its own.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Keys that share long parts, are prefixes of one another, end in zeros, or repeat.
    pub(super) fn key(&mut self) -> Vec<u8> {
        let mut key = vec![0, 0, 0, self.below(2) as u8];
        if self.below(3) > 0 {
            key.extend(b"a common part of many bytes");
        }
        let letters = [0, 1, b'a', 255];
        key.extend((0..self.below(6)).map(|_| letters[self.below(4) as usize]));
        key
    }
}

/// Internal keys in the tree's order: the trailer is turned round.
type ModelKey = (Vec<u8>, u64);
type Model = BTreeMap<ModelKey, Vec<u8>>;

fn turned(trailer: Trailer) -> u64 {
    u64::MAX - trailer.0
}

fn random_trailer(random: &mut Random, sequence: Sequence) -> Trailer {
    Trailer::new(sequence, ValueKind::from_u8(random.below(2) as u8).expect("put or delete"))
}

fn fill(memtable: &Memtable, random: &mut Random, count: u64) -> Model {
    let mut model = Model::new();
    let mut splice = Splice::default();
    for sequence in 1..=count {
        if random.below(10) == 0 {
            splice = Splice::default();
        }
        let key = random.key();
        let trailer = random_trailer(random, sequence);
        let value = vec![sequence as u8; random.below(40) as usize];
        memtable.insert(&key, trailer, &value, &mut splice).unwrap();
        model.insert((key, turned(trailer)), value);
    }
    model
}

fn assert_at(cursor: &MemtableCursor, expected: Option<(&ModelKey, &Vec<u8>)>) {
    assert_eq!(cursor.valid(), expected.is_some());
    if let Some(((key, turned_trailer), value)) = expected {
        assert_eq!(cursor.key(), key);
        assert_eq!(turned(cursor.trailer()), *turned_trailer);
        assert_eq!(cursor.value(), value);
    }
}

#[test]
fn get_finds_the_newest_version_that_the_snapshot_may_see() {
    let mut random = Random::from_environment();
    let count = if cfg!(miri) { 60 } else { 3_000 };
    let memtable = Memtable::new(0).unwrap();
    let model = fill(&memtable, &mut random, count);
    assert_eq!(memtable.entries(), model.len());
    for _ in 0..count {
        let key = random.key();
        let snapshot = random.below(count + 2);
        let from = (key.clone(), turned(Trailer::seek(snapshot)));
        let expected = model.range(from..).next().filter(|((found, _), _)| *found == key);
        let found = memtable.get(&key, hash_key(&key), snapshot);
        assert_eq!(found.map(|(trailer, _)| turned(trailer)), expected.map(|(k, _)| k.1));
        assert_eq!(found.map(|(_, span)| memtable.value(span)), expected.map(|(_, v)| &**v));
    }
}

#[test]
fn a_cursor_moves_as_one_over_a_sorted_map_does() {
    let mut random = Random::from_environment();
    let count = if cfg!(miri) { 40 } else { 2_000 };
    let memtable = Arc::new(Memtable::new(0).unwrap());
    let model = fill(&memtable, &mut random, count);
    let mut cursor = memtable.cursor();
    assert!(!cursor.valid());
    cursor.seek_to_first().unwrap();
    let mut last = None;
    for entry in &model {
        assert_at(&cursor, Some(entry));
        if let Some(last) = last.replace(cursor.key().to_vec()) {
            assert_eq!(cursor.repeats(), last == cursor.key());
        }
        cursor.next().unwrap();
    }
    assert!(!cursor.valid());
    cursor.seek_to_last().unwrap();
    for entry in model.iter().rev() {
        assert_at(&cursor, Some(entry));
        cursor.prev().unwrap();
    }
    assert!(!cursor.valid());
    for _ in 0..count {
        let trailer = match random.below(4) {
            0 => Trailer::NEWEST,
            1 => Trailer::OLDEST,
            _ => {
                let sequence = random.below(count + 2);
                random_trailer(&mut random, sequence)
            }
        };
        let bound = (random.key(), turned(trailer));
        cursor.seek(&bound.0, trailer).unwrap();
        assert_at(&cursor, model.range(&bound..).next());
        cursor.seek_before(&bound.0, trailer).unwrap();
        assert_at(&cursor, model.range(..&bound).next_back());
        if cursor.valid() {
            let here = (cursor.key().to_vec(), turned(cursor.trailer()));
            cursor.next().unwrap();
            let after = (Bound::Excluded(&here), Bound::Unbounded);
            assert_at(&cursor, model.range::<ModelKey, _>(after).next());
        }
    }
}

#[test]
fn a_cursor_turns_round_anywhere() {
    let mut random = Random::from_environment();
    let (count, steps) = if cfg!(miri) { (60, 120) } else { (3_000, 20_000) };
    let memtable = Arc::new(Memtable::new(0).unwrap());
    let model: Vec<_> = fill(&memtable, &mut random, count).into_iter().collect();
    let mut cursor = memtable.cursor();
    let (mut at, mut back) = (model.len(), true);
    for _ in 0..steps {
        // Long ways in one direction, and many short ones.
        if random.below(if back { 40 } else { 10 }) == 0 {
            back = !back;
        }
        if at == model.len() {
            at = random.below(model.len() as u64) as usize;
            cursor.seek(&model[at].0.0, Trailer(u64::MAX - model[at].0.1)).unwrap();
        } else if back {
            cursor.prev().unwrap();
            at = at.checked_sub(1).unwrap_or(model.len());
        } else {
            cursor.next().unwrap();
            at += 1;
        }
        assert_at(&cursor, model.get(at).map(|(key, value)| (key, value)));
    }
}

#[test]
fn the_next_memtable_is_made_when_one_is_half_full() {
    let maker = MemtableMaker::new(64 << 10);
    let memtable = maker.make().unwrap();
    let mut sequence = 0;
    let mut fill_to = |bytes| {
        while memtable.memory_usage() < bytes {
            sequence += 1;
            let trailer = Trailer::new(sequence, ValueKind::Put);
            memtable.insert(b"key", trailer, &[0; 100], &mut Splice::default()).unwrap();
        }
        maker.upkeep(&memtable);
    };
    fill_to(30 << 10);
    assert!(maker.lock_spare().is_none(), "small databases pay for one memtable");
    fill_to(32 << 10);
    assert!(maker.lock_spare().is_some());
    assert!(maker.make().unwrap().is_empty());
    assert!(maker.lock_spare().is_none(), "it is given once");
    assert!(maker.make().unwrap().is_empty());
}

#[test]
fn an_empty_memtable_has_nothing() {
    let memtable = Arc::new(Memtable::new(1 << 30).unwrap());
    assert!(memtable.is_empty());
    assert_eq!(memtable.get(b"", hash_key(b""), u64::MAX >> 8), None);
    let mut cursor = memtable.cursor();
    for to in 0..4 {
        match to {
            0 => cursor.seek_to_first().unwrap(),
            1 => cursor.seek_to_last().unwrap(),
            2 => cursor.seek(b"", Trailer::NEWEST).unwrap(),
            _ => cursor.seek_before(b"\xff", Trailer::OLDEST).unwrap(),
        }
        assert!(!cursor.valid());
    }
    assert!(memtable.range_tombstones().is_empty());
    assert_eq!(memtable.newest_covering(b"a", u64::MAX >> 8), None);
}

#[test]
fn values_longer_than_a_chunk_come_back_whole() {
    const KEY: &[u8] = b"\0\0\0\0key";
    let memtable = Memtable::new(0).unwrap();
    let mut splice = Splice::default();
    let sizes = [0, arena::SHARED_BYTES_MAX, arena::CHUNK_BYTES, 3 * arena::CHUNK_BYTES + 5];
    for (sequence, &size) in (1_u8..).zip(&sizes) {
        let trailer = Trailer::new(sequence.into(), ValueKind::Put);
        memtable.insert(KEY, trailer, &vec![sequence; size], &mut splice).unwrap();
    }
    for (sequence, &size) in (1_u8..).zip(&sizes) {
        let (_, span) = memtable.get(KEY, hash_key(KEY), sequence.into()).expect("it was inserted");
        assert!(memtable.value(span) == vec![sequence; size]);
    }
    assert!(memtable.memory_usage() >= sizes.iter().sum());
}

#[test]
fn a_cursor_keeps_its_memtable_alive() {
    let memtable = Arc::new(Memtable::new(0).unwrap());
    let trailer = Trailer::new(1, ValueKind::Put);
    memtable.insert(b"key", trailer, b"value", &mut Splice::default()).unwrap();
    let mut cursor = memtable.cursor();
    cursor.seek_to_first().unwrap();
    drop(memtable);
    let there = std::thread::spawn(move || (cursor.key().to_vec(), cursor.value().to_vec()));
    assert_eq!(there.join().unwrap(), (b"key".to_vec(), b"value".to_vec()));
}

#[test]
#[should_panic(expected = "a position is used with the list that it came from")]
fn a_span_of_another_memtable_is_refused() {
    let memtable = Memtable::new(0).unwrap();
    let trailer = Trailer::new(1, ValueKind::Put);
    memtable.insert(b"key", trailer, b"value", &mut Splice::default()).unwrap();
    let (_, span) = memtable.get(b"key", hash_key(b"key"), 1).expect("it was inserted");
    let other = Memtable::new(0).unwrap();
    other.value(span);
}

/// Two writers, each with sorted batches all over the key space; readers demand whatever was
/// announced before.
#[test]
fn readers_find_all_that_was_announced_while_writers_go_on() {
    let memtable = Arc::new(Memtable::new(0).unwrap());
    let (writers, batches, batch) = if cfg!(miri) { (2, 4, 5) } else { (3, 150, 100_u64) };
    let announced: Vec<AtomicU64> = (0..writers).map(|_| AtomicU64::new(0)).collect();
    let key_of = |writer: u64, index: u64| {
        let (run, place) = (index / batch, index % batch);
        let spread = place << 32 | (run.wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
        [&spread.to_be_bytes()[..], &[writer as u8]].concat()
    };
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (memtable, announced) = (&memtable, &announced);
            scope.spawn(move || {
                let mut splice = Splice::default();
                for index in 0..batches * batch {
                    let trailer = Trailer::new(index * writers + writer + 1, ValueKind::Put);
                    let key = key_of(writer, index);
                    memtable.insert(&key, trailer, &key, &mut splice).unwrap();
                    announced[writer as usize].store(index + 1, Ordering::Release);
                }
            });
        }
        let (memtable, announced) = (&memtable, &announced);
        scope.spawn(move || {
            let mut random = Random(7);
            loop {
                let counts: Vec<_> = announced.iter().map(|n| n.load(Ordering::Acquire)).collect();
                for (writer, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let key = key_of(writer as u64, random.below(count));
                    let (_, span) =
                        memtable.get(&key, hash_key(&key), u64::MAX >> 8).expect("announced");
                    assert_eq!(memtable.value(span), key);
                }
                if counts.iter().all(|&count| count == batches * batch) {
                    break;
                }
            }
        });
        scope.spawn(move || {
            let mut cursor = memtable.cursor();
            while announced[0].load(Ordering::Acquire) < batches * batch {
                let before: u64 = announced.iter().map(|n| n.load(Ordering::Acquire)).sum();
                let mut met = 0;
                let mut last = Vec::new();
                cursor.seek_to_first().unwrap();
                while cursor.valid() {
                    assert!(last.as_slice() < cursor.key(), "out of order");
                    assert_eq!(cursor.key(), cursor.value());
                    last = cursor.key().to_vec();
                    met += 1;
                    cursor.next().unwrap();
                }
                assert!(met >= before, "met {met} of {before}");
            }
        });
    });
    assert_eq!(memtable.entries() as u64, writers * batches * batch);
}

#[test]
fn range_tombstones_answer_as_a_list_of_them_does() {
    let mut random = Random::from_environment();
    let rounds = if cfg!(miri) { 2 } else { 20 };
    for _ in 0..rounds {
        let memtable = Memtable::new(0).unwrap();
        let mut model: Vec<(Vec<u8>, Vec<u8>, Sequence)> = Vec::new();
        for sequence in 1..=random.below(120) {
            let (start, end) = (random.key(), random.key());
            memtable.add_range_tombstone(&start, &end, sequence);
            model.push((start, end, sequence));
            assert_eq!(memtable.range_tombstone_count(), model.len());
            let key = random.key();
            let snapshot = random.below(sequence + 2);
            let covering = model.iter().filter(|(start, end, sequence)| {
                *start <= key && key < *end && *sequence <= snapshot
            });
            let newest = covering.map(|tombstone| tombstone.2).max();
            assert_eq!(memtable.newest_covering(&key, snapshot), newest);
            if random.below(20) == 0 {
                let all = RangeTombstones::from_tombstones(model.iter().cloned());
                assert_eq!(*memtable.range_tombstones(), all);
                assert_eq!(memtable.newest_covering(&key, snapshot), newest);
            }
        }
        let all = RangeTombstones::from_tombstones(model);
        assert_eq!(*memtable.range_tombstones(), all);
    }
}

#[test]
fn memory_usage_counts_range_tombstones() {
    let memtable = Memtable::new(0).unwrap();
    let before = memtable.memory_usage();
    memtable.add_range_tombstone(&[1; 1000], &[2; 1000], 1);
    assert!(memtable.memory_usage() >= before + 2000);
    assert!(!memtable.is_empty());
}
