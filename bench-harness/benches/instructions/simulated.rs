//! Databases in the simulator, where nothing happens by itself while something is measured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustlite_engine::{Database, Durability, Options};
use rustlite_io::SimFileSystem;

/// Time for background threads to notice that there is nothing to do.
const QUIET: Duration = Duration::from_millis(100);

/// Reads that are enough for the epochs to move on and drop everything that was replaced.
const EPOCH_PINS: usize = 2000;

/// A database in a new simulator whose writes are `durability`.
pub(super) fn open(file_system: &Arc<SimFileSystem>, durability: Durability) -> Database {
    let options = Options::new().durability(durability);
    Database::open_on(file_system.clone(), Path::new("/database"), options)
        .expect("the simulator has no faults")
}

/// Waits until background threads sleep, then collects what they have left to the epochs.
pub(super) fn settle(database: &Database) {
    database.wait_for_compactions().expect("the simulator has no faults");
    #[expect(clippy::disallowed_methods, reason = "real threads fall asleep in real time")]
    std::thread::sleep(QUIET);
    for _ in 0..EPOCH_PINS {
        database.get_pinned("settled").expect("the simulator has no faults");
    }
}
