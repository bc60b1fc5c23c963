//! Commits of finished tables: writers wait, memory is empty, one sequence number goes into the manifest.

use std::sync::PoisonError;

use crate::commit::pipeline::CommitPipeline;
use crate::commit::publish::Waiter;
use crate::commit::recent::Footprint;
use crate::error::{Error, Result};
use crate::key::Sequence;
use crate::limits::SEQUENCE_MAX;
use crate::wal::Lsn;

/// Keeps writers waiting until dropped.
struct Hold<'a>(&'a CommitPipeline);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.lock().held = false;
        self.0.room.notify_all();
    }
}

impl CommitPipeline {
    /// Commits tables: `install` makes them durable and part of the current version, as records with the sequence number that it gets.
    /// Gives that number, once it is visible.
    ///
    /// The log never has an entry with this number. Nothing is in memory when it is given out, so the log below its end, which
    /// `install` gets too, is not needed any more. The edit of `install` must say both: recovery begins at that end, and expects the
    /// number that comes next.
    ///
    /// Transactions are checked against `footprint` as against that of any commit.
    ///
    /// # Errors
    /// As for a write; those of flushing; and that of `install`, which must have refused later writes if it does not know whether
    /// the edit is in the manifest.
    pub(crate) fn commit_tables(
        &self,
        footprint: Footprint,
        install: impl FnOnce(Sequence, Lsn) -> Result<()>,
    ) -> Result<Sequence> {
        let hold = self.hold()?;
        let up_to = self.freeze_active()?;
        let (log_end, sequence, _) = self.log_position();
        if !self.wait_visible(sequence - 1) {
            return Err(self.failure().map_or_else(
                || Error::internal("a commit is neither visible nor failed"),
                Error::poisoned,
            ));
        }
        self.wait_until_flushed(up_to)?;
        if sequence >= SEQUENCE_MAX {
            return Err(Error::invalid("the database has used up its 2^56 sequence numbers"));
        }
        install(sequence, log_end)?;
        let ticket = loop {
            let mut state = self.lock();
            // Every ticket is published; at most somebody is still waking its owner.
            if self.publisher.has_room(state.next_ticket) {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.next_sequence += 1;
                self.publisher.enter(ticket, ticket, sequence, 0, Waiter::Thread);
                if let Some(recent) = &mut state.recent {
                    recent.add(sequence, footprint, self.publisher.visible());
                }
                break ticket;
            }
            drop(state);
            std::thread::yield_now();
        };
        self.publisher.applied(ticket);
        self.publisher.ensure_visible(sequence);
        drop(hold);
        Ok(sequence)
    }

    /// Makes writers wait. One holds at a time.
    fn hold(&self) -> Result<Hold<'_>> {
        let mut state = self.lock();
        loop {
            self.check_writable(&state)?;
            if !state.held {
                state.held = true;
                return Ok(Hold(self));
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
