//! One `fdatasync` for all who wait.
//!
//! A caller needs a flush that *begins* after its own write ended. While one flush runs, everybody
//! who comes waits for the next; one of them runs it for all. So concurrent committers share
//! flushes, and no flush is started that nobody needs.
//!
//! An error sticks to the segment and goes to every later caller. The kernel tells a write-back
//! error once per open file, to whichever `fdatasync` asks first; a second call would succeed
//! although the data is gone. Flushing one at a time, and remembering, makes sure that nobody is
//! told so.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// The flushes of one file.
#[derive(Debug, Default)]
pub(super) struct FlushGroup {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Flushes begun and flushes ended; they differ by one while one runs.
    begun: u64,
    ended: u64,
    failure: Option<Errno>,
}

impl FlushGroup {
    /// Returns when a flush has succeeded that began after this call; `run` is the flush.
    pub(super) fn flush(
        &self,
        run: impl Fn() -> std::result::Result<(), Errno>,
    ) -> std::result::Result<(), Errno> {
        let mut state = self.lock();
        let needed = state.begun + 1;
        loop {
            if let Some(errno) = state.failure {
                return Err(errno);
            }
            if state.ended >= needed {
                return Ok(());
            }
            if state.begun > state.ended {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.begun += 1;
            drop(state);
            let result = run();
            state = self.lock();
            state.ended = state.begun;
            state.failure = result.err();
            self.ended.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn every_caller_gets_a_flush_that_began_after_its_write() {
        let group = FlushGroup::default();
        let (written, flushed) = (AtomicU64::new(0), AtomicU64::new(0));
        let flushes = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mine = written.fetch_add(1, Ordering::SeqCst) + 1;
                        let flush = || {
                            let seen = written.load(Ordering::SeqCst);
                            flushes.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            flushed.store(seen, Ordering::SeqCst);
                            Ok(())
                        };
                        group.flush(flush).unwrap();
                        assert!(flushed.load(Ordering::SeqCst) >= mine);
                    }
                });
            }
        });
        assert!(flushes.load(Ordering::SeqCst) <= 1600, "never more flushes than callers");
    }

    #[test]
    fn a_failure_sticks_even_if_the_next_flush_would_succeed() {
        let group = FlushGroup::default();
        assert_eq!(group.flush(|| Err(Errno::IO)), Err(Errno::IO));
        assert_eq!(group.flush(|| Ok(())), Err(Errno::IO));
    }
}
