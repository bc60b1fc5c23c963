//! `CommitPipeline`: the numbered stages of `commit/mod.rs`, as code.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustlite_io::Clock;

use crate::batch::WriteBatch;
use crate::commit::ahead::Ahead;
use crate::commit::apply::apply;
use crate::commit::driver::DriverSignal;
use crate::commit::gather::Gathering;
use crate::commit::log_writer::{LeadFrame, LeadSync, LogWriter, NewEntry, Placement};
use crate::commit::publish::{Publisher, Ticket, Waiter, Wake};
use crate::commit::recent::{Admission, CommitCheck, Footprint, RecentWrites};
use crate::commit::stall::Stall;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Sequence;
use crate::kinds::Rules;
use crate::limits::SEQUENCE_MAX;
use crate::memtable::{Memtable, MemtableMaker};
use crate::options::Durability;
use crate::read::view::{FrozenMemtable, View, ViewCell};
use crate::wal::Lsn;
use crate::wal::entry::payload_hash;
use crate::wal::segment::SegmentFile;

/// A memtable with this many range tombstones is flushed: looking them up costs memory and time that only tables bound.
const RANGE_TOMBSTONES_MAX: usize = 10_000;

/// How long a commit sleeps when too many are in flight: about what the device needs for one write.
const TICKET_NAP: Duration = Duration::from_micros(50);

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
}

/// The one write path.
pub(crate) struct CommitPipeline {
    pub(super) publisher: Publisher,
    state: Mutex<State>,
    views: Arc<ViewCell>,
    memtables: MemtableMaker,
    limits: CommitLimits,
    stall: Stall,
    clock: Arc<dyn Clock>,
    rules: Arc<Rules>,
    poison: OnceLock<Error>,
    /// Set, under the commit lock, when the first transaction begins; never reset. Who reads it too early finds out under the lock.
    keeps_footprints: AtomicBool,
    /// Why flushes cannot make room at the moment (a full disk, say). Writers that would have to wait get it instead.
    flush_error: Mutex<Option<Error>>,
    /// Signalled with the commit lock when a memtable was flushed or flushing failed.
    pub(super) room: Condvar,
    /// Called (under the commit lock) when there is a memtable to flush or a segment to prepare.
    wake_background: Box<dyn Fn() + Send + Sync>,
    /// Wakes the thread that leads for commits behind futures.
    driver: DriverSignal,
    gathering: Arc<Gathering>,
    ahead: Ahead,
}

pub(super) struct State {
    pub(super) next_sequence: Sequence,
    pub(super) next_ticket: Ticket,
    log: Option<LogWriter>,
    /// Where the log stood when the active memtable was begun.
    memtable_begin: Lsn,
    /// Why no write is accepted, if the database is closed or read-only.
    refusal: Option<Error>,
    /// The set of indexes in force.
    index_generation: u64,
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

/// A commit that has its place in the order.
struct Enqueued {
    ticket: Ticket,
    first_sequence: Sequence,
    last_sequence: Sequence,
    memtable: Arc<Memtable>,
    lead: Option<LeadFrame>,
    /// True if the commit waits for a frame or a sync that somebody must lead.
    needs_leader: bool,
    /// True if the commit must see to a sync of stores, or to a frame that others are still expected to join.
    must_lead: bool,
    /// True if no device stands between the commit and its publication.
    briefly: bool,
}

/// A commit that wants its place in the order.
struct Placing<'a> {
    batch: &'a WriteBatch,
    payload_hash: u64,
    sync: bool,
    waiter: Waiter,
    index_generation: u64,
}

/// Why a commit could not be enqueued right now.
enum NotYet {
    /// The memtable is full and the flush is behind, or writers are held.
    Memory,
    /// Too many commits are in flight.
    Tickets,
}

impl CommitPipeline {
    pub(crate) fn new(start: CommitStart) -> Self {
        let durable = start.log.as_ref().map_or(Lsn::MAX, LogWriter::end);
        let gathering = start.log.as_ref().map(|log| Arc::clone(log.gathering()));
        Self {
            publisher: Publisher::new(start.next_sequence - 1, durable),
            state: Mutex::new(State {
                next_sequence: start.next_sequence,
                next_ticket: 0,
                log: start.log,
                memtable_begin: start.memtable_begin,
                refusal: start.refusal,
                index_generation: start.index_generation,
                recent: None,
                held: false,
            }),
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
        }
    }

    /// The lock is held for less than a microsecond, unless its holder has lost its processor: then yielding may give it back, and costs less than sleeping
    /// and being woken up.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
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

    /// The newest sequence number that readers see.
    #[inline]
    pub(crate) fn visible(&self) -> Sequence {
        self.publisher.visible()
    }

    pub(crate) fn stall(&self) -> &Stall {
        &self.stall
    }

    /// The notes for the thread that prepares what commits need.
    pub(crate) fn ahead(&self) -> &Ahead {
        &self.ahead
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

    /// Leads for commits behind futures until the driver is stopped.
    pub(crate) fn drive(&self) {
        while self.driver.wait() {
            while self.lead() {}
        }
    }

    /// Ends [`drive`](Self::drive).
    pub(crate) fn stop_driver(&self) {
        self.driver.stop();
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
        let CommitTerms { durability, condition, index_generation } = terms;
        let sync = durability == Durability::Sync;
        let payload_hash = payload_hash(batch.bytes());
        let placing = Placing { batch, payload_hash, sync, waiter, index_generation };
        let mut commit = self.enqueue(&placing, condition)?;
        if let Some(frame) = &mut commit.lead {
            frame.submit();
        }
        if let Err(error) = apply(&commit.memtable, batch.bytes(), commit.first_sequence) {
            self.fail(error);
        } else {
            self.publisher.applied(commit.ticket);
        }
        if commit.memtable.wants_upkeep() {
            self.ahead.ask_for_upkeep(&commit.memtable);
        }
        Ok(Some(commit))
    }

    fn enqueue(
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
                && condition.admit(recent, self.visible())? == Admission::CatchUpFirst
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
                        _forgotten = recent.add(enqueued.last_sequence, footprint, self.visible());
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

    pub(super) fn check_writable(&self, state: &State) -> Result<()> {
        if let Some(first) = self.poison.get() {
            return Err(Error::poisoned(first));
        }
        state.refusal.clone().map_or(Ok(()), Err)
    }

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
                        let leads = waiter == Waiter::Thread && log.has_idle_lane();
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

    /// The active memtable, after replacing a full one. `None` if that would exceed the bound on memtables.
    fn memtable_with_room(&self, state: &mut State) -> Result<Option<Arc<Memtable>>> {
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

    fn wait_for_room<'a>(&self, state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
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

    /// Waits for a led frame's device write and passes its result on.
    fn finish_frame(&self, mut frame: LeadFrame) {
        if let Err(error) = frame.wait() {
            self.fail(error);
            return;
        }
        let (durable, ask) =
            self.lock().log.as_mut().expect("frames come from a log").frame_done(frame);
        self.made_progress(durable, ask);
    }

    fn made_progress(&self, durable: Lsn, ask: Option<Ticket>) {
        if let Some(ticket) = ask
            && !self.publisher.ask_to_lead(ticket)
        {
            self.driver.raise();
        }
        self.publisher.durable_up_to(durable);
    }

    /// Leads whatever there is to lead: a waiting frame, or the sync that stored `Sync` commits wait for. False if there is nothing,
    /// or writes have failed.
    fn lead(&self) -> bool {
        let leads_frames = self.gathering.hold();
        if leads_frames {
            self.gathering.wait(&*self.clock);
        }
        let (frame, sync) = {
            let mut state = self.lock();
            if leads_frames {
                self.gathering.release();
            }
            let Some(log) = state.log.as_mut().filter(|_| self.poison.get().is_none()) else {
                return false;
            };
            match if leads_frames { log.lead_frame() } else { None } {
                Some(frame) => (Some(frame), None),
                None => (None, log.lead_sync()),
            }
        };
        let led = frame.is_some() || sync.is_some();
        if let Some(mut frame) = frame {
            frame.submit();
            self.finish_frame(frame);
        }
        if let Some(sync) = sync {
            // The failure, if any, reaches every waiter through the poison.
            let _ = self.run_sync(&sync);
        }
        led
    }

    fn run_sync(&self, sync: &LeadSync) -> Result<()> {
        for file in &sync.files {
            if let Err(error) = file.sync() {
                let error = Error::from(error).context("cannot sync the log");
                self.fail(error.clone());
                return Err(error);
            }
        }
        let (durable, ask) = {
            let mut state = self.lock();
            state.log.as_mut().expect("syncs come from a log").sync_done(sync)
        };
        self.made_progress(durable, ask);
        Ok(())
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

    /// Makes every acknowledged commit durable.
    pub(crate) fn sync(&self) -> Result<()> {
        loop {
            let (sync, target) = {
                let mut state = self.lock();
                if let Some(first) = self.poison.get() {
                    return Err(Error::poisoned(first));
                }
                let Some(log) = state.log.as_mut() else { return Ok(()) };
                if !log.has_unsynced_stores() {
                    return Ok(());
                }
                (log.begin_sync(), log.end())
            };
            match sync {
                Some(sync) => return self.run_sync(&sync),
                // Somebody else's sync is running; it may have begun before our stores.
                None => {
                    while self.publisher.durable() < target && self.sync_is_running() {
                        std::thread::yield_now();
                    }
                }
            }
        }
    }

    fn sync_is_running(&self) -> bool {
        self.poison.get().is_none()
            && self.lock().log.as_mut().is_some_and(|log| log.is_sync_running())
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

    /// Gives up the log's segments at close, as far as their data is in tables.
    pub(crate) fn release_log(&self, flushed_up_to: Lsn) -> Vec<SegmentFile> {
        let mut state = self.lock();
        state.log.as_mut().map(|log| log.release_all(flushed_up_to)).unwrap_or_default()
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
