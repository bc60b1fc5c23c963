//! How long a write is held back so that compaction keeps up: smoothly, and never to a full stop by itself.
//!
//! Between the slowdown and the stop trigger (runs in level 0, or compaction debt in bytes), each written byte costs a delay that grows
//! with the square of the pressure, up to [`NANOS_PER_BYTE_MAX`]. Past the stop trigger the delay stays there. Background work
//! publishes the price whenever the tree changes; writers add up what they owe and sleep it off in pieces worth a timer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The delay at full pressure: 1 MB/s.
const NANOS_PER_BYTE_MAX: f64 = 1000.0;

/// Owed delays are slept off in pieces of at least this.
const NAP_NANOS_MIN: u64 = 500_000;

/// What makes writes slow down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Overlapping runs in level 0.
    pub(crate) l0_runs: usize,
    /// Bytes above the levels' targets.
    pub(crate) debt_bytes: u64,
}

/// When delays begin and where they are largest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) l0_slowdown: usize,
    pub(crate) l0_stop: usize,
    pub(crate) debt_slowdown: u64,
    pub(crate) debt_stop: u64,
}

/// The price of a written byte, in 1/1024 nanoseconds.
fn price(pressure: Pressure, limits: Limits) -> u64 {
    let share = |value: f64, low: f64, high: f64| ((value - low) / (high - low)).clamp(0.0, 1.0);
    let l0 = share(pressure.l0_runs as f64, limits.l0_slowdown as f64, limits.l0_stop as f64);
    let debt =
        share(pressure.debt_bytes as f64, limits.debt_slowdown as f64, limits.debt_stop as f64);
    let worst = l0.max(debt);
    (worst * worst * NANOS_PER_BYTE_MAX * 1024.0) as u64
}

/// The current price and what is owed.
#[derive(Debug)]
pub(crate) struct Stall {
    limits: Limits,
    price: AtomicU64,
    owed_nanos: AtomicU64,
    stalled_nanos: AtomicU64,
}

impl Stall {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            price: AtomicU64::new(0),
            owed_nanos: AtomicU64::new(0),
            stalled_nanos: AtomicU64::new(0),
        }
    }

    /// Sets the price after the tree has changed.
    pub(crate) fn set(&self, pressure: Pressure) {
        self.price.store(price(pressure, self.limits), Ordering::Relaxed);
    }

    /// How long the writer of `bytes` should sleep now, if at all.
    #[inline]
    pub(crate) fn nap(&self, bytes: usize) -> Option<Duration> {
        let price = self.price.load(Ordering::Relaxed);
        if price == 0 {
            return None;
        }
        let nanos = (bytes as u64).saturating_mul(price) / 1024;
        let owed = self.owed_nanos.fetch_add(nanos, Ordering::Relaxed) + nanos;
        if owed < NAP_NANOS_MIN {
            return None;
        }
        let nap = self.owed_nanos.swap(0, Ordering::Relaxed).min(1_000_000_000);
        self.stalled_nanos.fetch_add(nap, Ordering::Relaxed);
        (nap > 0).then(|| Duration::from_nanos(nap))
    }

    /// Adds a wait that was not a nap, for the statistics.
    pub(crate) fn waited(&self, time: Duration) {
        self.stalled_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Time that writers were held back, over all threads.
    pub(crate) fn stalled(&self) -> Duration {
        Duration::from_nanos(self.stalled_nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { l0_slowdown: 10, l0_stop: 20, debt_slowdown: 1000, debt_stop: 2000 };

    #[test]
    fn the_price_grows_smoothly_from_zero_to_the_maximum_and_stays_there() {
        let at = |l0_runs, debt_bytes| price(Pressure { l0_runs, debt_bytes }, LIMITS);
        assert_eq!(at(10, 1000), 0);
        let prices: Vec<u64> = (10..=20).map(|runs| at(runs, 0)).collect();
        assert!(prices.windows(2).all(|pair| pair[0] < pair[1]), "{prices:?}");
        assert_eq!(at(20, 0), 1_024_000);
        assert_eq!(at(500, 0), 1_024_000);
        assert_eq!(at(0, 1500), at(15, 0));
    }

    #[test]
    fn small_debts_add_up_before_anybody_sleeps() {
        let stall = Stall::new(LIMITS);
        assert_eq!(stall.nap(1 << 20), None);
        stall.set(Pressure { l0_runs: 20, debt_bytes: 0 });
        let naps: Vec<_> = (0..10).filter_map(|_| stall.nap(100)).collect();
        assert_eq!(naps, vec![Duration::from_micros(500), Duration::from_micros(500)]);
    }
}
