//! Opening a database whose log holds everything.

use std::path::Path;
use std::sync::Arc;

use gungraun::prelude::*;
use rustlite_engine::{Database, Durability, Options};
use rustlite_io::{CrashPlan, SimFileSystem};

use crate::simulated::{open, settle};

const RECORDS: u64 = 5000;

/// A file system as a killed process leaves it, with all records in the log.
fn killed() -> Arc<SimFileSystem> {
    let file_system = SimFileSystem::new(42);
    let database = open(&file_system, Durability::Buffered);
    for record in 0..RECORDS {
        let key = record.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        database.put(key, [b'v'; 100]).expect("the simulator has no faults");
    }
    settle(&database);
    file_system.crash(&CrashPlan::ProcessKill)
}

// Read-only, so that no thread is started and nothing is written: what remains is finding the log's
// end, checking its entries and applying them.
#[library_benchmark]
#[bench::log(killed())]
pub(super) fn replay(file_system: Arc<SimFileSystem>) -> (Arc<SimFileSystem>, Database) {
    let options = Options::new().read_only(true);
    let opened = Database::open_on(file_system.clone(), Path::new("/database"), options);
    (file_system, opened.expect("what the process wrote is there"))
}

library_benchmark_group!(name = opening, benchmarks = [replay]);
