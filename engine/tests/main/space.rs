//! A small database does not stay several times as large as its records.

use std::sync::Arc;
use std::time::Duration;

use rustlite_engine::{Database, Durability, Options};
use rustlite_io::SimFileSystem;

use crate::support::{Deadline, Files, machine, open, pause};

const RECORDS: usize = 1_000;

fn options() -> Options {
    Options::new().durability(Durability::Buffered)
}

/// Overwrites everything so many times, each time followed by a flush.
fn overwrite(db: &Database, times: usize) {
    for time in 0..times {
        for number in 0..RECORDS {
            db.put(format!("key-{number:06}"), format!("{time}").repeat(100)).unwrap();
        }
        db.flush().unwrap();
    }
}

/// A database whose records lie below level 0, and the size of its tables.
fn loaded(seed: u64) -> (Arc<SimFileSystem>, Database, u64) {
    let sim = machine(seed);
    let db = open(&sim, options()).unwrap();
    overwrite(&db, 1);
    db.compact().unwrap();
    let bytes = db.stats().unwrap().table_bytes();
    (sim, db, bytes)
}

#[test]
fn overwriting_is_not_compacted_while_it_goes_on_and_is_when_it_pauses() {
    let (sim, db, once) = loaded(1);
    overwrite(&db, 4);
    let before = db.stats().unwrap();
    assert_eq!(before.levels[0].runs, 4, "flushes come one after another: {before}");
    assert!(before.table_bytes() > 4 * once);
    sim.sim_clock().unwrap().advance(Duration::from_secs(10));
    // A compaction thread looks for work every second.
    let deadline = Deadline::after(Duration::from_secs(60));
    while db.stats().unwrap().levels[0].tables > 0 {
        assert!(!deadline.has_passed(), "{}", db.stats().unwrap());
        pause(Duration::from_millis(20));
    }
    assert!(db.stats().unwrap().table_bytes() < once * 11 / 10, "{}", db.stats().unwrap());
    assert_eq!(db.get("key-000007").unwrap().unwrap(), "3".repeat(100).as_bytes());
}

#[test]
fn waiting_for_compactions_says_that_writers_pause() {
    let (_sim, db, once) = loaded(2);
    overwrite(&db, 4);
    db.wait_for_compactions().unwrap();
    assert!(db.stats().unwrap().table_bytes() < once * 11 / 10, "{}", db.stats().unwrap());
    // That was for once.
    overwrite(&db, 2);
    assert_eq!(db.stats().unwrap().levels[0].runs, 2, "{}", db.stats().unwrap());
}

#[test]
fn what_old_snapshots_keep_is_merged_once() {
    let (_sim, db, once) = loaded(3);
    let snapshots: Vec<_> = (0..3)
        .map(|_| {
            let snapshot = db.snapshot().unwrap();
            overwrite(&db, 1);
            snapshot
        })
        .collect();
    // Would never return if the same were picked again and again.
    db.wait_for_compactions().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!(stats.levels[0].tables, 0, "{stats}");
    assert!(stats.table_bytes() > 3 * once, "{stats}");
    assert!(snapshots.iter().all(|snapshot| snapshot.iter().count() == RECORDS));
}

#[test]
fn closing_leaves_no_file_behind_that_a_compaction_has_replaced() {
    let (sim, db, _) = loaded(4);
    overwrite(&db, 4);
    db.wait_for_compactions().unwrap();
    let tables = db.stats().unwrap().levels.iter().map(|level| level.tables).sum::<usize>();
    // A reader of whatever database, who is about to finish.
    let (pinned, is_pinned) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let _guard = crossbeam_epoch::pin();
        pinned.send(()).unwrap();
        std::thread::yield_now();
    });
    is_pinned.recv().unwrap();
    db.close().unwrap();
    reader.join().unwrap();
    assert_eq!(Files::of(&sim).names("", ".sst").len(), tables);
}
