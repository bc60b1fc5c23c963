//! Every way to write, and what can be read afterwards, in every setup.

use std::time::Duration;

use rustlite::{Database, Durability, IoBackend, Options, WriteBatch, WriteOptions};

use crate::support::{Setup, Stage, collect, keys, on_each_setup, texts};

const DURABILITIES: [Durability; 3] =
    [Durability::Sync, Durability::Buffered, Durability::Periodic(Duration::from_millis(1))];

#[test]
fn single_writes_are_readable_wherever_the_data_is() {
    on_each_setup(|setup| {
        for (number, stage) in Stage::ALL.into_iter().enumerate() {
            let db = setup.open();
            db.clear().unwrap();
            db.put("a", "1").unwrap();
            db.put("b", "2").unwrap();
            db.put("a", format!("again {number}")).unwrap();
            db.delete("b").unwrap();
            db.delete("never there").unwrap();
            db.put("empty value", "").unwrap();
            let db = stage.reach(setup, db);
            assert_eq!(db.get("a").unwrap(), Some(format!("again {number}").into_bytes()));
            assert_eq!(db.get("b").unwrap(), None);
            assert_eq!(db.get("empty value").unwrap().as_deref(), Some(&b""[..]));
            assert!(db.contains_key("empty value").unwrap());
            assert!(!db.contains_key("b").unwrap());
            assert!(!db.contains_key("never there").unwrap());
            assert_eq!(keys(db.iter().unwrap()), "a empty value");
            db.close().unwrap();
        }
    });
}

#[test]
fn every_durability_can_be_chosen_per_database_and_per_write() {
    on_each_setup(|setup| {
        for of_database in DURABILITIES {
            let options = setup.options().durability(of_database);
            let db = setup.open_with(options.clone());
            for (number, of_write) in DURABILITIES.into_iter().enumerate() {
                let write = WriteOptions::new().durability(of_write);
                db.put_with(format!("put {number}"), "x", &write).unwrap();
                db.put_with("deleted", "x", &write).unwrap();
                db.delete_with("deleted", &write).unwrap();
                let mut batch = WriteBatch::new();
                batch.put(format!("batch {number}"), "x");
                db.write_with(&batch, &write).unwrap();
                // The batch is borrowed, so it can be written again.
                db.write_with(&batch, &WriteOptions::new()).unwrap();
            }
            db.put("by default", "x").unwrap();
            db.sync().unwrap();
            db.sync().unwrap();
            let db = Stage::Reopened.reach(setup, db);
            let expected = "batch 0 batch 1 batch 2 by default put 0 put 1 put 2";
            assert_eq!(keys(db.iter().unwrap()), expected);
            db.close().unwrap();
        }
    });
}

#[test]
fn later_writes_of_a_batch_win_over_earlier_ones() {
    on_each_setup(|setup| {
        let db = setup.open();
        db.put("range 1", "old").unwrap();
        let mut batch = WriteBatch::with_capacity(100);
        assert!(batch.is_empty());
        batch
            .put("twice", "first")
            .put("twice", "second")
            .put("gone", "x")
            .delete("gone")
            .delete("back")
            .put("back", "x")
            .put("range 2", "x")
            .delete_range("range", "rangf")
            .put("range 3", "x");
        assert_eq!(batch.len(), 9);
        assert!(batch.size_bytes() > 60);
        db.write(batch.clone()).unwrap();
        let expected = [("back", "x"), ("range 3", "x"), ("twice", "second")];
        let expected: Vec<_> =
            expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(texts(db.iter().unwrap()), expected);
        batch.clear();
        assert!(batch.is_empty() && batch.size_bytes() == 0);
        let before = db.snapshot().unwrap().sequence();
        db.write(batch).unwrap();
        assert_eq!(db.snapshot().unwrap().sequence(), before, "an empty batch is nothing");
    });
}

#[test]
fn delete_range_removes_what_it_covers_and_nothing_else() {
    on_each_setup(|setup| {
        for stage in Stage::ALL {
            let db = setup.open();
            let letters = |range: std::ops::RangeInclusive<char>| -> String {
                range.map(String::from).collect::<Vec<_>>().join(" ")
            };
            for letter in 'a'..='z' {
                db.put(String::from(letter), "x").unwrap();
            }
            let db = stage.reach(setup, db);
            db.delete_range("c", "f").unwrap();
            db.delete_range("x", "x").unwrap();
            db.delete_range("w", "v").unwrap();
            let expected = format!("a b {}", letters('f'..='z'));
            assert_eq!(keys(db.iter().unwrap()), expected);
            let db = stage.reach(setup, db);
            assert_eq!(keys(db.iter().unwrap()), expected);
            assert_eq!(db.get("d").unwrap(), None);
            db.put("d", "new").unwrap();
            db.delete_range("", "b").unwrap();
            db.delete_range("g", "zz").unwrap();
            let db = stage.reach(setup, db);
            assert_eq!(keys(db.iter().unwrap()), "b d f");
            db.clear().unwrap();
            let db = stage.reach(setup, db);
            assert_eq!(keys(db.iter().unwrap()), "");
            db.close().unwrap();
        }
    });
}

#[test]
fn keys_and_values_of_every_length_come_back() {
    on_each_setup(|setup| {
        let db = setup.open();
        let key = |length: usize| vec![b'k'; length];
        let value = |length: usize| -> Vec<u8> { (0..length).map(|at| (at % 251) as u8).collect() };
        let key_lengths = [1, 2, 7, 8, 9, 123, 124, 125, 4096, 65_535, 65_536];
        let value_lengths = [0, 1, 4095, 4096, 4097, 65_536, 300_000, 3_000_000];
        for length in key_lengths {
            db.put(key(length), value(length)).unwrap();
        }
        for length in value_lengths {
            db.put(format!("value {length}"), value(length)).unwrap();
        }
        for stage in Stage::ALL {
            let db = stage.reach(setup, db.clone());
            for length in key_lengths {
                assert!(db.get(key(length)).unwrap() == Some(value(length)), "{stage:?} {length}");
            }
            for length in value_lengths {
                let found = db.get_pinned(format!("value {length}")).unwrap().unwrap();
                assert!(*found == *value(length), "{stage:?} {length}");
                assert_eq!(found.into_bytes().len(), length);
            }
            assert_eq!(db.iter().unwrap().count(), key_lengths.len() + value_lengths.len());
            assert_eq!(db.iter().unwrap().rev().count(), key_lengths.len() + value_lengths.len());
            if stage == Stage::Reopened {
                db.close().unwrap();
            }
        }
    });
}

#[test]
fn many_writes_pass_through_flushes_and_compactions_and_space_is_given_back() {
    on_each_setup(|setup| {
        let db = setup.open_with(setup.options().durability(Durability::Buffered));
        for round in 0..4 {
            for number in 0..2_000_u32 {
                // An odd factor makes the order of keys look random without repeating one.
                let key = format!("{:08x}", number.wrapping_mul(2_654_435_761));
                db.put(key, format!("value {number} of round {round} {:0100}", 0)).unwrap();
            }
        }
        db.wait_for_compactions().unwrap();
        let stats = db.stats().unwrap();
        assert!(stats.flushes > 2, "{stats}");
        assert!(stats.compactions + stats.trivial_moves > 0, "{stats}");
        assert!(stats.user_bytes_written > 4 * 2_000 * 120, "{stats}");
        assert!(stats.write_amplification() > 0.0 && stats.sequence >= 8_000, "{stats}");
        assert_eq!((stats.failure.clone(), stats.snapshots), (None, 0));
        assert_eq!(stats.memory_bound_bytes, setup.options().memory_bound_bytes());
        assert!(stats.to_string().contains("memory bound"), "{stats}");
        let all = collect(db.iter().unwrap());
        assert_eq!(all.len(), 2_000);
        assert!(all.values().all(|value| value.windows(7).any(|part| part == b"round 3")));
        let live: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
        db.compact_range::<&str>(..).unwrap();
        let bytes = db.stats().unwrap().table_bytes();
        assert!(bytes < live as u64 * 13 / 10, "{bytes} bytes of tables for {live} bytes of data");
        db.delete_range("", "g").unwrap();
        db.compact().unwrap();
        let stats = db.stats().unwrap();
        assert_eq!(stats.table_bytes(), 0, "{stats}");
        if setup.is_persistent() {
            assert_eq!(tables_on_disk(setup), 0);
        }
        db.close().unwrap();
    });
}

/// Table files are removed by a background thread, soon after nobody needs them any more.
fn tables_on_disk(setup: &Setup) -> usize {
    let count = || {
        std::fs::read_dir(setup.path())
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().path().extension().is_some_and(|text| text == "sst")
            })
            .count()
    };
    for _ in 0..300 {
        if count() == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    count()
}

#[test]
fn writers_on_many_threads_lose_nothing() {
    on_each_setup(|setup| {
        let db = setup.open();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let db = db.clone();
                scope.spawn(move || {
                    for number in 0..150 {
                        let durability = DURABILITIES[(thread + number) % 2];
                        let write = WriteOptions::new().durability(durability);
                        let key = format!("{thread} {number:04}");
                        db.put_with(&key, &key, &write).unwrap();
                        // What a thread has written, it can read.
                        assert_eq!(db.get(&key).unwrap().as_deref(), Some(key.as_bytes()));
                    }
                });
            }
        });
        let db = Stage::Reopened.reach(setup, db);
        let all = collect(db.iter().unwrap());
        assert_eq!(all.len(), 8 * 150);
        assert!(all.iter().all(|(key, value)| key == value));
        db.close().unwrap();
    });
}

#[test]
fn the_default_options_and_the_chosen_backend_are_what_stats_says() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("db");
    let db = Database::open(&path).unwrap();
    assert!(!db.stats().unwrap().log.is_empty());
    drop(db);
    for (backend, word) in crate::support::backends().into_iter().map(|(_, backend)| {
        (backend, if backend == IoBackend::Uring { "io_uring" } else { "plain system calls" })
    }) {
        let db = Database::open_with(&path, Options::new().io_backend(backend)).unwrap();
        let io = db.stats().unwrap().io;
        assert!(io.contains(word), "{io}");
        assert!(format!("{db:?}").contains("Database"));
    }
    let db = Database::in_memory().unwrap();
    db.put("k", "v").unwrap();
    assert_eq!(db.stats().unwrap().log, "");
    db.close().unwrap();
}
