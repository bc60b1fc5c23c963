//! What leads for commits that no thread waits for: the signal to a thread that does nothing else.
//!
//! A committer that blocks leads its own frame. A commit behind a future has nobody, so whoever finds one that needs a frame or a
//! sync signals the driver, whose thread calls `CommitPipeline::lead` until nothing is left to lead. While it waits for the device,
//! commits gather in the next frame, so one thread is enough for any number of futures.
//!
//! Orderings: `pending` is exchanged with `AcqRel` on both sides. Who sets it has placed its commit before; who takes it looks for
//! work after, so no commit is left behind. The lock only puts the thread to sleep.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Wakes the driver thread, and tells it to stop.
#[derive(Debug, Default)]
pub(crate) struct DriverSignal {
    pending: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
}

impl DriverSignal {
    /// There may be something to lead. Costs one atomic exchange while the driver is busy.
    pub(crate) fn raise(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // Under the lock, so that the driver is either before its check or asleep.
            drop(self.lock());
            self.changed.notify_one();
        }
    }

    /// Waits until there may be something to lead. False when the driver should end.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.lock();
        while !self.pending.swap(false, Ordering::AcqRel) {
            if state.stopping {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Ends the driver once it has nothing to do.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn no_signal_is_lost_and_stop_ends_the_wait() {
        let signal = Arc::new(DriverSignal::default());
        let (placed, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let driver = std::thread::spawn({
            let (signal, placed, seen) = (signal.clone(), placed.clone(), seen.clone());
            move || {
                while signal.wait() {
                    seen.store(placed.load(Ordering::SeqCst), Ordering::SeqCst);
                }
            }
        });
        for number in 1..=20_000 {
            placed.store(number, Ordering::SeqCst);
            signal.raise();
            if number % 100 == 0 {
                while seen.load(Ordering::SeqCst) < number {
                    std::thread::yield_now();
                }
            }
        }
        signal.stop();
        driver.join().unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 20_000);
    }
}
