//! Lets a flush go before compactions where processors are few.
//!
//! Writers wait for flushes. Where a flush, the compactions and one writer are more threads than there are processors, the system has
//! them take turns, and the writer finds itself without a processor for several milliseconds at a time, however low the priority of the
//! others is. So compactions pause while a flush runs there. They are not put off for ever: after some patience they do a share of
//! their work whatever else is going on.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a compaction waits for one flush.
const PATIENCE: Duration = Duration::from_millis(500);

/// Looks that a compaction does not give way at after its patience was used up.
const UNDISTURBED: u32 = 64;

/// Processors that this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Whether a flush is running, and who waits for its end.
#[derive(Debug)]
pub(crate) struct Precedence {
    /// True if a flush and the compactions leave no processor to a writer.
    crowded: bool,
    /// Relaxed: a look that misses a change is followed by another soon.
    flushing: AtomicBool,
    ended: (Mutex<()>, Condvar),
}

/// A flush goes first until this is dropped.
#[derive(Debug)]
pub(crate) struct FlushGuard<'a>(&'a Precedence);

/// How one thread of a compaction gives way.
#[derive(Debug, Default)]
pub(crate) struct Manners {
    undisturbed: u32,
}

impl Precedence {
    /// For a database with that many threads for compactions.
    pub(crate) fn new(compaction_threads: usize, processors: usize) -> Self {
        Self {
            crowded: processors < compaction_threads.saturating_add(2),
            flushing: AtomicBool::new(false),
            ended: Default::default(),
        }
    }

    /// A flush begins.
    pub(crate) fn flush(&self) -> FlushGuard<'_> {
        self.flushing.store(true, Ordering::Relaxed);
        FlushGuard(self)
    }

    /// Waits while a flush is running, but not for ever.
    pub(crate) fn give_way(&self, manners: &mut Manners) {
        if !self.crowded || !self.flushing.load(Ordering::Relaxed) {
            return;
        }
        if manners.undisturbed > 0 {
            manners.undisturbed -= 1;
            return;
        }
        let (lock, ended) = &self.ended;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let flushing = |(): &mut ()| self.flushing.load(Ordering::Relaxed);
        let (_guard, waited) = ended
            .wait_timeout_while(guard, PATIENCE, flushing)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            manners.undisturbed = UNDISTURBED;
        }
    }
}

impl Drop for FlushGuard<'_> {
    fn drop(&mut self) {
        let (lock, ended) = &self.0.ended;
        // Under the lock, so that nobody looks at the flag before and waits after.
        let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.flushing.store(false, Ordering::Relaxed);
        ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Steps that a compaction does beside a flush, and after it.
    fn steps_beside_and_after(precedence: &Precedence) -> (u64, u64) {
        let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let flush = precedence.flush();
            scope.spawn(|| {
                let mut manners = Manners::default();
                while !stop.load(Ordering::Relaxed) {
                    precedence.give_way(&mut manners);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
            let wait = |from: u64, most: u32| {
                for _ in 0..most {
                    if done.load(Ordering::Relaxed) > from {
                        return;
                    }
                    let nothing = (Mutex::new(()), Condvar::new());
                    let guard = nothing.0.lock().unwrap();
                    drop(nothing.1.wait_timeout(guard, Duration::from_millis(1)).unwrap());
                }
            };
            wait(0, 100);
            let beside = done.load(Ordering::Relaxed);
            drop(flush);
            wait(beside, 20_000);
            let after = done.load(Ordering::Relaxed) - beside;
            stop.store(true, Ordering::Relaxed);
            (beside, after)
        })
    }

    #[test]
    fn compactions_pause_beside_a_flush_only_where_processors_are_few() {
        let (beside, after) = steps_beside_and_after(&Precedence::new(1, 2));
        assert_eq!(beside, 0);
        assert!(after > 0);
        assert!(steps_beside_and_after(&Precedence::new(2, 4)).0 > 0);
    }

    #[test]
    fn an_endless_flush_does_not_stop_compactions_for_good() {
        let precedence = Precedence::new(1, 1);
        let _flush = precedence.flush();
        let mut manners = Manners::default();
        for _ in 0..=UNDISTURBED {
            precedence.give_way(&mut manners);
        }
        assert_eq!(manners.undisturbed, 0, "one wait, and then a share of the work");
    }
}
