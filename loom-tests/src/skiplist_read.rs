//! A reader never meets a half-written node, and finds whatever was inserted before it looked.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::key::{Trailer, ValueKind};
use crate::memtable::skiplist::{SkipList, Splice};
use crate::memtable::stock::ChunkStock;

fn insert(list: &SkipList, key: &[u8], sequence: u64, splice: &mut Splice, height: usize) {
    let trailer = Trailer::new(sequence, ValueKind::Put);
    assert_eq!(list.insert_at_height(key, trailer, key, splice, height), Ok(()));
}

/// Every access to a node's contents is told to loom, which fails the model if it may race with the
/// writing of them.
fn scan(list: &SkipList) -> usize {
    let mut met = 0;
    let mut last: Option<(&[u8], Trailer)> = None;
    let mut at = list.first();
    while let Some(position) = at {
        let entry = list.entry(position);
        assert_eq!(entry.key(), entry.value());
        if let Some((key, trailer)) = last {
            assert!(key < entry.key() || (key == entry.key() && trailer > entry.trailer()));
        }
        last = Some((entry.key(), entry.trailer()));
        met += 1;
        at = list.next(position);
    }
    met
}

#[test]
fn a_scan_meets_complete_records_in_order() {
    crate::model(Some(3), || {
        let list = Arc::new(SkipList::new(ChunkStock::new(0).into()).expect("there is memory"));
        let announced = Arc::new(AtomicUsize::new(0));
        let writer = {
            let (list, announced) = (Arc::clone(&list), Arc::clone(&announced));
            thread::spawn(move || {
                let mut splice = Splice::default();
                insert(&list, b"b", 1, &mut splice, 1);
                announced.store(1, Ordering::Release);
                insert(&list, b"a", 2, &mut splice, 2);
            })
        };
        let before = announced.load(Ordering::Acquire);
        let met = scan(&list);
        assert!(before <= met && met <= 2, "met {met} after {before} were announced");
        writer.join().unwrap();
        assert_eq!(scan(&list), 2);
    });
}

#[test]
fn a_search_through_the_upper_level_finds_what_was_announced() {
    crate::model(Some(3), || {
        let list = Arc::new(SkipList::new(ChunkStock::new(0).into()).expect("there is memory"));
        insert(&list, b"a", 1, &mut Splice::default(), 1);
        let announced = Arc::new(AtomicUsize::new(0));
        let writer = {
            let (list, announced) = (Arc::clone(&list), Arc::clone(&announced));
            thread::spawn(move || {
                insert(&list, b"ab", 2, &mut Splice::default(), 2);
                announced.store(1, Ordering::Release);
            })
        };
        let before = announced.load(Ordering::Acquire);
        let found = list.seek_same_key(b"ab", Trailer::NEWEST);
        assert!(before == 0 || found.is_some());
        if let Some(position) = found {
            assert_eq!(list.entry(position).value(), b"ab");
        }
        // The search runs over the new node, whether or not it is linked yet.
        assert!(list.seek_same_key(b"a", Trailer::NEWEST).is_some());
        assert_eq!(list.seek(b"b", Trailer::NEWEST), None);
        writer.join().unwrap();
    });
}

#[test]
fn versions_of_one_key_stay_newest_first() {
    crate::model(Some(3), || {
        let list = Arc::new(SkipList::new(ChunkStock::new(0).into()).expect("there is memory"));
        let writers = [1, 2].map(|sequence| {
            let list = Arc::clone(&list);
            let height = sequence as usize;
            thread::spawn(move || insert(&list, b"k", sequence, &mut Splice::default(), height))
        });
        let newest = list.seek_same_key(b"k", Trailer::seek(1));
        assert!(newest.is_none_or(|position| list.entry(position).trailer().sequence() == 1));
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(scan(&list), 2);
    });
}
