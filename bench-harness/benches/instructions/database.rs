//! Reads and commits of a whole database.

use std::hint::black_box;

use gungraun::prelude::*;
use rustlite_engine::{Database, Durability, WriteBatch};
use rustlite_io::SimFileSystem;
use rustlite_ycsb::keys::KeyShape;
use rustlite_ycsb::rng::Rng;

use crate::simulated::{open, settle};

/// Records in tables.
const RECORDS: u64 = 20_000;

/// Operations of a measurement, unless each is long.
const OPERATIONS: u64 = 500;

const VALUE: [u8; 100] = [b'v'; 100];

/// Seeds of the file system and of the choice of records.
const SEED: u64 = 42;

fn key(record: u64) -> Vec<u8> {
    let mut key = Vec::new();
    KeyShape::Ycsb.write(&mut key, record);
    key
}

/// An empty database, warmed up: the thread's buffers are made and the first segment is taken.
fn empty(durability: Durability) -> Database {
    let database = open(&SimFileSystem::new(SEED), durability);
    for record in 0..100 {
        database.put(key(u64::MAX - record), VALUE).expect("the simulator has no faults");
    }
    settle(&database);
    database
}

/// A database with all records in the memtable.
fn in_memtable() -> Database {
    let database = open(&SimFileSystem::new(SEED), Durability::Buffered);
    for record in 0..RECORDS {
        database.put(key(record), VALUE).expect("the simulator has no faults");
    }
    settle(&database);
    database
}

/// A database with all records in tables, every block verified.
fn in_tables() -> Database {
    let database = in_memtable();
    database.flush().expect("the simulator has no faults");
    settle(&database);
    let records = database.iter().expect("the simulator has no faults");
    assert_eq!(records.count() as u64, RECORDS);
    database
}

/// A database and what is done with it: a key for each operation.
type Prepared = (Database, Vec<Vec<u8>>);

/// Keys that are there.
fn present(database: Database) -> Prepared {
    let mut rng = Rng::new(SEED, 1);
    let keys = (0..OPERATIONS).map(|_| key(rng.below(RECORDS))).collect();
    (database, keys)
}

/// Keys that aren't there, but between those that are.
fn absent(database: Database) -> Prepared {
    let keys = (0..OPERATIONS).map(|number| key(RECORDS + number)).collect();
    (database, keys)
}

// What the measured functions get they give back: dropping it is not measured.

fn get_each((database, keys): Prepared) -> (Prepared, usize) {
    let mut found = 0;
    for key in black_box(&keys) {
        let value = database.get_pinned(key).expect("the simulator has no faults");
        found += usize::from(black_box(value).is_some());
    }
    ((database, keys), found)
}

#[library_benchmark]
#[bench::tables(present(in_tables()))]
pub(super) fn get(prepared: Prepared) -> (Prepared, usize) {
    get_each(prepared)
}

#[library_benchmark]
#[bench::tables(absent(in_tables()))]
pub(super) fn get_absent(prepared: Prepared) -> (Prepared, usize) {
    get_each(prepared)
}

#[library_benchmark]
#[bench::memtable(present(in_memtable()))]
pub(super) fn get_memtable(prepared: Prepared) -> (Prepared, usize) {
    get_each(prepared)
}

#[library_benchmark]
#[bench::tables(present(in_tables()))]
pub(super) fn multi_get((database, keys): Prepared) -> (Prepared, usize) {
    let mut found = 0;
    for keys in black_box(&keys).chunks(32) {
        let values = database.multi_get(keys).expect("the simulator has no faults");
        found += black_box(values).into_iter().flatten().count();
    }
    ((database, keys), found)
}

#[library_benchmark]
#[bench::tables(present(in_tables()))]
pub(super) fn scan_100((database, mut keys): Prepared) -> (Prepared, usize) {
    keys.truncate(50);
    let mut bytes = 0;
    for key in black_box(&keys) {
        let mut cursor = database.cursor().expect("the simulator has no faults");
        cursor.seek(key).expect("the simulator has no faults");
        for _ in 0..100 {
            if !cursor.valid() {
                break;
            }
            bytes += black_box(cursor.value()).len();
            cursor.next().expect("the simulator has no faults");
        }
    }
    ((database, keys), bytes)
}

#[library_benchmark]
#[bench::tables(in_tables())]
pub(super) fn scan_forward(database: Database) -> (Database, usize) {
    let mut bytes = 0;
    let mut cursor = database.cursor().expect("the simulator has no faults");
    cursor.seek_to_first().expect("the simulator has no faults");
    while cursor.valid() {
        bytes += black_box(cursor.value()).len();
        cursor.next().expect("the simulator has no faults");
    }
    (database, bytes)
}

#[library_benchmark]
#[bench::tables(in_tables())]
pub(super) fn scan_backward(database: Database) -> (Database, usize) {
    let mut bytes = 0;
    let mut cursor = database.cursor().expect("the simulator has no faults");
    cursor.seek_to_last().expect("the simulator has no faults");
    while cursor.valid() {
        bytes += black_box(cursor.value()).len();
        cursor.prev().expect("the simulator has no faults");
    }
    (database, bytes)
}

fn put_each((database, keys): Prepared) -> Prepared {
    for key in black_box(&keys) {
        database.put(key, VALUE).expect("the simulator has no faults");
    }
    (database, keys)
}

#[library_benchmark]
#[bench::stores(absent(empty(Durability::Buffered)))]
pub(super) fn put_buffered(prepared: Prepared) -> Prepared {
    put_each(prepared)
}

#[library_benchmark]
#[bench::frames(absent(empty(Durability::Sync)))]
pub(super) fn put_sync(prepared: Prepared) -> Prepared {
    put_each(prepared)
}

#[library_benchmark]
#[bench::memtable(present(in_memtable()))]
pub(super) fn overwrite_buffered(prepared: Prepared) -> Prepared {
    put_each(prepared)
}

#[library_benchmark]
#[bench::memtable(present(in_memtable()))]
pub(super) fn delete_buffered((database, keys): Prepared) -> Prepared {
    for key in black_box(&keys) {
        database.delete(key).expect("the simulator has no faults");
    }
    (database, keys)
}

#[library_benchmark]
#[bench::frames(absent(empty(Durability::Sync)))]
pub(super) fn batch_sync((database, keys): Prepared) -> Prepared {
    for keys in black_box(&keys).chunks(50) {
        let mut batch = WriteBatch::new();
        for key in keys {
            batch.put(key, VALUE);
        }
        database.write(batch).expect("the simulator has no faults");
    }
    (database, keys)
}

library_benchmark_group!(
    name = reads,
    benchmarks = [get, get_absent, get_memtable, multi_get, scan_100, scan_forward, scan_backward]
);

library_benchmark_group!(
    name = writes,
    benchmarks = [put_buffered, put_sync, batch_sync, delete_buffered, overwrite_buffered]
);
