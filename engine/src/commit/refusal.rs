//! When no write is accepted any more: after a failure, at the end, and in a database that is only read.

use std::sync::PoisonError;

use crate::commit::pipeline::{CommitPipeline, State};
use crate::error::{Error, ErrorKind, Result};
use crate::wal::Lsn;
use crate::wal::segment::SegmentFile;

impl CommitPipeline {
    /// Why a write would be refused now, as an error. Asked under the commit lock by each.
    #[inline]
    pub(super) fn check_writable(&self, state: &State) -> Result<()> {
        if let Some(first) = self.poison.get() {
            return Err(Error::poisoned(first));
        }
        state.refusal.clone().map_or(Ok(()), Err)
    }

    /// Refuses all later writes. The first cause stays.
    pub(crate) fn fail(&self, error: Error) {
        tracing::error!(%error, "writes are refused until the database is reopened");
        let _ = self.poison.set(error);
        let next = self.lock().next_ticket;
        self.publisher.fail(next);
        self.room.notify_all();
    }

    /// The error that stopped writes, if one did.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.poison.get()
    }

    /// Refuses later writes because the database is closing, and waits for those under way.
    pub(crate) fn close(&self) {
        let last = {
            let mut state = self.lock();
            state.refusal = Some(Error::new(ErrorKind::Closed, "the database is closed"));
            while state.held {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.next_sequence - 1
        };
        self.wait_visible(last);
    }

    /// Gives up the log's segments at close, as far as their data is in tables.
    pub(crate) fn release_log(&self, flushed_up_to: Lsn) -> Vec<SegmentFile> {
        let mut state = self.lock();
        state.log.as_mut().map(|log| log.release_all(flushed_up_to)).unwrap_or_default()
    }
}
