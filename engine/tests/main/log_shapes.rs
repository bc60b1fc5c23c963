//! Logs of particular shapes that a crash must not tear: each was, or could easily be, a way to lose or refuse good data.

use std::sync::Arc;

use rustlite_engine::{Durability, ErrorKind, Options};
use rustlite_io::{CrashPlan, FaultRule, SimFileSystem};

use crate::support::{budget, describe, machine, open, small_options, with};

fn one_memtable() -> Options {
    small_options().memtable_bytes(16 << 20).log_bytes_max(64 << 20)
}

/// Crashes, reopens, and gives the keys found.
fn keys_after(sim: &Arc<SimFileSystem>, plan: CrashPlan) -> Vec<String> {
    let after = sim.crash(&plan);
    let found = describe(&after);
    let db = open(&after, one_memtable()).unwrap_or_else(|error| panic!("{error}{found}"));
    let keys = db.iter().unwrap().map(|item| String::from_utf8(item.unwrap().0).unwrap());
    keys.collect()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("{number:04}")).collect()
}

#[test]
fn batches_larger_than_a_prepared_segment_keep_their_place_in_the_log() {
    for plan in [CrashPlan::DropUnsynced, CrashPlan::ProcessKill] {
        let sim = machine(1);
        let db = open(&sim, one_memtable()).unwrap();
        for number in 0..120 {
            // Every tenth is larger than a whole segment; small ones in between fill the rest of segments.
            let len = if number % 10 == 5 { 300 << 10 } else { 20_000 };
            db.put(format!("{number:04}"), vec![number as u8; len]).unwrap();
        }
        assert_eq!(keys_after(&sim, plan), numbered(0..120), "{plan:?}");
        drop(db);
    }
}

#[test]
fn unsynced_writes_in_several_segments_leave_a_prefix() {
    for seed in 0..budget(60) as u64 {
        let sim = machine(seed);
        let db = open(&sim, one_memtable().durability(Durability::Buffered)).unwrap();
        let flushed = 10 + seed as usize % 20;
        for number in 0..100 {
            if number == flushed {
                // Recovery begins in the middle of a segment.
                db.flush().unwrap();
            }
            db.put(format!("{number:04}"), vec![number as u8; 9_000]).unwrap();
        }
        let found = keys_after(&sim, CrashPlan::Random(seed));
        assert!(found.len() >= flushed, "seed {seed}: {} of {flushed} flushed", found.len());
        assert_eq!(found, numbered(0..found.len()), "seed {seed}");
        drop(db);
    }
}

#[test]
fn a_log_that_was_read_from_a_cache_after_a_failed_sync_is_made_durable() {
    let sim = machine(3);
    let db = open(&sim, one_memtable()).unwrap();
    for number in 0..10 {
        db.put_with(format!("{number:04}"), "v", &with(Durability::Buffered)).unwrap();
    }
    sim.add_fault(FaultRule::parse("sync wal-*").unwrap());
    db.sync().unwrap_err();
    drop(db);
    // The process is started again; the cache still shows what the sync failed to write.
    let db = open(&sim, one_memtable()).unwrap();
    assert_eq!(db.iter().unwrap().count(), 10);
    db.put("0010", "and one that is acknowledged as durable").unwrap();
    assert_eq!(keys_after(&sim, CrashPlan::DropUnsynced), numbered(0..11));
    drop(db);
}

#[test]
fn a_directory_left_by_a_killed_attempt_to_create_survives_a_power_cut() {
    // The attempt dies between making the directory and making it durable.
    let sim = machine(4);
    sim.cut_power_at(1);
    open(&sim, one_memtable()).unwrap_err();
    let sim = sim.crash(&CrashPlan::ProcessKill);
    let db = open(&sim, one_memtable()).unwrap();
    db.put("0000", "durable").unwrap();
    assert_eq!(keys_after(&sim, CrashPlan::DropUnsynced), numbered(0..1));
    drop(db);
}

#[test]
fn dropped_entries_do_not_come_back_after_the_next_crash() {
    for seed in 0..budget(40) as u64 {
        let sim = machine(seed);
        let options = one_memtable().durability(Durability::Buffered);
        let db = open(&sim, options.clone()).unwrap();
        for number in 0..60 {
            db.put(format!("old-{number:04}"), vec![1; 9_000]).unwrap();
        }
        let sim = sim.crash(&CrashPlan::Random(seed));
        drop(db);
        let db = open(&sim, options.clone()).unwrap();
        let survived = db.iter().unwrap().count();
        db.put_with("new", "durable", &with(Durability::Sync)).unwrap();
        let sim = sim.crash(&CrashPlan::Random(seed + 1));
        drop(db);
        let db = open(&sim, options).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(db.iter().unwrap().count(), survived + 1, "seed {seed}");
        assert!(db.contains_key("new").unwrap());
    }
}

#[test]
fn a_log_entry_of_an_unknown_keyspace_is_refused_and_no_table_is_thrown_away() {
    let sim = machine(6);
    let db = open(&sim, one_memtable()).unwrap();
    let before = sim.read_file("/db/CURRENT").unwrap();
    let manifest = crate::support::Files::of(&sim).names("MANIFEST-", "").remove(0);
    let cut = sim.read_file(crate::support::path(&manifest)).unwrap().len() as u64;
    let later = db.keyspace("later").unwrap();
    later.put("0000", "v").unwrap();
    db.flush().unwrap();
    later.put("0001", "v").unwrap();
    let after = sim.crash(&CrashPlan::KeepAll);
    drop((later, db));
    let tables = crate::support::Files::of(&after).names("", ".sst");
    assert!(!tables.is_empty() && after.read_file("/db/CURRENT").unwrap() == before);
    after.truncate_file(crate::support::path(&manifest), cut).unwrap();
    let error = open(&after, one_memtable()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert_eq!(crate::support::Files::of(&after).names("", ".sst"), tables);
}
