//! Compaction filters: what they decide happens to what no snapshot sees, and to nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustlite_engine::{CompactionFilter, ErrorKind, FilterDecision, Options, Result};

use crate::support::{Table, dump, machine, open, small_options};

/// Removes values that begin with `old`, shortens those that begin with `long`, and counts.
struct Tidy(Arc<AtomicUsize>);

impl CompactionFilter for Tidy {
    fn filter(&self, key: &[u8], value: &[u8]) -> FilterDecision {
        assert!(key.starts_with(b"key-"), "the key as the user wrote it");
        self.0.fetch_add(1, Ordering::Relaxed);
        if value.starts_with(b"old") {
            FilterDecision::Remove
        } else if value.starts_with(b"long") {
            FilterDecision::Change(b"short".into())
        } else {
            FilterDecision::Keep
        }
    }
}

fn options(calls: &Arc<AtomicUsize>) -> Options {
    small_options().compaction_filter("tidy", Tidy(Arc::clone(calls)))
}

fn value(number: usize, from: usize) -> String {
    let kind = ["old", "long", "fine"][(number + from) % 3];
    format!("{kind} {number} {}", "x".repeat(number % 70))
}

/// What is left of keys that were written with `value`.
fn tidied(numbers: impl Iterator<Item = usize>, from: usize) -> Table {
    let record = |number| {
        let value = value(number, from);
        let left = match value.get(..3) {
            Some("old") => return None,
            Some("lon") => "short".to_owned(),
            _ => value,
        };
        Some((format!("key-{number:04}").into_bytes(), left.into_bytes()))
    };
    numbers.filter_map(record).collect()
}

fn fill(space: &rustlite_engine::Keyspace, count: usize, from: usize) {
    for number in 0..count {
        space.put(format!("key-{number:04}"), value(number, from)).unwrap();
    }
}

#[test]
fn a_requested_compaction_shows_everything_to_the_filter_of_its_keyspace() {
    let calls = Arc::default();
    let sim = machine(1);
    let db = open(&sim, options(&calls)).unwrap();
    let tidy = db.keyspace("tidy").unwrap();
    let other = db.keyspace("other").unwrap();
    fill(&tidy, 900, 0);
    fill(&other, 900, 0);
    tidy.compact().unwrap();
    other.compact().unwrap();
    assert_eq!(dump(&tidy).unwrap(), tidied(0..900, 0));
    assert_eq!(dump(&other).unwrap().len(), 900, "without a filter everything stays");
    // What has settled at the bottom is shown again.
    let before = calls.load(Ordering::Relaxed);
    tidy.compact().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed) - before, tidied(0..900, 0).len());
    db.verify().unwrap();
    drop((tidy, other));
    db.close().unwrap();
    let db = open(&sim, small_options()).unwrap();
    let tidy = db.existing_keyspace("tidy").unwrap().unwrap();
    assert_eq!(dump(&tidy).unwrap(), tidied(0..900, 0), "what was decided is durable");
}

#[test]
fn snapshots_and_iterators_keep_what_they_see() {
    let calls = Arc::default();
    let db = open(&machine(2), options(&calls)).unwrap();
    let tidy = db.keyspace("tidy").unwrap();
    fill(&tidy, 300, 0);
    let seen = dump(&tidy).unwrap();
    db.flush().unwrap();
    let snapshot = db.snapshot().unwrap();
    assert_eq!(dump(&tidy).unwrap(), seen, "a flush asks no filter");
    let items = tidy.iter().unwrap();
    tidy.compact().unwrap();
    assert_eq!(dump(&tidy).unwrap(), seen, "a snapshot sees all of it, so nobody loses any");
    // Newer versions are not seen by the snapshot.
    fill(&tidy, 200, 1);
    tidy.compact().unwrap();
    let mut now = tidied(0..200, 1);
    now.extend(seen.iter().skip(200).map(|(key, value)| (key.clone(), value.clone())));
    assert_eq!(dump(&tidy).unwrap(), now);
    let held: Table = snapshot.keyspace(&tidy).iter().collect::<Result<_>>().unwrap();
    assert_eq!(held, seen);
    let iterated: Table = items.collect::<Result<_>>().unwrap();
    assert_eq!(iterated, seen);
    drop(snapshot);
    tidy.compact().unwrap();
    now.retain(|key, _| key.as_slice() < &b"key-0200"[..]);
    now.extend(tidied(200..300, 0));
    assert_eq!(dump(&tidy).unwrap(), now);
}

#[test]
fn a_removed_value_does_not_uncover_an_older_one() {
    let calls = Arc::default();
    let db = open(&machine(3), options(&calls).l0_compaction_trigger(1)).unwrap();
    let tidy = db.keyspace("tidy").unwrap();
    tidy.put("key-a", "fine").unwrap();
    tidy.compact().unwrap();
    for round in 0..20 {
        tidy.put("key-a", format!("old {round}")).unwrap();
        tidy.put("key-b", "fine").unwrap();
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
        let found = tidy.get("key-a").unwrap();
        let expected = format!("old {round}").into_bytes();
        assert!(found.is_none() || found == Some(expected), "{found:?} in round {round}");
    }
    tidy.compact().unwrap();
    assert_eq!(tidy.get("key-a").unwrap(), None);
}

#[test]
fn wrong_registrations_are_refused() {
    let calls = Arc::default();
    let twice = options(&calls).compaction_filter("tidy", Tidy(Arc::clone(&calls)));
    let error = open(&machine(4), twice).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("tidy"), "{error}");
    let nameless = small_options().compaction_filter("", Tidy(calls));
    assert_eq!(open(&machine(4), nameless).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
