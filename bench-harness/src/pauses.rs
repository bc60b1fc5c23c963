//! What a writer has to wait for on this machine with no engine at all: processors that are taken away.
//!
//! A thread reads the clock as often as it can, alone and beside another one that does what a flush does: it writes files and syncs
//! them. The longest time between two looks is what no engine can promise to stay below. Machines with two processors, and virtual ones,
//! have pauses of milliseconds.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::statistics::Median;

/// Rounds, of which each has the thread alone and beside the other.
const ROUNDS: usize = 3;

/// Bytes of a file, and of each write.
const FILE_BYTES: usize = 32 << 20;
const WRITE_BYTES: usize = 512 << 10;

/// The longest pauses, as medians over some rounds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pauses {
    /// How long each round watches, in seconds.
    pub seconds: f64,
    /// Alone, in microseconds.
    pub alone_us: f64,
    /// Beside a thread that writes and syncs files, in microseconds.
    pub beside_writer_us: f64,
}

impl Pauses {
    /// Watches for `time` at a time; files are written to `directory` and removed. `None` if that can't be done.
    #[must_use]
    pub fn measure(directory: &Path, time: Duration) -> Option<Self> {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.push(longest_pause(time));
            beside.push(longest_pause_beside_writer(directory, time)?);
        }
        let median = |pauses: &[f64]| Median::of(pauses).map(|median| median.value);
        Some(Self {
            seconds: time.as_secs_f64(),
            alone_us: median(&alone)?,
            beside_writer_us: median(&beside)?,
        })
    }
}

/// In microseconds.
fn longest_pause(time: Duration) -> f64 {
    let begun = Instant::now();
    let (mut last, mut longest) = (begun, Duration::ZERO);
    while last.duration_since(begun) < time {
        let now = Instant::now();
        longest = longest.max(now.duration_since(last));
        last = now;
    }
    longest.as_secs_f64() * 1e6
}

fn longest_pause_beside_writer(directory: &Path, time: Duration) -> Option<f64> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_files(directory, &stop));
        let longest = longest_pause(time);
        stop.store(true, Ordering::Relaxed);
        writer.join().ok()?.ok()?;
        Some(longest)
    })
}

/// Makes and syncs files one after the other, until it is to stop.
fn write_files(directory: &Path, stop: &AtomicBool) -> std::io::Result<()> {
    let mut block = vec![0; WRITE_BYTES];
    loop {
        // Removed when it goes.
        let mut file = tempfile::tempfile_in(directory)?;
        for number in 0..FILE_BYTES / WRITE_BYTES {
            block.fill(number as u8);
            file.write_all(&block)?;
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        file.sync_data()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_plausible_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let time = Duration::from_millis(20);
        let pauses = Pauses::measure(directory.path(), time).unwrap();
        for pause in [pauses.alone_us, pauses.beside_writer_us] {
            assert!((0.001..10_000_000.0).contains(&pause), "{pauses:?}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_nothing_can_be_written_nothing_is_known() {
        assert!(Pauses::measure(Path::new("/nonexistent"), Duration::from_millis(1)).is_none());
    }
}
