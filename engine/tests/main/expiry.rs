//! Values that expire: gone for every way of reading when their time comes, and never back.

use std::sync::Arc;
use std::time::Duration;

use rustlite_engine::{Database, KeyspaceOptions, Result, WriteBatch};
use rustlite_io::{Clock as _, CrashPlan, SimClock, SimFileSystem};

use crate::support::{Table, dump, machine, open, small_options};

const HOUR: Duration = Duration::from_secs(3600);

fn clock(sim: &SimFileSystem) -> Arc<SimClock> {
    sim.sim_clock().unwrap()
}

/// Every way of reading the key of the default keyspace; panics if they differ.
fn read(db: &Database, key: &str) -> Option<Vec<u8>> {
    let found = db.get(key).unwrap();
    let pinned = db.get_pinned(key).unwrap();
    assert_eq!(pinned.as_deref(), found.as_deref(), "get_pinned of {key}");
    let bytes = pinned.map(|pinned| pinned.into_bytes());
    assert_eq!(bytes.as_deref(), found.as_deref(), "into_bytes of {key}");
    assert_eq!(db.contains_key(key).unwrap(), found.is_some(), "contains {key}");
    assert_eq!(db.multi_get(&[key]).unwrap(), std::slice::from_ref(&found), "multi_get of {key}");
    assert_eq!(db.snapshot().unwrap().get(key).unwrap(), found, "get of {key} in a snapshot");
    let all = dump(db).unwrap();
    assert_eq!(all.get(key.as_bytes()), found.as_ref(), "scan of {key}");
    let back: Result<Table> = db.iter().unwrap().rev().collect();
    assert_eq!(back.unwrap(), all, "the two directions of a scan differ");
    let mut cursor = db.cursor().unwrap();
    cursor.seek(key).unwrap();
    let at = (cursor.valid() && cursor.key() == key.as_bytes()).then(|| cursor.value().to_vec());
    assert_eq!(at, found, "cursor at {key}");
    found
}

/// What happens to the records between writing and reading.
#[derive(Debug, Clone, Copy)]
enum Settle {
    InMemory,
    Flushed,
    Compacted,
    Reopened,
    AfterPowerLoss,
}

const ALL: [Settle; 5] = [
    Settle::InMemory,
    Settle::Flushed,
    Settle::Compacted,
    Settle::Reopened,
    Settle::AfterPowerLoss,
];

fn settle(how: Settle, sim: Arc<SimFileSystem>, db: Database) -> (Arc<SimFileSystem>, Database) {
    match how {
        Settle::InMemory => (sim, db),
        Settle::Flushed => {
            db.flush().unwrap();
            (sim, db)
        }
        Settle::Compacted => {
            db.compact().unwrap();
            (sim, db)
        }
        Settle::Reopened => {
            db.close().unwrap();
            let db = open(&sim, small_options()).unwrap();
            (sim, db)
        }
        Settle::AfterPowerLoss => {
            let after = sim.crash(&CrashPlan::DropUnsynced);
            drop(db);
            let db = open(&after, small_options()).unwrap();
            (after, db)
        }
    }
}

#[test]
fn a_value_is_there_until_its_time_and_gone_from_then_on_wherever_it_lies() {
    for how in ALL {
        let sim = machine(1);
        let db = open(&sim, small_options()).unwrap();
        db.put("a", "before").unwrap();
        db.put_expiring("b", "for an hour", HOUR).unwrap();
        db.put_expiring("c", "", 2 * HOUR).unwrap();
        db.put("d", "behind").unwrap();
        let (sim, db) = settle(how, sim, db);
        assert_eq!(read(&db, "b").as_deref(), Some(&b"for an hour"[..]), "{how:?}");
        assert_eq!(read(&db, "c").as_deref(), Some(&b""[..]), "{how:?}");
        clock(&sim).advance(HOUR);
        assert_eq!(read(&db, "b"), None, "{how:?}");
        assert!(read(&db, "c").is_some(), "{how:?}");
        let (sim, db) = settle(how, sim, db);
        assert_eq!(read(&db, "b"), None, "{how:?}");
        clock(&sim).advance(HOUR);
        assert_eq!((read(&db, "a").is_some(), read(&db, "c")), (true, None), "{how:?}");
        assert_eq!(dump(&db).unwrap().len(), 2, "{how:?}");
        db.verify().unwrap();
    }
}

#[test]
fn an_expired_value_hides_what_it_replaced_even_if_the_clock_is_set_back() {
    for how in ALL {
        let sim = machine(2);
        let db = open(&sim, small_options()).unwrap();
        db.put("k", "old").unwrap();
        db.compact().unwrap();
        db.put_expiring("k", "new", HOUR).unwrap();
        db.flush().unwrap();
        db.put_expiring("other", "x", 9 * HOUR).unwrap();
        let start = clock(&sim).wall();
        clock(&sim).advance(HOUR);
        assert_eq!(read(&db, "k"), None, "{how:?}");
        let (sim, db) = settle(how, sim, db);
        assert_eq!(read(&db, "k"), None, "{how:?}");
        // A compaction that finds it expired may begin at any moment, and must not end between the two looks of a read below.
        db.wait_for_compactions().unwrap();
        clock(&sim).set_wall(start);
        let found = read(&db, "k");
        assert_ne!(found.as_deref(), Some(&b"old"[..]), "{how:?}");
        if matches!(how, Settle::Compacted) {
            assert_eq!(found, None, "a compaction has removed it for good");
        }
        assert!(read(&db, "other").is_some(), "{how:?}");
    }
}

#[test]
fn snapshots_and_open_iterators_go_by_the_clock_too() {
    let sim = machine(3);
    let db = open(&sim, small_options()).unwrap();
    for key in ["a", "b", "c", "d"] {
        db.put_expiring(key, key, HOUR).unwrap();
    }
    db.put("e", "stays").unwrap();
    let snapshot = db.snapshot().unwrap();
    let mut items = db.iter().unwrap();
    assert_eq!(items.next().unwrap().unwrap().0, b"a");
    assert_eq!(snapshot.iter().count(), 5);
    clock(&sim).advance(HOUR);
    assert_eq!(items.next().unwrap().unwrap().0, b"e");
    assert_eq!((snapshot.get("b").unwrap(), snapshot.iter().count()), (None, 1));
    assert_eq!(snapshot.iter().rev().count(), 1);
    // Writing again is a new life, which the snapshot does not see.
    db.put_expiring("b", "again", HOUR).unwrap();
    assert_eq!(read(&db, "b").as_deref(), Some(&b"again"[..]));
    assert_eq!(snapshot.get("b").unwrap(), None);
}

#[test]
fn the_lifetime_of_a_keyspace_is_stored_and_can_be_overridden() {
    let sim = machine(4);
    let options = KeyspaceOptions::new().default_ttl(HOUR);
    let db = open(&sim, small_options()).unwrap();
    let cache = db.create_keyspace("cache", options.clone()).unwrap();
    let other = KeyspaceOptions::new().default_ttl(2 * HOUR);
    db.create_keyspace("cache", other).unwrap_err();
    drop(cache);
    db.close().unwrap();
    let db = open(&sim, small_options()).unwrap();
    let cache = db.create_keyspace("cache", options).unwrap();
    let mut batch = WriteBatch::new();
    batch.put_in(&cache, "plain", "1").put("plain", "2");
    batch.put_expiring_in(&cache, "long", "3", 3 * HOUR);
    batch.put_expiring_in(&cache, "for ever", "4", Duration::MAX);
    db.write_with(&batch, &rustlite_engine::WriteOptions::new()).unwrap();
    clock(&sim).advance(HOUR);
    assert_eq!(cache.get("plain").unwrap(), None);
    assert_eq!(db.get("plain").unwrap().as_deref(), Some(&b"2"[..]));
    assert!(cache.get("long").unwrap().is_some());
    // The same batch, written again, lives again.
    db.write(batch).unwrap();
    assert!(cache.get("plain").unwrap().is_some());
    clock(&sim).advance(1000 * HOUR);
    assert_eq!(dump(&cache).unwrap().len(), 1);
}

#[test]
fn space_of_what_has_expired_is_freed_without_a_write() {
    let sim = machine(5);
    let db = open(&sim, small_options()).unwrap();
    let write = |from: usize, ttl| {
        for number in from..from + 400 {
            let key = format!("key-{number:05}");
            let value = format!("{number}").repeat(60);
            db.put_expiring(key, value, ttl).unwrap();
        }
    };
    write(0, HOUR);
    write(1000, 100 * HOUR);
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    let full = db.stats().unwrap().table_bytes();
    clock(&sim).advance(HOUR);
    db.wait_for_compactions().unwrap();
    let half = db.stats().unwrap().table_bytes();
    assert!(half < full * 7 / 10, "{full} bytes became {half}");
    assert_eq!(dump(&db).unwrap().len(), 400);
    db.verify().unwrap();
    clock(&sim).advance(100 * HOUR);
    db.compact().unwrap();
    assert_eq!(db.stats().unwrap().table_bytes(), 0);
}
