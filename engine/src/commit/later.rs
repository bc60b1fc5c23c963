//! Puts that return before their records can be found, because nobody looks.
//!
//! A small buffered batch is acknowledged when it is in the log, and its records are linked into the memtable while the next puts come
//! in (see `memtable::pending`). Nobody can tell: whoever is going to read takes the newest visible sequence number first, and finishes what
//! is pending before using that number. So everything up to a sequence number that a reader has is in its place.
//!
//! The order is what makes this true. A put is announced before its sequence number becomes visible; a reader loads that number first and
//! the announcement second. If it finds none, then somebody has finished the put meanwhile.
//!
//! A reader between puts does their work in a bunch and under a lock. So a thread that finds its puts finished makes the next ones at once,
//! and then tries again.
//!
//! Orderings: the announcement is stored with release and loaded with acquire, so that who finds it withdrawn sees the work done. It changes
//! rarely, and stands apart from what each put changes, because every reader looks at it.

#![forbid(unsafe_code)]

use crossbeam_utils::CachePadded;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Work that can be put off.
pub(crate) trait Work: Default {
    /// Whether nothing is left to do.
    fn is_done(&self) -> bool;

    /// Does all of it, if there is any.
    fn finish(&mut self);
}

/// What puts have left to do.
#[derive(Default)]
pub(crate) struct Later<W> {
    /// True if there may be something. Changed under the lock.
    announced: CachePadded<AtomicBool>,
    work: CachePadded<Mutex<W>>,
}

impl<W: Work> Later<W> {
    /// Adds work, if nobody else does that right now, and `add` wants to. False if not: then the put must be made at once. Whoever
    /// learns afterwards of something that the caller does afterwards, and then calls [`finish_any`](Self::finish_any), finds it done.
    ///
    /// # Errors
    /// Those of `add`.
    #[inline]
    pub(crate) fn add<E>(&self, add: impl FnOnce(&mut W) -> Result<bool, E>) -> Result<bool, E> {
        let Ok(mut work) = self.work.try_lock() else { return Ok(false) };
        let added = add(&mut work)?;
        if added && !work.is_done() && !self.announced.load(Ordering::Relaxed) {
            self.announced.store(true, Ordering::Release);
        }
        Ok(added)
    }

    /// Does what was left to do by puts that the caller knows of.
    #[inline]
    pub(crate) fn finish_any(&self) {
        if self.announced.load(Ordering::Acquire) {
            self.finish();
        }
    }

    #[cold]
    fn finish(&self) {
        // A panic while work was added left it as it was before or after a step of it, and each step is whole.
        let mut work = self.work.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        work.finish();
        self.announced.store(false, Ordering::Release);
    }
}
