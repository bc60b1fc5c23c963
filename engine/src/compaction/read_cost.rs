//! What level 0 costs readers, and when that is enough to merge it away although no writer needs that.
//!
//! Every run of level 0 is one more filter to ask, one more place to seek to, one more source to merge. A database that was just loaded
//! keeps some for as long as nobody writes to it. So readers pay for what these runs cost them, in estimated nanoseconds, and
//! when as much has come together as merging the runs away costs, it is done. Whatever the readers do, they never lose much more
//! than they would have, had somebody known the future. (The ski rental problem: Karlin et al., "Competitive snoopy caching",
//! 1988. LevelDB's compactions by seeks follow the same thought.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::core::Signals;

/// A lookup asks one more filter, and finds one more table.
const LOOKUP_NANOS: u64 = 45;

/// A cursor seeks in one more run.
const SEEK_NANOS: u64 = 1000;

/// A cursor goes on in another source than the one it was in.
const SWITCH_NANOS: u64 = 30;

/// Of this many lookups one pays, for all of them: so they hardly ever touch what all threads share.
const LOOKUPS_SAMPLED: u64 = 64;

/// Merging takes 1.7 ns a byte of wall time.
pub(super) const MERGED_BYTES_A_MICRO: u64 = 600;

/// It is done in the background and while other processors are idle: to readers it is worth more than to whoever waits for the merge.
const BYTES_A_NANO: u64 = 2;

/// There is nothing to merge.
const NEVER: u64 = u64::MAX;

/// What readers have paid, and the price. Relaxed: estimates, which order nothing.
#[derive(Debug)]
pub(crate) struct ReadCost {
    paid: AtomicU64,
    price: AtomicU64,
    signals: Arc<Signals>,
}

impl ReadCost {
    /// Wakes background threads by `signals` when the price is paid.
    pub(crate) fn new(signals: &Arc<Signals>) -> Self {
        let price = AtomicU64::new(NEVER);
        Self { paid: AtomicU64::new(0), price, signals: Arc::clone(signals) }
    }

    /// Merging would take this many bytes; `None` if nothing can be merged.
    pub(crate) fn set_bytes(&self, bytes: Option<u64>) {
        self.price.store(bytes.map_or(NEVER, |bytes| bytes / BYTES_A_NANO), Relaxed);
        if bytes.is_none() {
            self.reset();
        }
    }

    /// Whether the price is paid.
    pub(crate) fn is_paid(&self) -> bool {
        self.paid.load(Relaxed) >= self.price.load(Relaxed)
    }

    /// The merge that was paid for begins.
    pub(crate) fn reset(&self) {
        self.paid.store(0, Relaxed);
    }

    fn pay(&self, nanos: u64) {
        let price = self.price.load(Relaxed);
        if price != NEVER && nanos > 0 {
            let before = self.paid.fetch_add(nanos, Relaxed);
            if before < price && before.saturating_add(nanos) >= price {
                self.signals.wake();
            }
        }
    }

    /// A lookup of a key with this hash has met `runs` runs of level 0.
    #[inline]
    pub(crate) fn looked_up(&self, hash: u64, runs: usize) {
        if hash.is_multiple_of(LOOKUPS_SAMPLED) && runs > 0 {
            self.pay(LOOKUPS_SAMPLED * LOOKUP_NANOS * runs as u64);
        }
    }

    /// A cursor has searched `runs` runs of level 0 `seeks` times, and changed its source `switches` times.
    pub(crate) fn walked(&self, runs: usize, seeks: u64, switches: u64) {
        self.pay(SEEK_NANOS * runs as u64 * seeks + SWITCH_NANOS * switches);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_that_have_paid_the_price_wake_the_background_once() {
        let signals = Arc::new(Signals::default());
        let cost = ReadCost::new(&signals);
        cost.walked(3, 1_000_000, 0);
        assert!(!cost.is_paid(), "there is nothing to merge");
        cost.set_bytes(Some(1_000_000));
        let before = signals.generation();
        cost.walked(1, 499, 33);
        assert!(!cost.is_paid());
        assert_eq!(signals.generation(), before);
        cost.walked(0, 0, 1);
        cost.looked_up(0, 3);
        assert!(cost.is_paid());
        assert_eq!(signals.generation(), before + 1);
        cost.reset();
        assert!(!cost.is_paid());
        cost.looked_up(LOOKUPS_SAMPLED, 200);
        assert!(cost.is_paid());
        cost.set_bytes(None);
        assert!(!cost.is_paid(), "it was merged away");
    }

    #[test]
    fn few_lookups_pay_and_they_pay_for_all() {
        let cost = ReadCost::new(&Arc::new(Signals::default()));
        cost.set_bytes(Some(u64::MAX / 2));
        (0..64 * 1000).for_each(|hash| cost.looked_up(hash, 2));
        assert_eq!(cost.paid.load(Relaxed), 64 * 1000 * 2 * LOOKUP_NANOS);
    }
}
