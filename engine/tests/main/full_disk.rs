//! A disk that is full at any one operation of a change: the change says so and has not happened, now and after a crash, nothing of it
//! stays on the disk, writes go on, and the same change works as soon as there is space. If the disk fails otherwise, nobody knows whether
//! the change has happened, and writes are refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustlite_engine::{Database, ErrorKind, IndexSource, IndexType, KeyspaceOptions, Result};
use rustlite_io::{FaultRule, SimFileSystem};

use crate::support::{
    Deadline, Random, Table, dump_all, machine, no_file_is_left, open, random_plan, seed,
    small_options,
};

/// A change of the database, by one call.
type Change = fn(&Database) -> Result<()>;

/// Every change that is recorded in the manifest.
const CHANGES: [(&str, Change); 9] = [
    ("ingest", |db| db.keyspace("large")?.ingest(items(b'i')).map(drop)),
    ("flush", Database::flush),
    ("compaction", |db| db.keyspace("large")?.compact()),
    ("create a keyspace", |db| db.keyspace("new").map(drop)),
    ("drop a keyspace", |db| db.drop_keyspace("rows")),
    ("create an index", |db| {
        let rows = db.keyspace("rows")?;
        db.create_index("new", &rows, IndexType::Hash, IndexSource::value_bytes(0..1)).map(drop)
    }),
    ("drop an index", |db| db.drop_index("old")),
    ("name a snapshot", |db| db.create_named_snapshot("new").map(drop)),
    ("forget a snapshot", |db| db.drop_named_snapshot("old")),
];

/// What a full disk can refuse, but for the log: a frame that fails there refuses later writes.
const OPERATIONS: [&str; 10] = [
    "write MANIFEST-*",
    "short MANIFEST-*",
    "sync MANIFEST-*",
    "create *.sst",
    "short *.sst",
    "sync *.sst",
    "create *.val",
    "short *.val",
    "sync *.val",
    "syncdir",
];

fn items(fill: u8) -> Table {
    (0..60_u32).map(|number| (format!("{number:04}").into_bytes(), vec![fill; 300])).collect()
}

/// A database at rest, with something for every change to change.
fn prepared(sim: &Arc<SimFileSystem>) -> Database {
    let db = open(sim, small_options()).unwrap();
    let separated = KeyspaceOptions::new().value_separation_bytes(256);
    let large = db.create_keyspace("large", separated).unwrap();
    let rows = db.keyspace("rows").unwrap();
    db.create_index("old", &rows, IndexType::BTree, IndexSource::value_bytes(0..2)).unwrap();
    for (key, value) in items(b'a') {
        rows.put(key, value).unwrap();
    }
    large.ingest(items(b'b')).unwrap();
    db.create_named_snapshot("old").unwrap();
    // A table above the others, too small for a compaction to begin by itself.
    large.put("0007", [b'c'; 300]).unwrap();
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    // And something in memory.
    large.put("0008", [b'd'; 300]).unwrap();
    rows.put("0009", "e").unwrap();
    db
}

/// Everything that a change here could change: what keyspaces hold, and the names of indexes and snapshots.
fn content(db: &Database) -> (BTreeMap<String, Table>, Vec<String>, Vec<String>) {
    db.verify().unwrap();
    let snapshots = db.list_named_snapshots().unwrap().into_iter().map(|named| named.name);
    (dump_all(db).unwrap(), db.list_indexes().unwrap(), snapshots.collect())
}

/// Makes a change on a disk that is full at one operation. False if it succeeded all the same.
fn refuses((name, change): (&str, Change), rule: &str, random: &mut Random) -> bool {
    let sim = machine(random.next());
    let db = prepared(&sim);
    let before = content(&db);
    sim.add_fault(FaultRule::parse(rule).unwrap());
    let result = change(&db);
    sim.clear_faults();
    let Err(error) = result else { return false };
    assert_eq!(error.kind(), ErrorKind::DiskFull, "{name}, {rule}: {error}");
    assert_eq!(content(&db), before, "{name}, {rule}");
    no_file_is_left(&db, &sim, &format!("{name}, {rule}"));
    for keyspace in db.list_keyspaces().unwrap() {
        let keyspace = db.existing_keyspace(&keyspace).unwrap().unwrap();
        keyspace.put("0010", format!("written after {error}")).unwrap();
    }
    let go_on = random.percent(50);
    if go_on {
        change(&db).unwrap_or_else(|error| panic!("{name} after {rule}: {error}"));
        no_file_is_left(&db, &sim, &format!("{name} after {rule}"));
    }
    let after = content(&db);
    let plan = random_plan(random);
    let survivor = sim.crash(&plan);
    drop(db);
    let story = format!("{name}, {rule}, {go_on}, {plan:?}");
    let db = open(&survivor, small_options()).unwrap_or_else(|error| panic!("{story}: {error}"));
    assert_eq!(content(&db), after, "{story}");
    true
}

/// Refuses one operation after the other until the change needs no more of them; gives how often that made it fail.
fn sweep(change: (&str, Change), operation: &str, random: &mut Random) -> u64 {
    let (mut nth, mut refused, mut missed) = (0, 0, 0);
    // The log may ask for a segment meanwhile, and be the one who is hit.
    while missed < 2 {
        nth += 1;
        let rule = format!("{operation} nth={nth} error=ENOSPC");
        match refuses(change, &rule, random) {
            true => (refused, missed) = (refused + 1, 0),
            false => missed += 1,
        }
    }
    refused
}

#[test]
fn a_change_that_a_full_disk_refuses_has_not_happened_and_can_be_made_when_there_is_space() {
    let mut random = Random::new(seed(304));
    let patience = Deadline::after(Duration::from_secs(120));
    for change in CHANGES {
        for operation in OPERATIONS {
            let mut refused = sweep(change, operation, &mut random);
            while refused == 0 && operation.contains("MANIFEST") {
                assert!(!patience.has_passed(), "{}: {operation} was never refused", change.0);
                refused = sweep(change, operation, &mut random);
            }
            println!("{}: refused at {refused} of `{operation}`", change.0);
        }
    }
}

#[test]
fn a_change_that_may_have_happened_refuses_all_writes_until_reopening() {
    let mut random = Random::new(seed(305));
    for (name, change) in CHANGES {
        for rule in ["short MANIFEST-*", "sync MANIFEST-*"] {
            let sim = machine(random.next());
            let db = prepared(&sim);
            let before = content(&db).0;
            sim.add_fault(FaultRule::parse(rule).unwrap());
            let error = change(&db).unwrap_err();
            let kind = error.kind();
            let told = matches!(kind, ErrorKind::Io | ErrorKind::Poisoned);
            assert!(told, "{name}, {rule}: {error}");
            sim.clear_faults();
            for keyspace in db.list_keyspaces().unwrap() {
                let keyspace = db.existing_keyspace(&keyspace).unwrap().unwrap();
                let refused = keyspace.put("0010", "too late").unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Poisoned, "{name}, {rule}: {refused}");
            }
            assert_eq!(content(&db).0, before, "{name}, {rule}");
            let plan = random_plan(&mut random);
            let survivor = sim.crash(&plan);
            drop(db);
            let db = open(&survivor, small_options())
                .unwrap_or_else(|error| panic!("{name}, {rule}, {plan:?}: {error}"));
            // All of it, or nothing.
            let found = content(&db).0;
            let happened = match name {
                "ingest" => found["large"].get(&b"0000"[..]) == items(b'i').get(&b"0000"[..]),
                "create a keyspace" => found.contains_key("new"),
                "drop a keyspace" => !found.contains_key("rows"),
                _ => false,
            };
            if !happened {
                assert_eq!(found, before, "{name}, {rule}, {plan:?}");
            } else if name == "ingest" {
                assert_eq!(found["large"], items(b'i'), "{rule}, {plan:?}");
            }
        }
    }
}
