//! The engine's parts one by one.

use std::hint::black_box;

use gungraun::prelude::*;
use rustlite_engine::internals::{Block, Filter, LogEntries, Merge, SortedTable, Table, hash};
use rustlite_ycsb::rng::Rng;

/// Records of a block of 4 KiB.
const BLOCK_RECORDS: u64 = 28;

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Keys with their hashes.
type Keys = Vec<(Vec<u8>, u64)>;

/// Ascending keys as they lie in a table, with values of 100 bytes.
fn records(count: u64) -> Records {
    let key = |number: u64| format!("\0\0\0\0user{:019}", number * 7).into_bytes();
    (0..count).map(|number| (key(number), vec![b'v'; 100])).collect()
}

/// Their keys in random order, with their hashes.
fn shuffled(records: &Records, count: usize) -> Keys {
    let mut rng = Rng::new(42, 2);
    let mut draw = || records[rng.below(records.len() as u64) as usize].0.clone();
    (0..count).map(|_| draw()).map(|key| (hash(&key), key)).map(|(hash, key)| (key, hash)).collect()
}

fn new_memtable() -> Table {
    Table::new().expect("a megabyte is there")
}

fn memtable(records: &Records) -> Table {
    let table = new_memtable();
    for (sequence, (key, value)) in records.iter().enumerate() {
        table.insert(key, sequence as u64 + 1, value).expect("it has room");
    }
    table
}

fn block() -> (Block, Keys) {
    let records = records(BLOCK_RECORDS);
    (Block::build(&records), shuffled(&records, 1000))
}

fn filter(count: u64) -> (Filter, Vec<u64>) {
    let hashes: Vec<u64> = (0..count).map(|number| hash(&number.to_be_bytes())).collect();
    let other = (0..count).map(|number| hash(&(number + (count / 2)).to_be_bytes())).collect();
    (Filter::build(&hashes, 10).expect("it is our own"), other)
}

fn memtable_with_keys() -> (Table, Keys) {
    let records = records(5000);
    (memtable(&records), shuffled(&records, 1000))
}

fn table_with_keys() -> (SortedTable, Keys) {
    let records = records(20_000);
    let table = SortedTable::build(&records).expect("the simulator has no faults");
    let keys = shuffled(&records, 1000);
    for (key, _) in &keys {
        table.get(key).expect("the simulator has no faults");
    }
    (table, keys)
}

fn interleaved() -> Vec<Table> {
    let tables: Vec<Table> = (0..4).map(|_| new_memtable()).collect();
    for (number, (key, value)) in records(4000).iter().enumerate() {
        tables[number % 4].insert(key, number as u64 + 1, value).expect("it has room");
    }
    tables
}

fn entries() -> LogEntries {
    let mut entries = LogEntries::default();
    (0..500).for_each(|_| entries.push(&[b'p'; 130]));
    entries
}

#[library_benchmark]
#[bench::random((new_memtable(), shuffled(&records(100_000), 1000)))]
pub(super) fn memtable_insert((table, keys): (Table, Keys)) -> (Table, Keys) {
    for (sequence, (key, _)) in black_box(&keys).iter().enumerate() {
        table.insert(key, sequence as u64 + 1, &[b'v'; 100]).expect("it has room");
    }
    (table, keys)
}

#[library_benchmark]
#[bench::random(memtable_with_keys())]
pub(super) fn memtable_get(input: (Table, Keys)) -> ((Table, Keys), usize) {
    let found = black_box(&input.1).iter().filter_map(|(key, _)| input.0.get(key)).sum();
    (input, found)
}

#[library_benchmark]
#[bench::by_tag(block())]
pub(super) fn block_find(input: (Block, Keys)) -> ((Block, Keys), usize) {
    let found = black_box(&input.1).iter().filter_map(|(key, hash)| input.0.find(key, *hash)).sum();
    (input, found)
}

#[library_benchmark]
#[bench::by_head(block())]
pub(super) fn block_seek(input: (Block, Keys)) -> ((Block, Keys), usize) {
    let found = black_box(&input.1).iter().filter_map(|(key, _)| input.0.seek(key)).sum();
    (input, found)
}

#[library_benchmark]
#[bench::one(records(BLOCK_RECORDS))]
pub(super) fn block_build(records: Records) -> (Records, Block) {
    let block = Block::build(black_box(&records));
    (records, block)
}

#[library_benchmark]
#[bench::half_present(filter(10_000))]
pub(super) fn filter_probe(input: (Filter, Vec<u64>)) -> ((Filter, Vec<u64>), usize) {
    let found = black_box(&input.1).iter().filter(|hash| input.0.may_contain(**hash)).count();
    (input, found)
}

#[library_benchmark]
#[bench::ten_bits(filter(10_000).1)]
pub(super) fn filter_build(hashes: Vec<u64>) -> (Vec<u64>, Option<Filter>) {
    let filter = Filter::build(black_box(&hashes), 10);
    (hashes, filter)
}

#[library_benchmark]
#[bench::random(table_with_keys())]
pub(super) fn table_get(input: (SortedTable, Keys)) -> ((SortedTable, Keys), usize) {
    let mut found = 0;
    for (key, _) in black_box(&input.1) {
        found += input.0.get(key).expect("the simulator has no faults").unwrap_or(0);
    }
    (input, found)
}

#[library_benchmark]
#[bench::four(interleaved())]
pub(super) fn merge(tables: Vec<Table>) -> (Vec<Table>, usize) {
    let sum = Merge::new(black_box(&tables)).sum().expect("memtables have no faults");
    (tables, sum)
}

#[library_benchmark]
#[bench::frame(LogEntries::default())]
pub(super) fn log_encode(mut entries: LogEntries) -> LogEntries {
    for _ in 0..500 {
        entries.push(black_box(&[b'p'; 130]));
    }
    entries
}

#[library_benchmark]
#[bench::frame(entries())]
pub(super) fn log_decode(entries: LogEntries) -> (LogEntries, usize) {
    let bytes = black_box(&entries).payload_bytes();
    (entries, bytes)
}

library_benchmark_group!(
    name = pieces,
    benchmarks = [
        memtable_insert,
        memtable_get,
        block_find,
        block_seek,
        block_build,
        filter_probe,
        filter_build,
        table_get,
        merge,
        log_encode,
        log_decode
    ]
);
