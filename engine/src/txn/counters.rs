//! How many transactions there were, and how they ended.
//!
//! Each thread counts for itself, and asking adds it all up.
//!
//! Orderings: relaxed. They are statistics, and nothing hangs on when one is seen.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ErrorKind;
use crate::stats::TransactionStats;
use crate::stripes::Striped;

/// Totals since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct TransactionCounters(Striped<Counters>);

#[derive(Debug, Default)]
struct Counters {
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
        count(&self.0.own().begun);
    }

    /// A transaction is over.
    pub(crate) fn ended(&self, committed: bool) {
        let own = self.0.own();
        count(if committed { &own.committed } else { &own.rolled_back });
    }

    /// A transaction has met an error of this kind.
    pub(crate) fn failed(&self, kind: ErrorKind) {
        let own = self.0.own();
        match kind {
            ErrorKind::Conflict => count(&own.conflicts),
            ErrorKind::LockTimeout => count(&own.lock_timeouts),
            ErrorKind::Deadlock => count(&own.deadlocks),
            _ => {}
        }
    }

    pub(crate) fn totals(&self) -> TransactionStats {
        let total = |of: fn(&Counters) -> &AtomicU64| {
            self.0.iter().map(|counters| of(counters).load(Ordering::Relaxed)).sum()
        };
        TransactionStats {
            begun: total(|it| &it.begun),
            committed: total(|it| &it.committed),
            rolled_back: total(|it| &it.rolled_back),
            conflicts: total(|it| &it.conflicts),
            lock_timeouts: total(|it| &it.lock_timeouts),
            deadlocks: total(|it| &it.deadlocks),
        }
    }
}
