//! The same behaviour is asked of every engine in the build: what one thread wrote, all find, in
//! order, also after reopening.

use std::path::Path;

use super::*;
use crate::store::Direction;

fn spec(directory: &Path, durability: Durability) -> OpenSpec {
    OpenSpec {
        directory: directory.to_path_buf(),
        durability,
        cache_bytes: 8 << 20,
        threads: 2,
        records: 100,
        value_size: 1000,
        memtable_bytes: 1 << 20,
    }
}

fn key(number: u32) -> Vec<u8> {
    format!("user{number:05}").into_bytes()
}

fn scanned(store: &mut dyn Store, start: u32, count: usize) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        assert_eq!(value.len(), 1000);
        keys.push(key.to_vec());
    };
    store.scan(&key(start), count, &mut visit).unwrap();
    keys
}

fn exercise(engine: &Engine, durability: Durability) {
    let directory = tempfile::tempdir().unwrap();
    let open = engine.opener().unwrap();
    let mut store = open(&spec(directory.path(), durability)).unwrap();
    assert!(!store.configuration().is_empty());
    let mut handle = store.handle().unwrap();
    for number in 0..100 {
        handle.insert(&key(number), &[number as u8; 1000]).unwrap();
    }
    handle.update(&key(7), &[200; 1000]).unwrap();
    let mut value = b"left over".to_vec();
    let mut other = store.handle().unwrap();
    assert!(other.read(&key(7), &mut value).unwrap());
    assert_eq!(value, [200; 1000], "{}", engine.name);
    assert!(!other.read(&key(100), &mut value).unwrap(), "{}", engine.name);
    assert_eq!(scanned(other.as_mut(), 95, 3), [key(95), key(96), key(97)]);
    assert_eq!(scanned(other.as_mut(), 98, 10), [key(98), key(99)]);
    assert!(scanned(other.as_mut(), 100, 10).is_empty());
    check_many(engine, other.as_mut());
    drop((handle, other));
    store.settle().unwrap();
    store.close().unwrap();
    let mut store = open(&spec(directory.path(), durability)).unwrap();
    for number in 0..100 {
        let expected = if number == 7 { 200 } else { number as u8 };
        assert!(store.read(&key(number), &mut value).unwrap(), "{} lost {number}", engine.name);
        assert_eq!(value, [expected; 1000], "{}", engine.name);
    }
    store.close().unwrap();
}

/// What several keys at once and scans of everything give.
fn check_many(engine: &Engine, store: &mut dyn Store) {
    let keys: Vec<Vec<u8>> = [3, 100, 7, 99, 3].into_iter().map(key).collect();
    let mut first_bytes = vec![None; keys.len()];
    let visit = &mut |index: usize, value: Option<&[u8]>| {
        assert!(first_bytes[index].is_none(), "{} shows {index} twice", engine.name);
        first_bytes[index] = Some(value.map(|value| value[0]));
    };
    store.read_many(&keys, visit).unwrap();
    let expected = [Some(3), None, Some(200), Some(99), Some(3)].map(Some);
    assert_eq!(first_bytes, expected, "{}", engine.name);
    for direction in [Direction::Forward, Direction::Backward] {
        let mut seen = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            assert_eq!(value.len(), 1000);
            seen.push(key.to_vec());
        };
        store.scan_all(direction, visit).unwrap();
        if direction == Direction::Backward {
            seen.reverse();
        }
        assert!(seen.into_iter().eq((0..100).map(key)), "{} {direction:?}", engine.name);
    }
}

#[test]
fn every_engine_of_the_build_keeps_and_orders_records_at_each_of_its_durabilities() {
    for engine in ENGINES.iter().filter(|engine| engine.opener().is_ok()) {
        for durability in [Durability::Sync, Durability::Buffered] {
            if engine.require(durability).is_ok() {
                exercise(engine, durability);
            }
        }
    }
}

#[test]
fn redb_is_refused_at_buffered_with_the_reason_and_accepted_at_sync() {
    let redb = Engine::named("redb").unwrap();
    assert!(redb.require(Durability::Sync).is_ok());
    let error = redb.require(Durability::Buffered).unwrap_err();
    assert!(error.to_string().contains("no level equal to buffered"), "{error}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn engines_outside_the_build_name_the_feature_to_add() {
    for engine in &ENGINES {
        if let Err(error) = engine.opener() {
            let text = error.to_string();
            assert!(text.contains(&format!("--features {}", engine.feature)), "{text}");
        }
    }
    let error = Engine::named("oracle").unwrap_err();
    assert!(error.to_string().contains("rustlite, sqlite, rocksdb"), "{error}");
}
