//! After `close`: every method says so, and what was read before stays readable.

use std::sync::atomic::{AtomicU32, Ordering};

use rustlite::{ErrorKind, WriteBatch};

use crate::support::{assert_fails, assert_untouched, on_each_setup, picture};

#[test]
fn every_method_of_a_closed_database_says_that_it_is_closed() {
    on_each_setup(|setup| {
        let db = setup.open();
        let other = db.keyspace("other").unwrap();
        db.put("k", "v").unwrap();
        other.put("k", "other").unwrap();
        let snapshot = db.snapshot().unwrap();
        let clone = db.clone();
        db.close().unwrap();
        db.close().unwrap();
        clone.close().unwrap();
        let before = setup.is_persistent().then(|| picture(&setup.path()));
        let closed = ErrorKind::Closed;
        for keyspace in [&*db, &*clone, &other] {
            assert_fails(keyspace.get("k"), closed, &["closed"]);
            assert_fails(keyspace.get_pinned("k"), closed, &["closed"]);
            assert_fails(keyspace.get_into("k", &mut Vec::new()), closed, &["closed"]);
            assert_fails(keyspace.multi_get(&["k"]), closed, &["closed"]);
            assert_fails(keyspace.contains_key("k"), closed, &["closed"]);
            assert_fails(keyspace.put("k", "v"), closed, &["closed"]);
            assert_fails(keyspace.delete("k"), closed, &["closed"]);
            assert_fails(keyspace.delete_range("a", "z"), closed, &["closed"]);
            assert_fails(keyspace.clear(), closed, &["closed"]);
            assert_fails(keyspace.iter(), closed, &["closed"]);
            assert_fails(keyspace.range("a"..), closed, &["closed"]);
            assert_fails(keyspace.prefix("a"), closed, &["closed"]);
            assert_fails(keyspace.cursor(), closed, &["closed"]);
            assert_fails(keyspace.compact(), closed, &["closed"]);
            assert_fails(keyspace.compact_range("a"..), closed, &["closed"]);
        }
        let mut batch = WriteBatch::new();
        batch.put("k", "v");
        assert_fails(db.write(batch), closed, &["closed"]);
        assert_fails(db.snapshot(), closed, &["closed"]);
        assert_fails(db.keyspace("other"), closed, &["closed"]);
        assert_fails(db.existing_keyspace("other"), closed, &["closed"]);
        assert_fails(db.create_keyspace("new", Default::default()), closed, &["closed"]);
        assert_fails(db.list_keyspaces(), closed, &["closed"]);
        assert_fails(db.drop_keyspace("other"), closed, &["closed"]);
        assert_fails(db.flush(), closed, &["closed"]);
        assert_fails(db.wait_for_compactions(), closed, &["closed"]);
        assert_fails(db.sync(), closed, &["closed"]);
        assert_fails(db.stats(), closed, &["closed"]);
        assert_eq!(snapshot.get("k").unwrap().as_deref(), Some(&b"v"[..]));
        assert_eq!(other.at(&snapshot).get("k").unwrap().as_deref(), Some(&b"other"[..]));
        if let Some(before) = before {
            assert_untouched(&before, &setup.path());
            setup.open().close().unwrap();
        }
    });
}

#[test]
fn closing_while_others_work_gives_them_an_error_and_loses_no_acknowledged_write() {
    on_each_setup(|setup| {
        let db = setup.open();
        let begun: [AtomicU32; 4] = Default::default();
        let acknowledged: Vec<u32> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|thread| {
                    let db = db.clone();
                    let begun = &begun[thread];
                    scope.spawn(move || {
                        for number in 0.. {
                            begun.store(number, Ordering::Relaxed);
                            if let Err(error) = db.put(format!("{thread} {number:06}"), "v") {
                                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                                return number;
                            }
                        }
                        unreachable!("the database is closed at some time")
                    })
                })
                .collect();
            // A busy machine takes its time to start them.
            while begun.iter().any(|number| number.load(Ordering::Relaxed) < 3) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            db.close().unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        assert!(acknowledged.iter().all(|&number| number > 0), "{acknowledged:?}");
        if setup.is_persistent() {
            let db = setup.open();
            for (thread, number) in acknowledged.into_iter().enumerate() {
                let count = db.prefix(format!("{thread} ")).unwrap().count();
                assert_eq!(count as u32, number);
            }
            db.close().unwrap();
        }
    });
}

#[test]
fn dropping_the_last_handle_closes_the_database() {
    on_each_setup(|setup| {
        if !setup.is_persistent() {
            return;
        }
        let db = setup.open();
        let keyspace = db.keyspace("other").unwrap();
        drop(db);
        // A keyspace keeps its database open.
        keyspace.put("k", "v").unwrap();
        drop(keyspace);
        let db = setup.open();
        assert_eq!(db.keyspace("other").unwrap().get("k").unwrap().as_deref(), Some(&b"v"[..]));
    });
}
