//! Snapshots: every read through one sees one moment, whatever happens later.

use rustlite::{Durability, Options, WriteBatch, WriteOptions};

use crate::support::{Stage, collect, keys, on_each_setup};

#[test]
fn every_read_of_a_snapshot_sees_its_moment() {
    on_each_setup(|setup| {
        let db = setup.open();
        let other = db.keyspace("other").unwrap();
        for key in ["a", "b", "c"] {
            db.put(key, "old").unwrap();
            other.put(key, "old other").unwrap();
        }
        let snapshot = db.snapshot().unwrap();
        let stats = db.stats().unwrap();
        assert_eq!((stats.snapshots, stats.oldest_snapshot), (1, Some(snapshot.sequence())));
        db.put("a", "new").unwrap();
        db.delete("b").unwrap();
        db.put("d", "new").unwrap();
        other.clear().unwrap();
        for stage in [Stage::Memtable, Stage::Flushed, Stage::Compacted] {
            let db = stage.reach(setup, db.clone());
            assert_eq!(snapshot.get("a").unwrap().as_deref(), Some(&b"old"[..]), "{stage:?}");
            assert_eq!(snapshot.get_pinned("b").unwrap().as_deref(), Some(&b"old"[..]));
            assert!(snapshot.contains_key("b").unwrap() && !snapshot.contains_key("d").unwrap());
            let found = snapshot.multi_get(&["a", "d"]).unwrap();
            assert_eq!(found, [Some(b"old".to_vec()), None]);
            assert_eq!(keys(snapshot.iter()), "a b c");
            assert_eq!(keys(snapshot.iter().rev()), "c b a");
            assert_eq!(keys(snapshot.range("b"..)), "b c");
            assert_eq!(keys(snapshot.prefix("b")), "b");
            let mut cursor = snapshot.cursor();
            cursor.seek_before("c").unwrap();
            assert_eq!((cursor.key(), cursor.value()), (&b"b"[..], &b"old"[..]));
            let other_then = snapshot.keyspace(&other);
            assert_eq!(keys(other_then.iter()), "a b c");
            assert_eq!(other.at(&snapshot).get("c").unwrap().as_deref(), Some(&b"old other"[..]));
            assert_eq!(keys(db.iter().unwrap()), "a c d");
            assert_eq!(keys(other.iter().unwrap()), "");
        }
        drop(snapshot);
        assert_eq!(db.stats().unwrap().snapshots, 0);
        db.compact().unwrap();
        other.compact().unwrap();
        assert_eq!(keys(db.iter().unwrap()), "a c d");
    });
}

#[test]
fn a_snapshot_outlives_its_handles_the_database_and_a_dropped_keyspace() {
    on_each_setup(|setup| {
        let db = setup.open();
        let doomed = db.keyspace("doomed").unwrap();
        doomed.put("k", "v").unwrap();
        db.flush().unwrap();
        let snapshot = db.snapshot().unwrap();
        let then = snapshot.keyspace(&doomed);
        db.drop_keyspace("doomed").unwrap();
        db.compact().unwrap();
        db.close().unwrap();
        drop((db, doomed, snapshot));
        let reader = std::thread::spawn(move || then.get("k").unwrap());
        assert_eq!(reader.join().unwrap().as_deref(), Some(&b"v"[..]));
    });
}

#[test]
fn a_snapshot_sees_whole_batches_across_keyspaces_while_writers_write() {
    on_each_setup(|setup| {
        let db = setup.open_with(setup.options().durability(Durability::Buffered));
        let sides = [db.keyspace("left").unwrap(), db.keyspace("right").unwrap()];
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (db, sides) = (db.clone(), sides.clone());
                scope.spawn(move || {
                    for number in 0..1_500_u32 {
                        let mut batch = WriteBatch::new();
                        for side in &sides {
                            batch.put_in(side, format!("counter {thread}"), number.to_be_bytes());
                            batch.put_in(side, format!("{thread} {number}"), "x");
                        }
                        db.write(batch).unwrap();
                    }
                });
            }
            let mut last = [0; 2];
            for _ in 0..300 {
                let snapshot = db.snapshot().unwrap();
                let [left, right] = sides.each_ref().map(|side| snapshot.keyspace(side));
                for (thread, last) in last.iter_mut().enumerate() {
                    let key = format!("counter {thread}");
                    let seen = left.get(&key).unwrap();
                    assert_eq!(seen, right.get(&key).unwrap(), "half of a batch was seen");
                    let Some(seen) = seen else { continue };
                    let number = u32::from_be_bytes(seen.try_into().unwrap());
                    assert!(number >= *last, "time went backwards");
                    *last = number;
                    assert!(right.contains_key(format!("{thread} {number}")).unwrap());
                    assert!(!right.contains_key(format!("{thread} {}", number + 1)).unwrap());
                }
            }
        });
    });
}

#[test]
fn a_forgotten_snapshot_and_iterator_do_not_stop_writers() {
    on_each_setup(|setup| {
        let db = setup.open_with(setup.options().durability(Durability::Buffered));
        db.put("k", "at first").unwrap();
        let snapshot = db.snapshot().unwrap();
        let mut iter = db.iter().unwrap();
        // Many times the memory that memtables may take.
        for number in 0..10_000 {
            db.put("k", format!("{number:0100}")).unwrap();
        }
        db.compact().unwrap();
        let stats = db.stats().unwrap();
        assert!(stats.table_bytes() < 64 << 10, "invisible versions were kept: {stats}");
        assert_eq!(snapshot.get("k").unwrap().as_deref(), Some(&b"at first"[..]));
        assert_eq!(iter.next().unwrap().unwrap().1, b"at first");
    });
}

#[test]
fn read_only_handles_read_everything_and_change_nothing() {
    on_each_setup(|setup| {
        if !setup.is_persistent() {
            return;
        }
        let db = setup.open();
        for number in 0..1_500 {
            let write = WriteOptions::new().durability(Durability::Buffered);
            db.put_with(format!("{number:04}"), format!("{number:050}"), &write).unwrap();
        }
        db.keyspace("other").unwrap().put("only in", "the log").unwrap();
        let all = collect(db.iter().unwrap());
        // While the database is open elsewhere, and nobody closed it: as after a crash, part of the data is in the log only.
        let before = crate::support::picture_at_rest(&setup.path());
        let reader =
            rustlite::Database::open_with(setup.path(), read_only(setup.options())).unwrap();
        assert_eq!(collect(reader.iter().unwrap()), all);
        let other = reader.keyspace("other").unwrap();
        assert_eq!(other.get("only in").unwrap().as_deref(), Some(&b"the log"[..]));
        assert_eq!(reader.snapshot().unwrap().multi_get(&["0007"]).unwrap().len(), 1);
        assert_eq!(reader.iter().unwrap().rev().count(), 1_500);
        reader.sync().unwrap();
        reader.close().unwrap();
        crate::support::assert_untouched(&before, &setup.path());
        db.close().unwrap();
    });
}

fn read_only(options: Options) -> Options {
    options.read_only(true)
}
