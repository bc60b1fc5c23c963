//! What an index costs: look-ups by index against look-ups by primary key, and writes with an index against writes without.
//!
//! `cargo run --release --example index_cost -- [ROWS [reads|writes]]`      (200,000 rows by default, and both)

#![expect(clippy::disallowed_methods, reason = "it measures real time on a real disk")]

use std::path::PathBuf;
use std::time::Instant;

use rustlite::{Database, Durability, Error, Index, IndexSource, IndexType, Options};

/// Look-ups are done in so many parts, by the candidates in turn, and their median counts.
const PARTS: u64 = 5;

/// Writes of a part, at most.
const WRITES: u64 = 4000;

/// Look-ups of a part, at most.
const LOOKUPS: u64 = 100_000;

fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn key(row: u64) -> [u8; 16] {
    let number = u128::from(scattered(row)) << 64 | u128::from(row);
    number.to_be_bytes()
}

/// What a row can be found by.
fn field(row: u64, version: u64) -> [u8; 16] {
    key(scattered(row ^ 0x5555) ^ version)
}

fn value(field: [u8; 16], rest: u64) -> [u8; 100] {
    let mut value = [b'v'; 100];
    value[..16].copy_from_slice(&field);
    value[92..].copy_from_slice(&rest.to_le_bytes());
    value
}

/// Time for each call, in nanoseconds.
fn timed(calls: u64, mut run: impl FnMut(u64) -> Result<(), Error>) -> Result<f64, Error> {
    let begun = Instant::now();
    (0..calls).try_for_each(&mut run)?;
    Ok(begun.elapsed().as_secs_f64() * 1e9 / calls as f64)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Prints each median, and how it compares with the first.
fn report(title: &str, names: &[&str], times: Vec<Vec<f64>>) {
    println!("{title}");
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    for (name, time) in names.iter().zip(&medians) {
        println!("    {name:<24} {time:>8.0} ns   {:>5.2} x", time / medians[0]);
    }
}

/// A database of its own, which is removed at the end.
struct Scratch {
    db: Database,
    directory: PathBuf,
}

impl Scratch {
    fn open(name: &str, options: Options) -> Result<Self, Error> {
        let name = format!("rustlite-index-cost-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let db = Database::open_with(&directory, options.durability(Durability::Buffered))?;
        Ok(Self { db, directory })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let closed = self.db.close();
        let removed = std::fs::remove_dir_all(&self.directory);
        if closed.is_err() || removed.is_err() {
            eprintln!("{} may still be there", self.directory.display());
        }
    }
}

fn create(db: &Database, name: &str) -> Result<Index, Error> {
    let source = IndexSource::value_bytes(0..16);
    match name {
        "unique" => db.create_unique_index(name, db, IndexType::Hash, source),
        "hash" => db.create_index(name, db, IndexType::Hash, source),
        _ => db.create_index(name, db, IndexType::BTree, source),
    }
}

/// Rows that can be looked up.
struct Reads {
    scratch: Scratch,
    indexes: Vec<Index>,
    rows: u64,
    /// Rows that share an index key.
    per_key: u64,
}

impl Reads {
    /// With all rows in the memtable, or a fifth of them, and the others in four runs of tables.
    fn load(rows: u64, per_key: u64, flushes: bool) -> Result<Self, Error> {
        // Nothing is flushed or compacted before it is asked for.
        let options = Options::new()
            .memtable_bytes(2 << 30)
            .l0_compaction_trigger(100)
            .l0_slowdown_trigger(200)
            .l0_stop_trigger(300);
        let scratch = Scratch::open("reads", options)?;
        let db = &scratch.db;
        let kinds = if per_key == 1 { &["tree", "hash", "unique"][..] } else { &["tree", "hash"] };
        let indexes = kinds.iter().map(|kind| create(db, kind)).collect::<Result<Vec<_>, _>>()?;
        let part = rows / PARTS;
        for n in 0..part * PARTS {
            // The rows of an index key are in all parts.
            let row = n % part * PARTS + n / part;
            db.put(key(row), value(field(row / per_key, 0), row))?;
            if flushes && (n + 1) % part == 0 && n / part + 1 < PARTS {
                db.flush()?;
            }
        }
        Ok(Self { indexes, rows: part * PARTS / per_key * per_key, per_key, scratch })
    }

    fn measure(&self, title: &str) -> Result<(), Error> {
        let (db, indexes, per_key) = (&self.scratch.db, &self.indexes, self.per_key);
        let pick = |n: u64| (scattered(n + 7) >> 20) % self.rows;
        let lookups = LOOKUPS.min(self.rows);
        let mut times = vec![Vec::new(); indexes.len() + 1];
        for _ in 0..PARTS {
            times[0].push(timed(lookups, |n| {
                assert!(db.get(key(pick(n)))?.is_some());
                Ok(())
            })?);
            for (index, times) in indexes.iter().zip(&mut times[1..]) {
                times.push(timed(lookups, |n| {
                    let found = index.find(field(pick(n) / per_key, 0))?;
                    assert_eq!(found.len() as u64, per_key);
                    Ok(())
                })?);
            }
        }
        let names = indexes.iter().map(Index::name);
        let names: Vec<&str> = std::iter::once("get by primary key").chain(names).collect();
        report(&format!("equality, {per_key} for each index key, {title}"), &names, times);
        Ok(())
    }
}

fn reads(rows: u64, per_key: u64) -> Result<(), Error> {
    Reads::load(rows, per_key, false)?.measure("in the memtable")?;
    let reads = Reads::load(rows, per_key, true)?;
    reads.measure("in the memtable and 4 runs")?;
    reads.scratch.db.gc()?;
    reads.scratch.db.wait_for_compactions()?;
    reads.measure("compacted")
}

/// Writes rows to databases without and with an index, in turn: the same rows to each, few at a time, so that they have the same weather.
fn measure_writes(
    title: &str,
    stores: &[(&str, Scratch)],
    rows: u64,
    write: impl Fn(&Database, u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut times = vec![Vec::new(); stores.len()];
    let part = WRITES.min(rows);
    for begin in (0..rows / part).map(|number| number * part) {
        for ((_, scratch), times) in stores.iter().zip(&mut times) {
            times.push(timed(part, |n| write(&scratch.db, begin + n))?);
        }
    }
    let names: Vec<&str> = stores.iter().map(|(name, _)| *name).collect();
    report(title, &names, times);
    Ok(())
}

fn writes(rows: u64) -> Result<(), Error> {
    let mut stores = Vec::new();
    for name in ["no index", "tree", "hash", "unique"] {
        let scratch = Scratch::open(name, Options::new())?;
        if name != "no index" {
            create(&scratch.db, name)?;
        }
        stores.push((name, scratch));
    }
    let pick = |n: u64| (scattered(n + 3) >> 20) % rows;
    measure_writes("insert", &stores, rows, |db, n| db.put(key(n), value(field(n, 0), 0)))?;
    measure_writes("update of other bytes", &stores, rows, |db, n| {
        db.put(key(pick(n)), value(field(pick(n), 0), n))
    })?;
    measure_writes("update of the indexed bytes", &stores, rows, |db, n| {
        db.put(key(pick(n)), value(field(pick(n), n), n))
    })
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let rows = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let rows: u64 = u64::max(rows, 10 * PARTS);
    let what = arguments.next().unwrap_or_default();
    if what != "writes" {
        reads(rows, 1)?;
        reads(rows, 10)?;
    }
    if what != "reads" {
        writes(rows)?;
    }
    Ok(())
}
