//! What a database holds of the system stays bounded however much is written.

use std::path::Path;

use rustlite_engine::{Database, Durability, Options};

use crate::support::with;

const SEGMENT: u64 = 256 << 10;

/// Descriptors of this process that lead, or led, to log segments of that directory.
fn descriptors_of_log(directory: &Path) -> usize {
    let leads_there = |entry: std::io::Result<std::fs::DirEntry>| {
        // Other tests close theirs meanwhile.
        let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        target.starts_with(directory) && target.to_string_lossy().contains(".log")
    };
    std::fs::read_dir("/proc/self/fd").unwrap().map(leads_there).filter(|&there| there).count()
}

/// A segment that was recycled is a new one: whoever keeps the old one keeps descriptors and a map for each turn of the log.
#[test]
fn buffered_writes_let_go_of_log_segments_that_were_recycled() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new()
        .memtable_bytes(4 * SEGMENT as usize)
        .log_segment_bytes(SEGMENT)
        .log_bytes_max(16 * SEGMENT);
    let db = Database::open_with(directory.path().join("db"), options).unwrap();
    let buffered = with(Durability::Buffered);
    let mut most = 0;
    for number in 0..240_u64 {
        // About a segment each time, in puts of a size that flushes keep up with only now and then.
        for part in 0..16_u64 {
            let key = [number.to_be_bytes(), part.to_be_bytes()].concat();
            db.put_with(key, vec![7; SEGMENT as usize / 16], &buffered).unwrap();
        }
        most = most.max(descriptors_of_log(directory.path()));
    }
    let stats = db.stats().unwrap();
    assert!(stats.flushes > 20, "{} flushes", stats.flushes);
    // Two for each segment: those of three memtables, the current one, and what is ready or kept for recycling.
    assert!(most <= 2 * (3 * 4 + 16 + 4), "{most} descriptors");
}
