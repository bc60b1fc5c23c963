//! Look-ups by index, and writes to a keyspace that has one.

use std::hint::black_box;

use gungraun::prelude::*;
use rustlite_engine::{Database, Durability, Index, IndexSource, IndexType};
use rustlite_io::SimFileSystem;

use crate::simulated::{open, settle};

/// Rows of the keyspace, each with an index key of its own.
const ROWS: u64 = 20_000;

/// Look-ups or writes of a measurement.
const OPERATIONS: u64 = 500;

const SEED: u64 = 43;

fn scattered(row: u64) -> u64 {
    row.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn key(row: u64) -> [u8; 16] {
    (u128::from(scattered(row)) << 64 | u128::from(row)).to_be_bytes()
}

/// A value whose first half is the index key.
fn value(row: u64, version: u64) -> [u8; 100] {
    let mut value = [b'v'; 100];
    value[..8].copy_from_slice(&scattered(row + version * ROWS + 1).to_be_bytes());
    value
}

/// What is done with which rows.
type Prepared = (Database, Index, Vec<u64>);

/// A database whose rows and entries are in the memtable.
fn in_memtable(index_type: IndexType) -> Prepared {
    let database = open(&SimFileSystem::new(SEED), Durability::Buffered);
    let source = IndexSource::value_bytes(0..8);
    let index = database.create_index("index", &database, index_type, source);
    let index = index.expect("the simulator has no faults");
    for row in 0..ROWS {
        database.put(key(row), value(row, 0)).expect("the simulator has no faults");
    }
    settle(&database);
    let rows = (0..OPERATIONS).map(|number| scattered(number) >> 20).map(|row| row % ROWS);
    (database, index, rows.collect())
}

/// The same in tables, every block verified.
fn in_tables(index_type: IndexType) -> Prepared {
    let (database, index, rows) = in_memtable(index_type);
    database.flush().expect("the simulator has no faults");
    settle(&database);
    let entries = index.iter().expect("the simulator has no faults");
    assert_eq!(entries.count() as u64, ROWS);
    (database, index, rows)
}

// What the measured functions get they give back: dropping it is not measured.

#[library_benchmark]
#[bench::tree_in_tables(in_tables(IndexType::BTree))]
#[bench::hash_in_tables(in_tables(IndexType::Hash))]
#[bench::tree_in_memtable(in_memtable(IndexType::BTree))]
pub(super) fn equality((database, index, rows): Prepared) -> (Prepared, usize) {
    let mut found = 0;
    for &row in black_box(&rows) {
        let rows = index.find(&value(row, 0)[..8]).expect("the simulator has no faults");
        found += black_box(rows).len();
    }
    ((database, index, rows), found)
}

/// What is to be written: the numbers of rows, and of their versions.
fn writes(prepared: Prepared, of: impl Fn(u64) -> (u64, u64)) -> (Prepared, Vec<(u64, u64)>) {
    let rows = prepared.2.iter().map(|&row| of(row)).collect();
    (prepared, rows)
}

fn inserts() -> (Prepared, Vec<(u64, u64)>) {
    writes(in_memtable(IndexType::BTree), |row| (row + ROWS, 0))
}

fn updates() -> (Prepared, Vec<(u64, u64)>) {
    writes(in_memtable(IndexType::BTree), |row| (row, 1))
}

#[library_benchmark]
#[bench::insert(inserts())]
#[bench::update(updates())]
pub(super) fn put_indexed((prepared, rows): (Prepared, Vec<(u64, u64)>)) -> Prepared {
    for &(row, version) in black_box(&rows) {
        prepared.0.put(key(row), value(row, version)).expect("the simulator has no faults");
    }
    prepared
}

library_benchmark_group!(name = indexed, benchmarks = [equality, put_indexed]);
