//! The same behaviour is asked of every engine in the build: what one thread wrote, all find, in
//! order, also after reopening.

use std::path::Path;

use super::*;
use crate::store::{Direction, Rewrite};

fn spec(directory: &Path, durability: Durability) -> OpenSpec {
    OpenSpec {
        directory: directory.to_path_buf(),
        durability,
        cache_bytes: 8 << 20,
        threads: 2,
        records: 100,
        value_size: 1000,
        memtable_bytes: 1 << 20,
        transactions: false,
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

/// The number in a record.
fn count(store: &mut dyn Store, record: u32) -> u64 {
    let mut value = Vec::new();
    assert!(store.read(&key(record), &mut value).unwrap());
    u64::from_le_bytes(*value.first_chunk().unwrap())
}

/// Each thread rewrites the same two records, as they were read last.
fn transact_in_threads(engine: &Engine, directory: &Path, durability: Durability) {
    const THREADS: usize = 4;
    const EACH: u64 = 25;
    let open = engine.opener().unwrap();
    let mut store = open(&OpenSpec { transactions: true, ..spec(directory, durability) }).unwrap();
    for record in 0..2 {
        store.insert(&key(record), &0u64.to_le_bytes()).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut handle = store.handle().unwrap();
            scope.spawn(move || {
                let mut records = [0, 1].map(|record| Rewrite {
                    key: key(record),
                    value: u64::MAX.to_le_bytes().to_vec(),
                    ..Rewrite::default()
                });
                for number in 0..EACH {
                    let stamp = thread as u64 * EACH + number + 1;
                    records
                        .iter_mut()
                        .for_each(|record| record.value = stamp.to_le_bytes().to_vec());
                    let in_flight = number % 2 == 0;
                    if in_flight {
                        handle.transact_in_flight(&mut records).unwrap();
                    } else {
                        handle.transact(&mut records).unwrap();
                    }
                    assert!(records.iter().all(|record| record.was_there));
                    assert_eq!(records[0].found, records[1].found, "{}: a torn read", engine.name);
                }
                handle.finish().unwrap();
            });
        }
    });
    assert_ne!(count(store.as_mut(), 0), 0);
    assert_eq!(count(store.as_mut(), 0), count(store.as_mut(), 1), "{}", engine.name);
    store.close().unwrap();
}

#[test]
fn transactions_of_every_engine_that_has_them_read_and_write_as_one() {
    const WITHOUT: [&str; 2] = ["leveldb", "fjall"];
    for engine in ENGINES.iter().filter(|engine| engine.opener().is_ok()) {
        for durability in [Durability::Sync, Durability::Buffered] {
            if engine.require(durability).is_ok() && !WITHOUT.contains(&engine.name) {
                let directory = tempfile::tempdir().unwrap();
                transact_in_threads(engine, directory.path(), durability);
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
