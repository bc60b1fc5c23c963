//! Time in the simulator: it passes only when somebody reads it, sleeps, or moves it.
//!
//! Nothing here depends on the machine, so timestamps replay exactly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// 2026-01-01 00:00:00 UTC: where wall time starts.
const WALL_START: Duration = Duration::from_secs(1_767_225_600);

/// How far each reading of the monotonic clock moves it, so that measured durations are never zero.
const TICK: Duration = Duration::from_micros(1);

/// A clock that tests own: it starts at a fixed time, ticks when read, and jumps when told.
#[derive(Debug)]
pub struct SimClock {
    // Both are counters that nothing else is ordered by: Relaxed is enough.
    elapsed_ns: AtomicU64,
    /// Wall time minus elapsed time, which a jump of the wall clock changes.
    wall_base_ns: AtomicU64,
}

impl SimClock {
    /// A clock at its fixed start.
    pub(super) fn new() -> Self {
        Self::at(Duration::ZERO, WALL_START)
    }

    /// A clock that reads `elapsed` and `wall`.
    fn at(elapsed: Duration, wall: Duration) -> Self {
        let (elapsed_ns, wall_ns) = (nanoseconds(elapsed), nanoseconds(wall));
        Self {
            elapsed_ns: AtomicU64::new(elapsed_ns),
            wall_base_ns: AtomicU64::new(wall_ns.wrapping_sub(elapsed_ns)),
        }
    }

    /// The clock of the machine after its restart: wall time goes on, the monotonic clock starts
    /// anew.
    pub(super) fn after_restart(&self) -> Self {
        Self::at(Duration::ZERO, self.wall())
    }

    /// Lets `duration` pass.
    pub fn advance(&self, duration: Duration) {
        self.elapsed_ns.fetch_add(nanoseconds(duration), Ordering::Relaxed);
    }

    /// Sets the wall clock, forwards or backwards, as an operator would; monotonic time is not
    /// touched.
    pub fn set_wall(&self, since_epoch: Duration) {
        let elapsed_ns = self.elapsed_ns.load(Ordering::Relaxed);
        let base = nanoseconds(since_epoch).wrapping_sub(elapsed_ns);
        self.wall_base_ns.store(base, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        let tick_ns = nanoseconds(TICK);
        let before = self.elapsed_ns.fetch_add(tick_ns, Ordering::Relaxed);
        Duration::from_nanos(before.saturating_add(tick_ns))
    }

    fn wall(&self) -> Duration {
        let elapsed_ns = self.elapsed_ns.load(Ordering::Relaxed);
        Duration::from_nanos(self.wall_base_ns.load(Ordering::Relaxed).wrapping_add(elapsed_ns))
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
        std::thread::yield_now();
    }

    fn waited(&self, duration: Duration) {
        self.advance(duration);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_grows_while_wall_time_jumps_back() {
        let clock = SimClock::new();
        let before = clock.monotonic();
        clock.sleep(Duration::from_secs(5));
        clock.set_wall(Duration::from_secs(1000));
        assert!(clock.monotonic() >= before + Duration::from_secs(5));
        assert_eq!(clock.wall().as_secs(), 1000);
        clock.advance(Duration::from_secs(7));
        assert_eq!(clock.wall().as_secs(), 1007);
    }
}
