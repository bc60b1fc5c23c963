//! Times of the engine's parts one by one: what an experiment with one of them looks at first.
//!
//! ```text
//! cargo bench -p rustlite-bench --bench parts
//! ```
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustlite_engine::internals::{Block, Filter, LogEntries, Merge, SortedTable, Table, hash};
use rustlite_engine::{Database, Durability, IndexSource, IndexType, Options};
use rustlite_ycsb::rng::Rng;

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Ascending keys with values of 100 bytes.
fn records(count: u64) -> Records {
    let key = |number: u64| format!("\0\0\0\0user{:019}", number * 7).into_bytes();
    (0..count).map(|number| (key(number), vec![b'v'; 100])).collect()
}

/// Some of their keys in random order, with their hashes.
fn shuffled(records: &Records, count: usize) -> Vec<(Vec<u8>, u64)> {
    let mut rng = Rng::new(42, 2);
    let draws = (0..count).map(|_| records[rng.below(records.len() as u64) as usize].0.clone());
    draws.map(|key| (hash(&key), key)).map(|(hash, key)| (key, hash)).collect()
}

fn memtable_of<'a>(records: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>) -> Table {
    let table = Table::new().expect("a megabyte is there");
    for (sequence, (key, value)) in records.enumerate() {
        table.insert(key, sequence as u64 + 1, value).expect("it has room");
    }
    table
}

fn memtable(criterion: &mut Criterion) {
    let records = records(100_000);
    let keys = shuffled(&records, 10_000);
    let mut group = criterion.benchmark_group("memtable");
    group.throughput(Throughput::Elements(keys.len() as u64));
    group.bench_function("insert in random order", |bencher| {
        let fill = |table: Table| {
            for (sequence, (key, _)) in keys.iter().enumerate() {
                table.insert(key, sequence as u64 + 1, &[b'v'; 100]).expect("it has room");
            }
            table
        };
        let empty = || Table::new().expect("a megabyte is there");
        bencher.iter_batched(empty, fill, BatchSize::LargeInput);
    });
    let table = memtable_of(records.iter());
    group.bench_function("get", |bencher| {
        bencher
            .iter(|| keys.iter().filter_map(|(key, _)| table.get(black_box(key))).sum::<usize>());
    });
    group.finish();
}

fn block(criterion: &mut Criterion) {
    let records = records(28);
    let (block, keys) = (Block::build(&records), shuffled(&records, 1000));
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Elements(keys.len() as u64));
    group.bench_function("find by tag", |bencher| {
        let find = |(key, hash): &(Vec<u8>, u64)| block.find(black_box(key), *hash);
        bencher.iter(|| keys.iter().filter_map(find).sum::<usize>());
    });
    group.bench_function("seek by head", |bencher| {
        bencher
            .iter(|| keys.iter().filter_map(|(key, _)| block.seek(black_box(key))).sum::<usize>());
    });
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("build", |bencher| bencher.iter(|| Block::build(black_box(&records))));
    group.finish();
}

fn filter(criterion: &mut Criterion) {
    let hashes: Vec<u64> = (0..100_000u64).map(|number| hash(&number.to_be_bytes())).collect();
    let built = Filter::build(&hashes, 10).expect("it is our own");
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(hashes.len() as u64));
    group.bench_function("probe", |bencher| {
        bencher.iter(|| hashes.iter().filter(|hash| built.may_contain(black_box(**hash))).count());
    });
    group.bench_function("build", |bencher| {
        bencher.iter(|| Filter::build(black_box(&hashes), 10));
    });
    group.finish();
}

fn log(criterion: &mut Criterion) {
    const ENTRIES: usize = 1000;
    const PAYLOAD: [u8; 130] = [b'p'; 130];
    let fill = |mut entries: LogEntries| {
        (0..ENTRIES).for_each(|_| entries.push(black_box(&PAYLOAD)));
        entries
    };
    let filled = fill(LogEntries::default());
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Bytes((ENTRIES * PAYLOAD.len()) as u64));
    group.bench_function("encode entries", |bencher| {
        bencher.iter_batched(LogEntries::default, fill, BatchSize::SmallInput);
    });
    group.bench_function("verify entries", |bencher| {
        bencher.iter(|| black_box(&filled).payload_bytes());
    });
    group.finish();
}

fn merge(criterion: &mut Criterion) {
    const RECORDS: u64 = 40_000;
    let records = records(RECORDS);
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(RECORDS));
    for sources in [1, 2, 4, 8] {
        let part = |first| memtable_of(records.iter().skip(first).step_by(sources));
        let tables: Vec<Table> = (0..sources).map(part).collect();
        group.bench_function(format!("{sources} sources"), |bencher| {
            bencher
                .iter(|| Merge::new(black_box(&tables)).sum().expect("memtables have no faults"));
        });
    }
    group.finish();
}

fn table(criterion: &mut Criterion) {
    let records = records(200_000);
    let table = SortedTable::build(&records).expect("the simulator has no faults");
    let present = shuffled(&records, 10_000);
    let absent: Vec<Vec<u8>> =
        present.iter().map(|(key, _)| key.iter().copied().chain([b'-']).collect()).collect();
    let get = |key: &[u8]| table.get(key).expect("the simulator has no faults").unwrap_or(0);
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(present.len() as u64));
    group.bench_function("get", |bencher| {
        bencher.iter(|| present.iter().map(|(key, _)| get(black_box(key))).sum::<usize>());
    });
    group.bench_function("get of absent keys", |bencher| {
        bencher.iter(|| absent.iter().map(|key| get(black_box(key))).sum::<usize>());
    });
    group.finish();
}

/// Look-ups by index and writes with one, next to those without.
fn index(criterion: &mut Criterion) {
    const ROWS: u64 = 100_000;
    const OPERATIONS: u64 = 10_000;
    let scattered = |row: u64| row.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let key = |row: u64| (u128::from(scattered(row)) << 64 | u128::from(row)).to_be_bytes();
    let value = |row: u64, version: u64| {
        let mut value = [b'v'; 100];
        value[..16].copy_from_slice(&key(scattered(row) ^ version));
        value
    };
    let pick = |number: u64| (scattered(number) >> 20) % ROWS;
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(OPERATIONS));
    for index_type in [None, Some(IndexType::BTree), Some(IndexType::Hash)] {
        let options = Options::new().durability(Durability::Buffered);
        let database = Database::in_memory_with(options).expect("the simulator has no faults");
        let put = |row: u64, version: u64| {
            database.put(key(row), value(row, version)).expect("the simulator has no faults");
        };
        let name = index_type.map_or("none".to_owned(), |kind| format!("{kind:?}"));
        let index = index_type.map(|kind| {
            let created =
                database.create_index("i", &database, kind, IndexSource::value_bytes(0..16));
            created.expect("the simulator has no faults")
        });
        (0..ROWS).for_each(|row| put(row, 0));
        database.flush().expect("the simulator has no faults");
        database.wait_for_compactions().expect("the simulator has no faults");
        let found = |number: u64| match &index {
            None => usize::from(database.get(key(pick(number))).is_ok_and(|row| row.is_some())),
            Some(index) => index.find(&value(pick(number), 0)[..16]).map_or(0, |found| found.len()),
        };
        group.bench_function(format!("look-up, {name}"), |bencher| {
            bencher.iter(|| assert_eq!((0..OPERATIONS).map(found).sum::<usize>(), 10_000));
        });
        let mut version = 0;
        group.bench_function(format!("update of indexed bytes, {name}"), |bencher| {
            bencher.iter(|| {
                version += 1;
                (0..OPERATIONS).for_each(|number| put(pick(number), version));
            });
        });
        let mut rows = ROWS..;
        group.bench_function(format!("insert, {name}"), |bencher| {
            bencher.iter(|| rows.by_ref().take(OPERATIONS as usize).for_each(|row| put(row, 0)));
        });
    }
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

criterion_group! {
    name = parts;
    config = quick();
    targets = memtable, block, filter, log, merge, table, index
}
criterion_main!(parts);
