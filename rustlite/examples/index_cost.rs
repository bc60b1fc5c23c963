//! What an index costs: look-ups by index against look-ups by primary key, and writes with an index against writes without.
//!
//! `cargo run --release --example index_cost -- [ROWS]`      (200,000 by default)

#![expect(clippy::disallowed_methods, reason = "it measures real time on a real disk")]

use std::time::{Duration, Instant};

use rustlite::{Database, Durability, Error, Index, IndexSource, IndexType, Keyspace, Options};

/// Each measurement is the best of so many, taken in turn.
const ROUNDS: usize = 5;

fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// 16 bytes.
fn key(number: u64) -> String {
    format!("{:016x}", scattered(number))
}

/// 100 bytes, 16 of them to be found by.
fn value(number: u64, version: u64) -> String {
    format!("{:016x}{:084}", scattered(number ^ 0x5555) ^ version, number)
}

fn field(number: u64) -> String {
    value(number, 0)[..16].to_owned()
}

/// Time for each call, in nanoseconds.
fn timed(calls: u64, mut run: impl FnMut(u64) -> Result<(), Error>) -> Result<f64, Error> {
    let begun = Instant::now();
    (0..calls).try_for_each(&mut run)?;
    Ok(begun.elapsed().as_secs_f64() * Duration::from_secs(1).as_nanos() as f64 / calls as f64)
}

fn best(of: &mut f64, measured: f64) {
    *of = if *of == 0.0 { measured } else { of.min(measured) };
}

fn report(what: &str, nanoseconds: f64, base: f64) {
    println!("{what:<40} {nanoseconds:>8.0} ns   {:>5.2} x", nanoseconds / base);
}

fn indexed(db: &Database, name: &str, kind: IndexType, unique: bool) -> Result<Index, Error> {
    let create = if unique { Database::create_unique_index } else { Database::create_index };
    create(db, name, &db.keyspace(name)?, kind, IndexSource::value_bytes(0..16))
}

fn main() -> Result<(), Error> {
    let rows: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let directory =
        std::env::temp_dir().join(format!("rustlite-index-cost-{}", std::process::id()));
    let db = Database::open_with(&directory, Options::new().durability(Durability::Buffered))?;
    let plain = db.keyspace("plain")?;
    let hash = indexed(&db, "hash", IndexType::Hash, false)?;
    let tree = indexed(&db, "tree", IndexType::BTree, false)?;
    let unique = indexed(&db, "unique", IndexType::Hash, true)?;
    let names = ["plain", "hash", "tree", "unique"];
    let keyspaces: Vec<Keyspace> =
        names.iter().map(|name| db.keyspace(name)).collect::<Result<_, _>>()?;
    let mut inserts = [0.0; 4];
    let mut updates = [0.0; 4];
    // In parts, so that none of them has the emptiest tree.
    let part = rows / ROUNDS as u64;
    for round in 0..ROUNDS as u64 {
        for (keyspace, insert) in keyspaces.iter().zip(&mut inserts) {
            let from = round * part;
            best(insert, timed(part, |n| keyspace.put(key(from + n), value(from + n, 0)))?);
        }
    }
    let present = part * ROUNDS as u64;
    db.flush()?;
    db.wait_for_compactions()?;
    let mut reads = [0.0; 5];
    for _ in 0..ROUNDS {
        let pick = |n: u64| scattered(n + 7) % present;
        best(
            &mut reads[0],
            timed(present, |n| {
                assert!(plain.get(key(pick(n)))?.is_some());
                Ok(())
            })?,
        );
        for (index, read) in [&hash, &tree, &unique].iter().zip(&mut reads[1..]) {
            best(
                read,
                timed(present, |n| {
                    assert_eq!(index.find(field(pick(n)))?.len(), 1);
                    Ok(())
                })?,
            );
        }
    }
    for round in 1..=ROUNDS as u64 {
        for (keyspace, update) in keyspaces.iter().zip(&mut updates) {
            let pick = |n: u64| scattered(n + round) % present;
            best(update, timed(part, |n| keyspace.put(key(pick(n)), value(pick(n), round)))?);
        }
    }
    report("get by primary key", reads[0], reads[0]);
    report("equality by Hash index", reads[1], reads[0]);
    report("equality by B-Tree index", reads[2], reads[0]);
    report("equality by unique index", reads[3], reads[0]);
    for (what, times) in [("insert", inserts), ("update", updates)] {
        for (name, time) in names.iter().zip(times) {
            report(&format!("{what}, {name}"), time, times[0]);
        }
    }
    drop((keyspaces, plain, hash, tree, unique));
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}
