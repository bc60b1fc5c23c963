//! `CommitPipeline`: the numbered stages of `commit/mod.rs`, as code.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use rustlite_io::Clock;

use crate::batch::WriteBatch;
use crate::commit::ahead::Ahead;
use crate::commit::apply::apply;
use crate::commit::driver::DriverSignal;
use crate::commit::enqueue::{Enqueued, Placing};
use crate::commit::gather::Gathering;
use crate::commit::later::Later;
use crate::commit::log_writer::LogWriter;
use crate::commit::publish::{Publisher, Ticket, Waiter, Wake};
use crate::commit::recent::{CommitCheck, RecentWrites};
use crate::commit::stall::Stall;
use crate::error::{Error, Result};
use crate::key::Sequence;
use crate::kinds::Rules;
use crate::memtable::MemtableMaker;
use crate::memtable::approaches::Approaches;
use crate::memtable::pending::PendingPuts;
use crate::options::Durability;
use crate::read::view::ViewCell;
use crate::wal::Lsn;
use crate::wal::entry::payload_hash;

/// Attempts to get the commit lock at once, and those after which the processor is given up, before a thread sleeps for it.
const LOCK_SPINS: u32 = 64;
const LOCK_YIELDS: u32 = 16;

/// Who waits until something is visible yields so often, then looks again each time after a nap.
const VISIBLE_YIELDS: u32 = 8;
const VISIBLE_NAP: Duration = Duration::from_micros(50);

/// Sizes that the pipeline acts on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitLimits {
    pub(crate) memtable_bytes: usize,
    pub(crate) memtables_max: usize,
    pub(crate) log_bytes_max: u64,
    pub(crate) footprint_bytes_max: usize,
}

/// What a commit asks for.
#[derive(Default)]
pub(crate) struct CommitTerms<'c> {
    pub(crate) durability: Durability,
    /// Must hold at the moment when the commit gets its place in the order.
    pub(crate) condition: Option<&'c mut dyn CommitCheck>,
    /// The set of indexes that the batch was made for; see `index::registry`.
    pub(crate) index_generation: u64,
    /// Searches for the batch's places in the memtable that have begun: they go on between the other things that a commit does.
    pub(crate) ahead: Option<&'c mut Approaches>,
}

/// The one write path.
pub(crate) struct CommitPipeline {
    pub(super) publisher: Publisher,
    /// The lock, and on cache lines of its own, where those who wait for it don't take them from its holder, what it protects.
    state: CachePadded<Mutex<CachePadded<State>>>,
    pub(super) views: Arc<ViewCell>,
    pub(super) memtables: MemtableMaker,
    pub(super) limits: CommitLimits,
    pub(super) stall: Stall,
    pub(super) clock: Arc<dyn Clock>,
    rules: Arc<Rules>,
    pub(super) poison: OnceLock<Error>,
    /// Set, under the commit lock, when the first transaction begins; never reset. Who reads it too early finds out under the lock.
    pub(super) keeps_footprints: AtomicBool,
    /// Why flushes cannot make room at the moment (a full disk, say). Writers that would have to wait get it instead.
    pub(super) flush_error: Mutex<Option<Error>>,
    /// Signalled with the commit lock when a memtable was flushed or flushing failed.
    pub(super) room: Condvar,
    /// Called (under the commit lock) when there is a memtable to flush or a segment to prepare.
    pub(super) wake_background: Box<dyn Fn() + Send + Sync>,
    /// Wakes the thread that leads for commits behind futures.
    pub(super) driver: DriverSignal,
    pub(super) gathering: Arc<Gathering>,
    pub(super) ahead: Ahead,
    /// Puts that nobody has looked for yet.
    later: Later<PendingPuts>,
}

/// What holds the commit lock.
pub(super) type StateGuard<'a> = MutexGuard<'a, CachePadded<State>>;

pub(super) struct State {
    pub(super) next_sequence: Sequence,
    pub(super) next_ticket: Ticket,
    pub(super) log: Option<LogWriter>,
    /// Where the log stood when the active memtable was begun.
    pub(super) memtable_begin: Lsn,
    /// Why no write is accepted, if the database is closed or read-only.
    pub(super) refusal: Option<Error>,
    /// The set of indexes in force.
    pub(super) index_generation: u64,
    /// Footprints of the newest commits, once a transaction has begun.
    pub(super) recent: Option<RecentWrites>,
    /// True while tables are committed: writers wait.
    pub(super) held: bool,
}

/// What the pipeline starts from.
pub(crate) struct CommitStart {
    pub(crate) next_sequence: Sequence,
    pub(crate) log: Option<LogWriter>,
    pub(crate) views: Arc<ViewCell>,
    pub(crate) memtables: MemtableMaker,
    pub(crate) limits: CommitLimits,
    pub(crate) stall: Stall,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) wake_background: Box<dyn Fn() + Send + Sync>,
    /// Where the log stood when the active memtable was begun.
    pub(crate) memtable_begin: Lsn,
    pub(crate) refusal: Option<Error>,
    pub(crate) index_generation: u64,
}

impl CommitPipeline {
    pub(crate) fn new(start: CommitStart) -> Self {
        let durable = start.log.as_ref().map_or(Lsn::MAX, LogWriter::end);
        let gathering = start.log.as_ref().map(|log| Arc::clone(log.gathering()));
        Self {
            publisher: Publisher::new(start.next_sequence - 1, durable),
            state: CachePadded::new(Mutex::new(CachePadded::new(State {
                next_sequence: start.next_sequence,
                next_ticket: 0,
                log: start.log,
                memtable_begin: start.memtable_begin,
                refusal: start.refusal,
                index_generation: start.index_generation,
                recent: None,
                held: false,
            }))),
            views: start.views,
            memtables: start.memtables,
            limits: start.limits,
            stall: start.stall,
            clock: start.clock,
            rules: start.rules,
            poison: OnceLock::new(),
            keeps_footprints: AtomicBool::new(false),
            flush_error: Mutex::new(None),
            room: Condvar::new(),
            wake_background: start.wake_background,
            driver: DriverSignal::default(),
            gathering: gathering.unwrap_or_default(),
            ahead: Ahead::default(),
            later: Later::default(),
        }
    }

    /// The lock is held for less than a microsecond, unless its holder has lost its processor: then yielding may give it back, and costs less than sleeping
    /// and being woken up.
    pub(super) fn lock(&self) -> StateGuard<'_> {
        for round in 0..LOCK_SPINS + LOCK_YIELDS {
            match self.state.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if round < LOCK_SPINS => std::hint::spin_loop(),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where memtables come from.
    pub(crate) fn memtables(&self) -> &MemtableMaker {
        &self.memtables
    }

    /// The newest sequence number that readers see. Everything up to it is in its place in the memtables.
    #[inline]
    pub(crate) fn visible(&self) -> Sequence {
        let visible = self.publisher.visible();
        self.later.finish_any();
        visible
    }

    pub(crate) fn stall(&self) -> &Stall {
        &self.stall
    }

    /// The notes for the thread that prepares what commits need.
    pub(crate) fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// Makes ready what commits are about to need, until [`Ahead::stop`] is called.
    pub(crate) fn run_ahead(&self) {
        self.ahead.run(&self.memtables);
    }

    /// Commits a batch, if its condition holds at the moment when it gets its place in the order. When this returns, the batch is visible
    /// and as durable as asked. Gives the sequence number of its last record; 0 for an empty batch, which is nothing.
    ///
    /// # Errors
    /// The batch's own, and the condition's; `Conflict` if the set of indexes is not the one that the batch was made for; `Poisoned`, `Closed`, `DiskFull`, I/O. After an I/O error it is unknown whether the batch
    /// will be there after reopening.
    pub(crate) fn commit(&self, batch: &WriteBatch, terms: CommitTerms<'_>) -> Result<Sequence> {
        let Some(mut commit) = self.place(batch, Waiter::Thread, terms)? else {
            return Ok(0);
        };
        if let Some(frame) = commit.lead.take() {
            self.finish_frame(frame);
        }
        if commit.must_lead {
            self.lead();
        }
        self.settle(&commit)?;
        self.publisher.ensure_visible(commit.last_sequence);
        Ok(commit.last_sequence)
    }

    /// Starts to commit a batch and does not wait for the device: gives the ticket and the last sequence number to poll for, or
    /// `None` for an empty batch. Blocks only where memory or the ring of tickets are full.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), for what is known before the device has answered.
    pub(crate) fn commit_later(
        &self,
        batch: &WriteBatch,
        terms: CommitTerms<'_>,
    ) -> Result<Option<(Ticket, Sequence)>> {
        let placed = self.place(batch, Waiter::Future, terms)?;
        Ok(placed.map(|commit| {
            if commit.needs_leader {
                self.driver.raise();
            }
            (commit.ticket, commit.last_sequence)
        }))
    }

    /// Whether a commit that nobody waits for is done.
    pub(crate) fn poll_commit(
        &self,
        ticket: Ticket,
        last_sequence: Sequence,
        context: &Context<'_>,
    ) -> Poll<Result<()>> {
        self.publisher.poll_settled(ticket, context).map(|()| {
            self.result_of(ticket)?;
            self.publisher.ensure_visible(last_sequence);
            Ok(())
        })
    }

    /// Stages 1 to 4: the batch gets its place, is on its way to the device if this commit leads, and is in the memtable.
    fn place(
        &self,
        batch: &WriteBatch,
        waiter: Waiter,
        terms: CommitTerms<'_>,
    ) -> Result<Option<Enqueued>> {
        batch.check()?;
        if batch.is_empty() {
            return Ok(None);
        }
        let batch = &*self.rules.complete(batch)?;
        if let Some(nap) = self.stall.nap(batch.size_bytes()) {
            self.clock.sleep(nap);
        }
        let CommitTerms { durability, condition, index_generation, mut ahead } = terms;
        let go_on = |ahead: &mut Option<&mut Approaches>| ahead.as_mut().map(|it| it.go_on());
        go_on(&mut ahead);
        let sync = durability == Durability::Sync;
        let payload_hash = payload_hash(batch.bytes());
        let placing = Placing { batch, payload_hash, sync, waiter, index_generation };
        go_on(&mut ahead);
        let mut commit = self.enqueue(&placing, condition)?;
        go_on(&mut ahead);
        if let Some(frame) = &mut commit.lead {
            frame.submit();
        }
        let later = (!sync).then_some(&self.later);
        if let Err(error) = apply(&commit.memtable, batch, commit.first_sequence, ahead, later) {
            self.fail(error);
        } else {
            self.publisher.applied(commit.ticket);
        }
        if commit.memtable.wants_upkeep() {
            self.ahead.ask_for_upkeep(&commit.memtable);
        }
        Ok(Some(commit))
    }

    /// Waits until the commit is published, leading frames and syncs when asked to.
    fn settle(&self, commit: &Enqueued) -> Result<()> {
        while self.publisher.wait(commit.ticket, commit.briefly) == Wake::Lead {
            self.lead();
        }
        self.result_of(commit.ticket)
    }

    /// Whether a settled commit is published.
    fn result_of(&self, ticket: Ticket) -> Result<()> {
        if self.publisher.is_published(ticket) {
            return Ok(());
        }
        Err(Error::poisoned(
            self.poison.get().expect("the publisher fails after the poison is set"),
        ))
    }

    /// Makes sure that, from now on, commits can be checked against what was written since a snapshot that is taken after this.
    pub(crate) fn keep_footprints(&self) {
        if self.keeps_footprints.load(Ordering::Acquire) {
            return;
        }
        let last = {
            let mut state = self.lock();
            let last = state.next_sequence - 1;
            let bytes_max = self.limits.footprint_bytes_max;
            state.recent.get_or_insert_with(|| RecentWrites::new(last, bytes_max)).last()
        };
        // Commits without a footprint may be in flight, and no snapshot must be older than they are. If they never become visible,
        // neither does anything else.
        self.wait_visible(last);
        self.keeps_footprints.store(true, Ordering::Release);
    }

    /// Changes the set of indexes: commits that get their place from now on must be made for the generation that `change` gives.
    pub(crate) fn change_indexes(&self, change: impl FnOnce() -> u64) {
        let mut state = self.lock();
        state.index_generation = change();
    }

    /// Waits until readers see `sequence`: then every commit up to it is applied, and as durable as it asked for. False if that will
    /// never be.
    pub(crate) fn wait_visible(&self, sequence: Sequence) -> bool {
        let mut rounds = 0;
        while self.visible() < sequence {
            if self.publisher.has_failed() {
                return false;
            }
            // Often only somebody's memtable insert is missing; otherwise it takes what the device takes.
            rounds += 1;
            if rounds <= VISIBLE_YIELDS {
                std::thread::yield_now();
            } else {
                self.clock.sleep(VISIBLE_NAP);
            }
        }
        true
    }

    /// Where the log ends, what the next record's sequence number is, and the size of the log's files.
    pub(crate) fn log_position(&self) -> (Lsn, Sequence, u64) {
        let state = self.lock();
        let log = state.log.as_ref();
        (log.map_or(0, LogWriter::end), state.next_sequence, log.map_or(0, LogWriter::live_bytes))
    }
}

impl std::fmt::Debug for CommitPipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitPipeline").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}
