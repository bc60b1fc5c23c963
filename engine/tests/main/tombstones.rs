//! Deleted ranges do not stay in the way of scans.

use rustlite_engine::{Database, Durability, Options};

use crate::support::{machine, open};

fn key(number: usize) -> String {
    format!("key-{number:06}")
}

fn write(db: &Database, numbers: std::ops::Range<usize>, value: Option<&str>) {
    for number in numbers {
        match value {
            Some(value) => db.put(key(number), value).unwrap(),
            None => db.delete(key(number)).unwrap(),
        }
    }
}

#[test]
fn a_deleted_range_is_compacted_though_no_level_is_full() {
    let sim = machine(1);
    let options = Options::new().durability(Durability::Buffered);
    let db = open(&sim, options).unwrap();
    write(&db, 0..10_000, Some("value"));
    db.compact().unwrap();
    let full = db.stats().unwrap().table_bytes();

    write(&db, 2_000..9_000, None);
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    let after = db.stats().unwrap();
    assert_eq!(after.levels[0].tables, 0, "{after}");
    assert!(after.table_bytes() < full / 2, "tombstones and what they hid are gone: {after}");
    assert_eq!(db.iter().unwrap().count(), 3_000);

    // Deletes here and there of a large part that stays are not worth it.
    for number in (0..2_000).step_by(10) {
        db.delete(key(number)).unwrap();
    }
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    assert_eq!(db.stats().unwrap().levels[0].tables, 1);
    assert_eq!(db.iter().unwrap().count(), 2_800);
}

#[test]
fn a_snapshot_keeps_what_was_deleted_and_compactions_come_to_rest() {
    let sim = machine(2);
    let options = Options::new().durability(Durability::Buffered);
    let db = open(&sim, options).unwrap();
    write(&db, 0..5_000, Some("value"));
    db.compact().unwrap();
    let snapshot = db.snapshot().unwrap();
    write(&db, 0..5_000, None);
    db.flush().unwrap();
    // Would never return if tombstones that must stay were picked again and again.
    db.wait_for_compactions().unwrap();
    assert_eq!(snapshot.iter().count(), 5_000);
    assert_eq!(db.iter().unwrap().count(), 0);
}
