//! What left the memory is asked for together and ahead, not waited for one page after the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustlite_engine::{Database, Durability, Options};
use rustlite_io::SimFileSystem;

use crate::support::{machine, open};

const RECORDS: usize = 6_000;

fn key(number: usize) -> String {
    format!("key-{number:06}")
}

/// A database in one run of tables, all of it read once, whose pages then left the memory and whose readers know it.
fn evicted(value_bytes: usize) -> (Arc<SimFileSystem>, Database) {
    let sim = machine(1);
    let db = open(&sim, Options::new().durability(Durability::Buffered)).unwrap();
    for number in 0..RECORDS {
        db.put(key(number), vec![number as u8; value_bytes]).unwrap();
    }
    db.compact().unwrap();
    assert_eq!(db.iter().unwrap().count(), RECORDS);
    sim.evict_maps();
    for number in (0..RECORDS).step_by(16) {
        let keys: Vec<String> = (number..number + 16).map(key).collect();
        assert!(db.multi_get(&keys).unwrap().iter().all(Option::is_some));
    }
    assert!(!sim.page_requests().is_empty(), "none of {RECORDS} reads noticed");
    sim.evict_maps();
    (sim, db)
}

/// Distinct ranges that were asked for.
fn requested(sim: &SimFileSystem) -> BTreeSet<(usize, usize)> {
    sim.page_requests().iter().map(|request| (request.range.start, request.range.end)).collect()
}

#[test]
fn the_blocks_of_many_keys_are_requested_each() {
    let (sim, db) = evicted(100);
    // So far apart that each is in a block of its own.
    let keys: Vec<String> = (0..RECORDS).step_by(200).map(key).collect();
    let values = db.multi_get(&keys).unwrap();
    for (number, value) in (0..RECORDS).step_by(200).zip(values) {
        assert_eq!(value, Some(vec![number as u8; 100]));
    }
    assert_eq!(requested(&sim).len(), keys.len());
}

#[test]
fn all_pages_of_a_block_are_requested_at_once() {
    let (sim, db) = evicted(1500);
    // Two or three of these records make a block; the pattern repeats every 8.
    for number in (0..RECORDS).step_by(201) {
        assert_eq!(db.get(key(number)).unwrap(), Some(vec![number as u8; 1500]));
    }
    let across = requested(&sim);
    assert!(across.len() > RECORDS / 201 / 4, "{across:?}");
    assert!(across.iter().all(|(start, end)| start / 4096 < (end - 1) / 4096), "{across:?}");
}

#[test]
fn a_scan_reads_ahead_from_its_first_block_on_and_more_each_time() {
    let (sim, db) = evicted(100);
    let mut cursor = db.cursor().unwrap();
    cursor.seek(key(1_000)).unwrap();
    for number in 1_000..1_100 {
        assert_eq!(cursor.key(), key(number).as_bytes());
        cursor.next().unwrap();
    }
    let short = requested(&sim);
    assert_eq!(short.len(), 1, "{short:?}");
    let (start, end) = short.first().copied().unwrap();
    assert!((16 << 10..=32 << 10).contains(&(end - start)), "{short:?}");

    while cursor.valid() {
        cursor.next().unwrap();
    }
    let long: Vec<(usize, usize)> = requested(&sim).into_iter().collect();
    assert!(long.windows(2).all(|pair| pair[0].1 == pair[1].0), "no gaps, nothing twice: {long:?}");
    assert!(long.iter().any(|(start, end)| end - start == 256 << 10), "{long:?}");

    sim.evict_maps();
    cursor.seek_to_last().unwrap();
    let mut seen = 0;
    while cursor.valid() {
        seen += 1;
        cursor.prev().unwrap();
    }
    assert_eq!(seen, RECORDS);
    let backward: Vec<(usize, usize)> = requested(&sim).into_iter().collect();
    assert_eq!(backward.first().map(|range| range.0), Some(0), "{backward:?}");
    assert!(backward.windows(2).all(|pair| pair[0].1 == pair[1].0), "{backward:?}");
}
