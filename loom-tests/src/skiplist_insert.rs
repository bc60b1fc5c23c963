//! Records inserted at once by several threads are all reachable, in order, at every level that
//! they have.

use loom::sync::Arc;
use loom::thread;

use crate::key::{Trailer, ValueKind};
use crate::memtable::skiplist::check::check_links;
use crate::memtable::skiplist::{SkipList, Splice};
use crate::memtable::stock::ChunkStock;

/// A key and the number of levels of its node.
type Record = (&'static [u8], usize);

fn insert_all(list: &SkipList, records: &[Record], splice: &mut Splice) {
    for &(key, height) in records {
        let trailer = Trailer::new(1, ValueKind::Put);
        assert_eq!(list.insert_at_height(key, trailer, key, splice, height), Ok(()));
    }
}

fn assert_holds(list: &SkipList, expected: &[&[u8]]) {
    let mut met = Vec::new();
    let mut at = list.first();
    while let Some(position) = at {
        let entry = list.entry(position);
        assert_eq!(entry.key(), entry.value());
        met.push(entry.key());
        at = list.next(position);
    }
    assert_eq!(met, expected);
    for &key in expected {
        // From the top, through the links of the upper level.
        assert!(list.seek_same_key(key, Trailer::NEWEST).is_some(), "{key:?} is not found");
    }
    assert_eq!(check_links(list), expected.len());
    assert_eq!(list.entries(), expected.len());
    let last = list.last().expect("there are records");
    assert_eq!(Some(&list.entry(last).key()), expected.last());
}

/// `before` is there when the threads start, each with a splice that led there.
fn threads_insert(
    preemptions: Option<usize>,
    before: &'static [Record],
    each: &'static [&[Record]],
) {
    crate::model(preemptions, move || {
        let list = Arc::new(SkipList::new(ChunkStock::new(0).into()).expect("there is memory"));
        let mut splice = Splice::default();
        insert_all(&list, before, &mut splice);
        let workers: Vec<_> = each[1..]
            .iter()
            .map(|records| {
                let list = Arc::clone(&list);
                thread::spawn(move || insert_all(&list, records, &mut Splice::default()))
            })
            .collect();
        insert_all(&list, each[0], &mut splice);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        let records = before.iter().chain(each.iter().copied().flatten());
        let mut expected: Vec<&[u8]> = records.map(|record| record.0).collect();
        expected.sort_unstable();
        assert_holds(&list, &expected);
    });
}

#[test]
fn two_neighbours_of_both_heights() {
    threads_insert(None, &[], &[&[(b"ab", 1)], &[(b"aa", 1)]]);
    threads_insert(Some(3), &[], &[&[(b"ab", 2)], &[(b"aa", 2)]]);
    threads_insert(Some(3), &[], &[&[(b"a", 2)], &[(b"ab", 1)]]);
}

#[test]
fn a_reused_path_survives_an_insert_in_between() {
    threads_insert(Some(2), &[(b"a", 1)], &[&[(b"b", 2), (b"bb", 2)], &[(b"ba", 2)]]);
}

#[test]
fn three_threads_at_one_place() {
    threads_insert(Some(2), &[], &[&[(b"b", 1)], &[(b"a", 2)], &[(b"c", 1)]]);
}
