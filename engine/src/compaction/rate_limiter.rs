//! A token bucket that bounds what compactions write per second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustlite_io::Clock;

/// Lets through a number of bytes per second, over all threads that share it.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    bytes_per_second: u64,
    clock: Arc<dyn Clock>,
    /// When the bytes granted so far will have been paid for.
    paid_until: Mutex<Duration>,
}

impl RateLimiter {
    /// `bytes_per_second` of 0 means no bound.
    pub(crate) fn new(bytes_per_second: u64, clock: Arc<dyn Clock>) -> Self {
        Self { bytes_per_second, clock, paid_until: Mutex::new(Duration::ZERO) }
    }

    /// Accounts for `bytes` and sleeps as long as the bound demands.
    pub(crate) fn spend(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let now = self.clock.monotonic();
        let start = {
            let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*paid_until).max(now);
            *paid_until = start + cost;
            start
        };
        if start > now {
            self.clock.sleep(start - now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct ManualClock(Mutex<Duration>);

    impl Clock for ManualClock {
        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn wall(&self) -> Duration {
            self.monotonic()
        }

        fn sleep(&self, duration: Duration) {
            *self.0.lock().unwrap() += duration;
        }
    }

    #[test]
    fn bytes_take_as_long_as_the_bound_says() {
        let clock = Arc::new(ManualClock::default());
        let limiter = RateLimiter::new(1000, Arc::<ManualClock>::clone(&clock));
        for _ in 0..11 {
            limiter.spend(500);
        }
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
        RateLimiter::new(0, clock).spend(u64::MAX);
    }
}
