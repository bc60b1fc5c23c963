//! Compares the answers with a plain list of everything that was written, while memtables become tables and tables are merged.

use super::*;
use crate::database::Database;
use crate::keyspace::FullKey;
use crate::options::Options;
use crate::read::snapshot::SnapshotGuard;

const KEYS: u64 = 50;

fn random(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash_key(&state.to_le_bytes()) % bound
}

fn key(number: u64) -> String {
    format!("k{number:02}")
}

fn full(number: u64) -> Vec<u8> {
    FullKey::new(crate::key::KeyspaceId::DEFAULT, key(number).as_bytes()).unwrap().as_slice().into()
}

/// One write: its sequence number and the keys from the first to the second, exclusive.
type Change = (Sequence, u64, u64);

fn write(db: &Database, state: &mut u64) -> Change {
    let first = random(state, KEYS);
    let end = match random(state, 12) {
        0 => first + 1 + random(state, 8),
        _ => first + 1,
    };
    if end > first + 1 {
        db.delete_range(key(first), key(end)).unwrap();
    } else if random(state, 3) == 0 {
        db.delete(key(first)).unwrap();
    } else {
        db.put(key(first), vec![7; random(state, 400) as usize]).unwrap();
    }
    (db.handle().core.pipeline.visible(), first, end)
}

fn check(db: &Database, changes: &[Change], guard: &SnapshotGuard, state: &mut u64) {
    let (view, since) = (db.handle().core.views.load(), guard.sequence());
    let changed = |first: u64, end: u64| {
        let meets = |change: &&Change| change.1 < end && first < change.2;
        changes.iter().rev().take_while(|change| change.0 > since).any(|change| meets(&change))
    };
    for _ in 0..4 {
        let number = random(state, KEYS);
        let found = key_changed(&view, &full(number), since).unwrap();
        assert_eq!(found, changed(number, number + 1), "{number} since {since}");
        let end = number + 1 + random(state, 6);
        let found = range_changed(&view, &full(number), &full(end), since).unwrap();
        assert_eq!(found.is_some(), changed(number, end), "{number} to {end} since {since}");
        let within = |key: Vec<u8>| full(number) <= key && key < full(end);
        assert!(found.is_none_or(within), "the key found is one of the range");
    }
}

#[test]
fn every_change_since_a_snapshot_is_found_and_nothing_else() {
    let seed = std::env::var("RUSTLITE_TEST_SEED").map_or(5, |seed| seed.parse().unwrap());
    println!("RUSTLITE_TEST_SEED={seed}");
    let mut state = seed;
    let options = Options::new().memtable_bytes(64 << 10).table_bytes(16 << 10);
    let options = options.level_base_bytes(64 << 10).level_ratio(3).l0_compaction_trigger(2);
    let db = Database::in_memory_with(options).unwrap();
    let (mut changes, mut guards) = (Vec::new(), Vec::new());
    for round in 0..6000 {
        changes.push(write(&db, &mut state));
        if random(&mut state, 30) == 0 {
            guards.push(db.handle().core.snapshot());
        }
        if guards.len() > 5 {
            guards.remove(random(&mut state, 5) as usize);
        }
        match random(&mut state, 150) {
            0..3 => db.flush().unwrap(),
            3 => db.compact().unwrap(),
            _ => {}
        }
        if let Some(guard) = guards.get(random(&mut state, 5) as usize) {
            check(&db, &changes, guard, &mut state);
        }
        assert!(changes.len() == round + 1);
    }
    assert!(db.stats().unwrap().levels.iter().skip(1).any(|level| level.tables > 0));
}
