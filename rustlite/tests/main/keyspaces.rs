//! Keyspaces: created, listed, found again, kept apart, dropped.

use rustlite::{Compression, ErrorKind, KeyspaceOptions, WriteBatch};

use crate::support::{Stage, assert_fails, keys, on_each_setup};

#[test]
fn keyspaces_are_separate_and_share_batches() {
    on_each_setup(|setup| {
        for stage in Stage::ALL {
            let db = setup.open();
            db.clear().unwrap();
            for name in ["red", "green"] {
                if db.existing_keyspace(name).unwrap().is_some() {
                    db.drop_keyspace(name).unwrap();
                }
            }
            let (red, green) = (db.keyspace("red").unwrap(), db.keyspace("green").unwrap());
            assert_eq!((db.name(), red.name(), green.name()), ("default", "red", "green"));
            red.put("k", "red").unwrap();
            green.put("k", "green").unwrap();
            green.put("more", "green").unwrap();
            let mut batch = WriteBatch::new();
            batch
                .put("k", "default")
                .put_in(&red, "batch", "1")
                .put_in(&green, "batch", "2")
                .delete_in(&green, "more")
                .put_in(&red, "range", "x")
                .delete_range_in(&red, "r", "s");
            db.write(batch).unwrap();
            let db = stage.reach(setup, db);
            let (red, green) = (db.keyspace("red").unwrap(), db.keyspace("green").unwrap());
            assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"default"[..]), "{stage:?}");
            assert_eq!(red.get("k").unwrap().as_deref(), Some(&b"red"[..]));
            assert_eq!(green.get("k").unwrap().as_deref(), Some(&b"green"[..]));
            assert_eq!(keys(db.iter().unwrap()), "k");
            assert_eq!(keys(red.iter().unwrap()), "batch k");
            assert_eq!(keys(green.iter().unwrap().rev()), "k batch");
            let mut batch = WriteBatch::new();
            batch.clear_keyspace(&red).put_in(&red, "after", "x").clear_keyspace(&db);
            db.write(batch).unwrap();
            let db = stage.reach(setup, db);
            assert_eq!(keys(db.keyspace("red").unwrap().iter().unwrap()), "after");
            assert_eq!(keys(db.iter().unwrap()), "");
            assert_eq!(keys(db.keyspace("green").unwrap().iter().unwrap()), "batch k");
            db.close().unwrap();
        }
    });
}

#[test]
fn the_list_of_keyspaces_and_their_options_survive_reopening() {
    on_each_setup(|setup| {
        let db = setup.open();
        assert_eq!(db.list_keyspaces().unwrap(), ["default"]);
        let squeezed = KeyspaceOptions::new()
            .compression(Compression::Lz4)
            .filter_bits_per_key(0)
            .block_bytes(512);
        let logs = db.create_keyspace("logs", squeezed.clone()).unwrap();
        db.keyspace("users").unwrap();
        assert_eq!(db.create_keyspace("logs", squeezed).unwrap().name(), "logs");
        assert_eq!(db.list_keyspaces().unwrap(), ["default", "logs", "users"]);
        for number in 0..1_000 {
            let write = rustlite::WriteOptions::new().durability(rustlite::Durability::Buffered);
            logs.put_with(format!("{number:04}"), "the same line again ".repeat(5), &write)
                .unwrap();
        }
        logs.compact().unwrap();
        let bytes = db.stats().unwrap().table_bytes();
        assert!(bytes < 50_000, "{bytes} bytes for 100,000 that compress well");
        let db = Stage::Reopened.reach(setup, db);
        assert_eq!(db.list_keyspaces().unwrap(), ["default", "logs", "users"]);
        let other = KeyspaceOptions::new().compression(Compression::None);
        assert_fails(db.create_keyspace("logs", other), ErrorKind::KeyspaceExists, &["logs"]);
        assert!(db.existing_keyspace("nobody").unwrap().is_none());
        let logs = db.existing_keyspace("logs").unwrap().unwrap();
        assert_eq!(logs.iter().unwrap().count(), 1_000);
        assert_eq!(logs.get("0500").unwrap().unwrap().len(), 100);
        let stats = db.stats().unwrap();
        assert!(stats.block_cache_hits + stats.block_cache_misses > 0, "{stats}");
    });
}

#[test]
fn a_dropped_keyspace_is_gone_for_every_handle_and_after_reopening() {
    on_each_setup(|setup| {
        let db = setup.open();
        let doomed = db.keyspace("doomed").unwrap();
        let clone = doomed.clone();
        let same = db.keyspace("doomed").unwrap();
        doomed.put("k", "v").unwrap();
        db.flush().unwrap();
        doomed.put("only in memory", "v").unwrap();
        let mut early = WriteBatch::new();
        early.put("not", "written").put_in(&doomed, "not", "written");
        db.drop_keyspace("doomed").unwrap();
        let gone = ErrorKind::KeyspaceNotFound;
        for handle in [&doomed, &clone, &same] {
            assert_fails(handle.get("k"), gone, &["doomed", "dropped"]);
            assert_fails(handle.put("k", "v"), gone, &["doomed"]);
            assert_fails(handle.delete("k"), gone, &["doomed"]);
            assert_fails(handle.clear(), gone, &["doomed"]);
            assert_fails(handle.iter(), gone, &["doomed"]);
            assert_fails(handle.compact(), gone, &["doomed"]);
        }
        let mut late = WriteBatch::new();
        late.put("not", "written").put_in(&doomed, "k", "v");
        assert_fails(db.write(late), gone, &["doomed"]);
        assert_fails(db.write(early), gone, &["dropped"]);
        assert_eq!(db.get("not").unwrap(), None, "a refused batch leaves nothing behind");
        assert_fails(db.drop_keyspace("doomed"), gone, &["doomed"]);
        assert_eq!(db.list_keyspaces().unwrap(), ["default"]);
        // The same name again is another, empty keyspace.
        let reborn = db.keyspace("doomed").unwrap();
        assert_eq!(keys(reborn.iter().unwrap()), "");
        reborn.put("new", "v").unwrap();
        assert_fails(doomed.get("new"), gone, &["doomed"]);
        let db = Stage::Reopened.reach(setup, db);
        assert_eq!(keys(db.keyspace("doomed").unwrap().iter().unwrap()), "new");
    });
}

#[test]
fn names_and_options_of_keyspaces_are_checked() {
    on_each_setup(|setup| {
        let db = setup.open();
        let invalid = ErrorKind::InvalidArgument;
        let long = "x".repeat(257);
        for name in ["", "with\0nul", &long] {
            assert_fails(db.keyspace(name), invalid, &["keyspace name", "256"]);
        }
        db.keyspace(&"x".repeat(256)).unwrap();
        db.keyspace("Größe 名前").unwrap();
        assert_fails(db.drop_keyspace("default"), invalid, &["default"]);
        let options = KeyspaceOptions::new();
        let bad = [
            (options.clone().block_bytes(511), "block_bytes is 511"),
            (options.clone().block_bytes(32_769), "block_bytes is 32769"),
            (options.clone().filter_bits_per_key(33), "filter_bits_per_key is 33"),
        ];
        for (options, words) in bad {
            assert_fails(db.create_keyspace("k", options), invalid, &[words, "between"]);
        }
        assert!(db.existing_keyspace("k").unwrap().is_none());
        assert_eq!(db.list_keyspaces().unwrap().len(), 3);
    });
}

#[test]
fn a_batch_for_one_database_is_refused_by_another() {
    on_each_setup(|setup| {
        let db = setup.open();
        let elsewhere = rustlite::Database::in_memory().unwrap();
        let (ours, theirs) = (db.keyspace("k").unwrap(), elsewhere.keyspace("k").unwrap());
        let invalid = ErrorKind::InvalidArgument;
        let mut foreign = WriteBatch::new();
        foreign.put_in(&theirs, "key", "value");
        assert_fails(db.write(foreign.clone()), invalid, &["another open database"]);
        elsewhere.write(foreign).unwrap();
        let mut mixed = WriteBatch::new();
        mixed.put_in(&ours, "key", "value").put_in(&theirs, "key", "value");
        assert_fails(db.write(mixed.clone()), invalid, &["two different open databases"]);
        assert_fails(elsewhere.write(mixed), invalid, &["two different open databases"]);
        let mut deleting = WriteBatch::new();
        deleting.clear_keyspace(&theirs);
        assert_fails(db.write(deleting), invalid, &["another open database"]);
        assert_eq!(ours.get("key").unwrap(), None);
        // What names no keyspace is at home everywhere.
        let mut anywhere = WriteBatch::new();
        anywhere.put("key", "value");
        db.write(anywhere.clone()).unwrap();
        elsewhere.write(anywhere).unwrap();
    });
}
