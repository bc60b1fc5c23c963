//! A commit's place in the order of all writes, which it gets under the commit lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::batch::WriteBatch;
use crate::commit::log_writer::{LeadFrame, NewEntry, Placement};
use crate::commit::pipeline::{CommitPipeline, State};
use crate::commit::publish::{Ticket, Waiter};
use crate::commit::recent::{Admission, CommitCheck, Footprint};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Sequence;
use crate::limits::SEQUENCE_MAX;
use crate::memtable::Memtable;

/// How long a commit sleeps when too many are in flight: about what the device needs for one write.
const TICKET_NAP: Duration = Duration::from_micros(50);

/// A commit that has its place in the order.
pub(super) struct Enqueued {
    pub(super) ticket: Ticket,
    pub(super) first_sequence: Sequence,
    pub(super) last_sequence: Sequence,
    pub(super) memtable: Arc<Memtable>,
    pub(super) lead: Option<LeadFrame>,
    /// True if the commit waits for a frame or a sync that somebody must lead.
    pub(super) needs_leader: bool,
    /// True if the commit must see to a sync of stores, or to a frame that others are still expected to join.
    pub(super) must_lead: bool,
    /// True if no device stands between the commit and its publication.
    pub(super) briefly: bool,
}

/// A commit that wants its place in the order.
pub(super) struct Placing<'a> {
    pub(super) batch: &'a WriteBatch,
    pub(super) payload_hash: u64,
    pub(super) sync: bool,
    pub(super) waiter: Waiter,
    pub(super) index_generation: u64,
}

/// Why a commit could not be enqueued right now.
enum NotYet {
    /// The memtable is full and the flush is behind, or writers are held.
    Memory,
    /// Too many commits are in flight.
    Tickets,
}

impl CommitPipeline {
    /// Gives a commit its place once its condition holds, there is memory for it, and not too many are in flight.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), for what is known before anything is placed.
    pub(super) fn enqueue(
        &self,
        placing: &Placing<'_>,
        mut condition: Option<&mut dyn CommitCheck>,
    ) -> Result<Enqueued> {
        let batch = placing.batch;
        // Relaxed: a commit that does not see the flag yet sees the footprints under the lock.
        let mut footprint =
            self.keeps_footprints.load(Ordering::Relaxed).then(|| Footprint::of(batch));
        // Dropped after the lock.
        let mut _forgotten = None;
        let mut state = self.lock();
        loop {
            self.check_writable(&state)?;
            if state.index_generation != placing.index_generation {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "an index was created or dropped meanwhile; run it again",
                ));
            }
            if let Some(condition) = &mut condition
                && let Some(recent) = &mut state.recent
                && condition.admit(recent, self.publisher.visible())? == Admission::CatchUpFirst
            {
                drop(state);
                condition.catch_up()?;
                state = self.lock();
                continue;
            }
            match self.try_enqueue(&mut state, placing) {
                Ok(Ok(enqueued)) => {
                    if let Some(recent) = &mut state.recent {
                        let footprint = footprint.take().unwrap_or_else(|| Footprint::of(batch));
                        _forgotten =
                            recent.add(enqueued.last_sequence, footprint, self.publisher.visible());
                    }
                    return Ok(enqueued);
                }
                Err(error) => {
                    drop(state);
                    if error.kind() == ErrorKind::Poisoned {
                        // The manifest has failed for good. Commits that need nothing of it must not go on either.
                        self.fail(error.clone());
                    }
                    return Err(error);
                }
                Ok(Err(NotYet::Memory)) => state = self.wait_for_room(state)?,
                Ok(Err(NotYet::Tickets)) => {
                    drop(state);
                    // Whoever is in the way waits for the device, perhaps without a thread of its own: help.
                    if !self.lead() {
                        self.clock.sleep(TICKET_NAP);
                    }
                    state = self.lock();
                }
            }
        }
    }

    /// Places a commit that nothing speaks against: tickets, sequence numbers and the log move on together, or not at all.
    fn try_enqueue(
        &self,
        state: &mut State,
        placing: &Placing<'_>,
    ) -> Result<std::result::Result<Enqueued, NotYet>> {
        let &Placing { batch, payload_hash, sync, waiter, .. } = placing;
        if !self.publisher.has_room(state.next_ticket) {
            return Ok(Err(NotYet::Tickets));
        }
        if state.held {
            return Ok(Err(NotYet::Memory));
        }
        let Some(memtable) = self.memtable_with_room(state)? else {
            return Ok(Err(NotYet::Memory));
        };
        let (ticket, sequence) = (state.next_ticket, state.next_sequence);
        if sequence + u64::from(batch.count()) > SEQUENCE_MAX {
            return Err(Error::invalid("the database has used up its 2^56 sequence numbers"));
        }
        let (needs_lsn, crowd, must_lead, briefly, lead) = match &mut state.log {
            None => (0, ticket, false, true, None),
            Some(log) => {
                let entry = NewEntry {
                    payload: batch.bytes(),
                    payload_hash,
                    sequence,
                    count: batch.count(),
                    ticket,
                    sync,
                };
                let placement = log.place(&entry)?;
                if let Some((segment, offset)) = log.take_wanted_pages() {
                    self.ahead.ask_for_pages(segment, offset);
                }
                match placement {
                    Placement::Store(lsn) => {
                        (if sync { lsn } else { 0 }, ticket, sync, !sync, None)
                    }
                    Placement::Frame { end, first_ticket } => {
                        let leads = waiter == Waiter::Thread && log.may_lead();
                        let at_once = leads && self.gathering.is_complete();
                        let lead = if at_once { log.lead_frame() } else { None };
                        let must_lead = leads && !at_once && !self.gathering.is_held();
                        (end, first_ticket, must_lead, false, lead)
                    }
                }
            }
        };
        state.next_ticket += 1;
        state.next_sequence += u64::from(batch.count());
        let last_sequence = state.next_sequence - 1;
        self.publisher.enter(ticket, crowd, last_sequence, needs_lsn, waiter);
        Ok(Ok(Enqueued {
            ticket,
            first_sequence: sequence,
            last_sequence,
            memtable,
            lead,
            needs_leader: needs_lsn > 0,
            must_lead,
            briefly,
        }))
    }
}
