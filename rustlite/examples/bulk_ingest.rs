//! Loads many sorted records at once, past the log, while the database is in use.
//!
//! `cargo run --example bulk_ingest`

use rustlite::{Database, Error};

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join(format!("rustlite-ingest-{}", std::process::id()));
    let db = Database::open(&directory)?;
    let readings = db.keyspace("readings")?;

    // From any sorted source. One commit: readers see all of it or nothing.
    let info = readings.ingest((0..150_000_u64).map(|time| (time.to_be_bytes(), reading(time))))?;
    println!("{} records in {} tables, {} bytes", info.records, info.tables, info.bytes);

    // Or record by record. Nothing is visible, and nothing is left behind, unless it finishes.
    let mut ingest = readings.start_ingest()?;
    for time in 150_000..200_000_u64 {
        ingest.put(time.to_be_bytes(), reading(time))?;
    }
    ingest.finish()?;

    // Unsorted records are refused, before anything changes.
    let unsorted = readings.ingest([("b", "1"), ("a", "2")]);
    println!("unsorted: {}", unsorted.expect_err("keys must ascend"));

    println!("readings: {}", readings.iter()?.count());
    let stats = db.stats()?;
    println!(
        "written by flushes and compactions: {}",
        stats.flush_bytes_written + stats.compaction_bytes_written
    );
    db.close()?;
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

fn reading(time: u64) -> String {
    format!("{} degrees", time % 40)
}
