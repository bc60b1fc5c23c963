//! Building an index on rows that a writer goes on changing ends with an index that equals a full recomputation; so it does if the process
//! is killed half way and the database opened again.
//!
//! `RUSTLITE_INDEX_ROWS` and `RUSTLITE_INDEX_DIRECTORY` make it larger and say where; see `scripts/index-build`. `RUSTLITE_TEST_SEED` replays
//! a run, but for the schedules of threads.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustlite::{Database, Durability, IndexSource, IndexType, Options, WriteBatch};

use crate::child;
use crate::random::{Random, seed};
use crate::support::small_options;

const INDEX: &str = "by field";

/// Environment variables that hand the process its number of rows and its seed.
const ROWS: &str = "RUSTLITE_INDEX_ROWS";
const ROUND_SEED: &str = "RUSTLITE_INDEX_ROUND_SEED";

/// Without `RUSTLITE_INDEX_ROWS`.
const ROWS_SHORT: u64 = 20_000;

/// What the process says when the builder has come half way.
const HALF: &str = "half of the rows have been read";

const ROW_BYTES: usize = 64;

thread_local! {
    /// Whether the thread is a writer and not the builder, for whom the extractor works.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

fn row_count() -> u64 {
    std::env::var(ROWS).map_or(ROWS_SHORT, |text| text.parse().unwrap())
}

/// `read` is called with how many rows the builder has read, some perhaps more than once.
fn open(directory: &Path, rows: u64, read: impl Fn(u64) + Send + Sync + 'static) -> Database {
    // Small memtables and tables for few rows, so that they too are in many.
    let options = if rows > ROWS_SHORT { Options::new() } else { small_options() };
    let count = AtomicU64::new(0);
    let extractor = move |_: &[u8], row: &[u8], keys: &mut rustlite::IndexKeys| {
        if !WRITES.get() {
            read(count.fetch_add(1, Ordering::Relaxed) + 1);
        }
        keys.add(&row[..8]);
    };
    let options = options.durability(Durability::Buffered).index_extractor("field", extractor);
    Database::open_with(directory, options).unwrap()
}

fn row(random: &mut Random) -> [u8; ROW_BYTES] {
    let mut row = [b'r'; ROW_BYTES];
    row[..8].copy_from_slice(&random.next().to_be_bytes());
    row
}

fn load(db: &Database, rows: u64, random: &mut Random) {
    let mut batch = WriteBatch::new();
    for number in 0..rows {
        batch.put(number.to_be_bytes(), row(random));
        if batch.len() == 1000 || number + 1 == rows {
            db.write(std::mem::take(&mut batch)).unwrap();
        }
    }
}

/// Changes rows until told to stop. Gives how many.
fn change_rows(db: &Database, rows: u64, mut random: Random, stop: &AtomicBool) -> u64 {
    WRITES.set(true);
    let mut changes = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = random.below(rows + rows / 10).to_be_bytes();
        if random.one_in(5) {
            db.delete(key).unwrap();
        } else {
            db.put(key, row(&mut random)).unwrap();
        }
        changes += 1;
    }
    changes
}

/// Runs `build` while a thread changes rows, and tells how long it took.
fn while_rows_change(db: &Database, rows: u64, seed: u64, what: &str, build: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| change_rows(db, rows, Random::new(&[seed, 2]), &stop));
        let begun = Instant::now();
        build();
        let took = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        let changes = writer.join().unwrap();
        println!("{what}: {took:.1?}, while {changes} rows were changed");
    });
}

/// Computes from the rows what the index must hold, and compares.
fn compare(db: &Database) {
    let begun = Instant::now();
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let rows = db.iter().unwrap().map(Result::unwrap);
    let mut expected: Vec<(u64, u64)> =
        rows.map(|(key, row)| (number(&row[..8]), number(&key))).collect();
    expected.sort_unstable();
    let mut entries = db.index(INDEX).unwrap().iter().unwrap();
    for (at, pair) in expected.iter().enumerate() {
        let entry = entries.next().unwrap_or_else(|| panic!("entry {at} is missing")).unwrap();
        assert_eq!((number(&entry.key), number(&entry.primary_key)), *pair, "entry {at}");
    }
    assert!(entries.next().is_none(), "there are too many entries");
    let verified = db.verify().unwrap();
    assert_eq!(verified.index_entries, expected.len() as u64);
    println!(
        "{} entries are those that follow from the rows: {:.1?}",
        expected.len(),
        begun.elapsed()
    );
}

fn create(db: &Database) {
    db.create_index(INDEX, db, IndexType::BTree, IndexSource::extractor("field")).unwrap();
}

/// The role of the process that is killed.
pub(crate) fn build_until_killed(directory: &Path) {
    let rows = row_count();
    let round_seed: u64 = std::env::var(ROUND_SEED).unwrap().parse().unwrap();
    let db = open(directory, rows, move |count| {
        if count == rows / 2 {
            std::io::stdout().lock().write_all(format!("{HALF}\n").as_bytes()).unwrap();
            // The builder comes no further, however long the kill takes.
            std::thread::sleep(Duration::MAX);
        }
    });
    while_rows_change(&db, rows, round_seed, "not reached", || create(&db));
}

fn kill_half_way(directory: &Path, seed: u64) {
    let mut process = child::command(&[], "build an index until killed", directory)
        .env(ROUND_SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let reached = lines.map(Result::unwrap).any(|line| line.contains(HALF));
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(reached, "the process has ended before it was half way");
}

fn wait_until_ready(db: &Database) {
    let patience = Instant::now() + Duration::from_secs(600);
    while db.index(INDEX).unwrap().now().is_err() {
        assert!(Instant::now() < patience, "the index is not ready");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_index_built_while_rows_change_equals_a_recomputation_also_after_a_kill() {
    let (rows, seed) = (row_count(), seed());
    println!("RUSTLITE_TEST_SEED={seed}");
    let parent = std::env::var_os("RUSTLITE_INDEX_DIRECTORY");
    let parent = parent.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let directory = tempfile::tempdir_in(parent).unwrap();
    let path = directory.path().join("db");
    let begun = Instant::now();
    let db = open(&path, rows, |_| ());
    load(&db, rows, &mut Random::new(&[seed, 1]));
    println!("{rows} rows written: {:.1?}", begun.elapsed());

    while_rows_change(&db, rows, seed, "index built", || create(&db));
    compare(&db);
    db.drop_index(INDEX).unwrap();
    db.close().unwrap();
    drop(db);

    let begun = Instant::now();
    kill_half_way(&path, seed + 1);
    println!("built half way, and killed: {:.1?}", begun.elapsed());
    let again = Arc::new(AtomicU64::new(0));
    let reads = Arc::clone(&again);
    let begun = Instant::now();
    let db = open(&path, rows, move |count| reads.store(count, Ordering::Relaxed));
    println!("opened: {:.1?}", begun.elapsed());
    while_rows_change(&db, rows, seed + 2, "the other half built", || wait_until_ready(&db));
    println!("{} rows were read for that", again.load(Ordering::Relaxed));
    compare(&db);
}
