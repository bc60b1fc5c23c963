//! Time as the engine sees it: a trait, so that tests and the simulator can own it.

use std::fmt::Debug;
use std::time::Duration;

/// A source of time. Every reading of time in RustLite goes through one of these.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Time since an arbitrary fixed point; never goes backwards.
    fn monotonic(&self) -> Duration;

    /// Time since the Unix epoch; may jump when an operator sets the clock.
    fn wall(&self) -> Duration;

    /// Blocks the calling thread for about `duration`.
    fn sleep(&self, duration: Duration);

    /// Says that the calling thread has just waited for `duration` of real time in some other way, on a condition variable say: for a
    /// clock that only moves when it is told to.
    fn waited(&self, duration: Duration) {
        let _ = duration;
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the real clock")]
impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    fn wall(&self) -> Duration {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
