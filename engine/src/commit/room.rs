//! Room in memory: full memtables are replaced, and writers wait for flushes if there are too many.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::commit::log_writer::LogWriter;
use crate::commit::pipeline::{CommitPipeline, State, StateGuard};
use crate::error::{Error, Result};
use crate::key::Sequence;
use crate::memtable::Memtable;
use crate::read::view::{FrozenMemtable, View};
use crate::wal::Lsn;
use crate::wal::segment::SegmentFile;

/// A memtable with this many range tombstones is flushed: looking them up costs memory and time that only tables bound.
const RANGE_TOMBSTONES_MAX: usize = 10_000;

impl CommitPipeline {
    /// The active memtable, after replacing a full one. `None` if that would exceed the bound on memtables.
    #[inline]
    pub(super) fn memtable_with_room(&self, state: &mut State) -> Result<Option<Arc<Memtable>>> {
        let (active, frozen) =
            self.views.with(|view| (Arc::clone(&view.active), view.frozen.len()));
        let log_behind = state
            .log
            .as_ref()
            .is_some_and(|log| log.bytes_since(state.memtable_begin) > self.limits.log_bytes_max);
        let full = active.memory_usage() >= self.limits.memtable_bytes
            || active.range_tombstone_count() >= RANGE_TOMBSTONES_MAX
            || log_behind;
        if !full || active.is_empty() {
            return Ok(Some(active));
        }
        if frozen + 2 > self.limits.memtables_max {
            return Ok(None);
        }
        self.freeze(state).map(Some)
    }

    /// Replaces the active memtable by a new one, which is returned.
    fn freeze(&self, state: &mut State) -> Result<Arc<Memtable>> {
        let next = Arc::new(self.memtables.make()?);
        let log_end = state.log.as_ref().map_or(0, LogWriter::end);
        let last_sequence = state.next_sequence - 1;
        state.memtable_begin = log_end;
        self.views.update(|view| {
            let frozen =
                FrozenMemtable { memtable: Arc::clone(&view.active), last_sequence, log_end };
            let all = std::iter::once(Arc::new(frozen)).chain(view.frozen.iter().cloned());
            view.with_memtables(Arc::clone(&next), all.collect())
        });
        (self.wake_background)();
        Ok(next)
    }

    /// Waits until a flush is done or has failed; whoever waited looks again whether there is room.
    ///
    /// # Errors
    /// Why the last flush failed, if it did.
    pub(super) fn wait_for_room<'a>(&self, state: StateGuard<'a>) -> Result<StateGuard<'a>> {
        if let Some(error) = &*self.flush_error.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.clone().context("memory is full and flushing it fails"));
        }
        let begun = self.clock.monotonic();
        // The timeout only matters if a background thread died without a word.
        let (state, _) = self
            .room
            .wait_timeout(state, Duration::from_millis(100))
            .unwrap_or_else(PoisonError::into_inner);
        self.stall.waited(self.clock.monotonic().saturating_sub(begun));
        Ok(state)
    }

    /// Freezes the active memtable if it holds anything that was there before the call, so that a flush will write it. Gives the newest
    /// sequence number of the newest memtable that [`wait_until_flushed`](Self::wait_until_flushed) has to wait for.
    ///
    /// # Errors
    /// As for a write that finds memory full.
    pub(crate) fn freeze_active(&self) -> Result<Sequence> {
        let mut state = self.lock();
        let last = state.next_sequence - 1;
        loop {
            let (active, frozen, holder) = self.views.with(|view| {
                let mut oldest_first = view.frozen.iter().rev().map(|frozen| frozen.last_sequence);
                let holder = oldest_first.find(|&newest| newest >= last);
                (Arc::clone(&view.active), view.frozen.len(), holder)
            });
            // A writer has frozen it, perhaps while this call waited, and perhaps with more in it.
            if let Some(newest) = holder {
                return Ok(newest);
            }
            if active.is_empty() {
                return Ok(last);
            }
            if let Some(first) = self.poison.get() {
                return Err(Error::poisoned(first));
            }
            if frozen + 2 <= self.limits.memtables_max {
                self.freeze(&mut state)?;
                return Ok(state.next_sequence - 1);
            }
            state = self.wait_for_room(state)?;
        }
    }

    /// Waits until every memtable is flushed whose newest sequence number is at most `up_to`. What writers freeze meanwhile does not
    /// count, or this would never end while they are quick.
    pub(crate) fn wait_until_flushed(&self, up_to: Sequence) -> Result<()> {
        let mut state = self.lock();
        let is_waiting = |view: &Arc<View>| {
            view.frozen.last().is_some_and(|oldest| oldest.last_sequence <= up_to)
        };
        while self.views.with(is_waiting) {
            if let Some(first) = self.poison.get() {
                return Err(Error::poisoned(first));
            }
            state = self.wait_for_room(state)?;
        }
        Ok(())
    }

    /// Says that every entry below `log_end` is in tables. Gives the log segments that nobody needs any more.
    pub(crate) fn flushed(&self, log_end: Lsn) -> Vec<SegmentFile> {
        let mut state = self.lock();
        *self.flush_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.room.notify_all();
        state.log.as_mut().map(|log| log.release_below(log_end)).unwrap_or_default()
    }

    /// Says that flushing failed and will be tried again.
    pub(crate) fn flush_failed(&self, error: Error) {
        let _state = self.lock();
        *self.flush_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.room.notify_all();
    }
}
