//! How many transactions there were, and how they ended.
//!
//! Orderings: relaxed. They are statistics, and nothing hangs on when one is seen.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ErrorKind;
use crate::stats::TransactionStats;

/// Totals since the database was opened. Every transaction counts twice here, so they have a cache line for themselves.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct TransactionCounters {
    begun: AtomicU64,
    committed: AtomicU64,
    rolled_back: AtomicU64,
    conflicts: AtomicU64,
    lock_timeouts: AtomicU64,
    deadlocks: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl TransactionCounters {
    pub(crate) fn began(&self) {
        count(&self.begun);
    }

    /// A transaction is over.
    pub(crate) fn ended(&self, committed: bool) {
        count(if committed { &self.committed } else { &self.rolled_back });
    }

    /// A transaction has met an error of this kind.
    pub(crate) fn failed(&self, kind: ErrorKind) {
        match kind {
            ErrorKind::Conflict => count(&self.conflicts),
            ErrorKind::LockTimeout => count(&self.lock_timeouts),
            ErrorKind::Deadlock => count(&self.deadlocks),
            _ => {}
        }
    }

    pub(crate) fn totals(&self) -> TransactionStats {
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransactionStats {
            begun: total(&self.begun),
            committed: total(&self.committed),
            rolled_back: total(&self.rolled_back),
            conflicts: total(&self.conflicts),
            lock_timeouts: total(&self.lock_timeouts),
            deadlocks: total(&self.deadlocks),
        }
    }
}
