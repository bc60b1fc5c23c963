//! Makes commits visible in order, and puts committers to sleep until theirs is.
//!
//! Each commit has a *ticket*, numbered without gaps in sequence order. A ring of slots holds the tickets that are not yet published. A
//! ticket is published once its batch is applied to the memtable and the log is durable up to where the ticket needs it. Whoever
//! makes progress (an apply, a completed frame) advances the ring as far as it goes; there is no lock and no publisher thread.
//!
//! Memory ordering: the two facts that publish a ticket, `applied` (in its slot) and `durable`, are written with `SeqCst` and then
//! both are read by the writer. Of two threads that each establish one of them, at least one sees both, so no ticket is left behind.
//!
//! Committers of one frame sleep on one futex, the *bell* of the frame's first ticket, and one system call wakes them all. Each sleeps
//! under a bit of its own, by which the one that has to lead is woken alone. A sleeper reads the bell, then says that it sleeps, then
//! looks once more whether it must; a waker changes what the sleeper looks at, then the bell. So a change that the sleeper did not see
//! is one that its futex call does.
//!
//! `visible` is raised after the memtable inserts of all published tickets, and read with `Acquire` by readers.

use std::num::NonZeroU32;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::key::Sequence;
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;
use crate::sync::futex::{EVERYBODY, Futex};
use crate::sync::sequential::{AtomicU32, AtomicU64};
use crate::wal::Lsn;

/// Number of a commit, without gaps.
pub(crate) type Ticket = u64;

/// Tickets that can be unpublished at once.
pub(crate) const CAPACITY: u64 = if cfg!(loom) { 2 } else { 4096 };

/// The committer is not asleep.
const AWAKE: u32 = 0;
/// The committer sleeps until its ticket is published.
const ASLEEP: u32 = 1;
/// The committer is asked to lead a frame or a sync.
const LEAD: u32 = 2;
/// No thread waits for the ticket: a future does.
const POLLED: u32 = 3;

/// Spins before a committer gives up its processor, and yields before it sleeps: a predecessor's memtable insert takes about a
/// microsecond, a futex round trip five.
const SPINS: u32 = 64;
const YIELDS: u32 = 16;

struct Slot {
    /// `ticket + 1` once the ticket's batch is in the memtable. Pairs with the reads in `advance`.
    applied: AtomicU64,
    last_sequence: AtomicU64,
    /// The log must be durable up to here.
    needs_lsn: AtomicU64,
    /// Low bits of the ticket and one of the states above: a waker that comes late finds another ticket's tag and does nothing.
    word: AtomicU32,
    /// The first ticket of the crowd that waits for the same device write: all of them sleep at that ticket's bell.
    crowd: AtomicU64,
    /// Committers sleep here until it changes. It may ring for a crowd that used the slot earlier: a sleeper then looks and sleeps on.
    bell: Futex,
    /// The ticket that may enter next. Raised, with `Release`, after the one before was published *and* marked awake, and read with
    /// `Acquire` by `has_room`: a slot is never taken from under a committer that is still to be woken.
    vacant_for: AtomicU64,
    /// Whom to wake when a polled ticket is settled. A future registers under this lock, and only while its ticket is unpublished.
    waker: Mutex<Option<Waker>>,
}

/// Who waits for a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// The committing thread, which can lead.
    Thread,
    /// A future: somebody else must lead.
    Future,
}

/// Why a committer woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Its ticket is published, or the pipeline has failed.
    Settled,
    /// It should look for a frame or a sync to lead, then wait on.
    Lead,
}

/// The ring of unpublished tickets and the watermarks that readers use.
///
/// Every commit raises the watermarks, so they have a cache line for themselves.
#[repr(align(128))]
pub(crate) struct Publisher {
    slots: Box<[Slot]>,
    /// Tickets below this are published.
    published: AtomicU64,
    /// Readers see records up to this sequence number.
    visible: AtomicU64,
    /// The log is on stable storage up to here.
    durable: AtomicU64,
    /// Set once, when a log write fails.
    failed: AtomicU32,
}

fn tag(ticket: Ticket, state: u32) -> u32 {
    (ticket as u32) << 2 | state
}

/// The bit by which the committer of a ticket is woken without the rest of its crowd (but for those 32 tickets away).
fn bit_of(ticket: Ticket) -> NonZeroU32 {
    NonZeroU32::new(1 << (ticket % 32)).expect("one bit is set")
}

impl Publisher {
    pub(crate) fn new(visible: Sequence, durable: Lsn) -> Self {
        let slot = |index| Slot {
            vacant_for: AtomicU64::new(index),
            waker: Mutex::new(None),
            applied: AtomicU64::new(0),
            last_sequence: AtomicU64::new(0),
            needs_lsn: AtomicU64::new(0),
            word: AtomicU32::new(0),
            crowd: AtomicU64::new(0),
            bell: Futex::new(),
        };
        Self {
            slots: (0..CAPACITY).map(slot).collect(),
            published: AtomicU64::new(0),
            visible: AtomicU64::new(visible),
            durable: AtomicU64::new(durable),
            failed: AtomicU32::new(0),
        }
    }

    fn slot(&self, ticket: Ticket) -> &Slot {
        &self.slots[(ticket % CAPACITY) as usize]
    }

    /// The newest sequence number that readers see.
    #[inline]
    pub(crate) fn visible(&self) -> Sequence {
        self.visible.load(Ordering::Acquire)
    }

    /// The log is on stable storage up to here.
    pub(crate) fn durable(&self) -> Lsn {
        self.durable.load(Ordering::Acquire)
    }

    /// True if ticket number `next` has a free slot. Called under the commit lock.
    pub(crate) fn has_room(&self, next: Ticket) -> bool {
        self.slot(next).vacant_for.load(Ordering::Acquire) == next
    }

    /// Enters a ticket that waits for the same device write as ticket `crowd`, the first to do so, or for nobody's but its own. Called
    /// under the commit lock, in ticket order, after [`has_room`](Self::has_room).
    pub(crate) fn enter(
        &self,
        ticket: Ticket,
        crowd: Ticket,
        last_sequence: Sequence,
        needs_lsn: Lsn,
        waiter: Waiter,
    ) {
        let slot = self.slot(ticket);
        // Relaxed: published to `advance` by the `applied` store of the same ticket.
        slot.last_sequence.store(last_sequence, Ordering::Relaxed);
        slot.needs_lsn.store(needs_lsn, Ordering::Relaxed);
        slot.crowd.store(crowd, Ordering::Relaxed);
        let state = if waiter == Waiter::Future { POLLED } else { AWAKE };
        slot.word.store(tag(ticket, state), Ordering::Relaxed);
    }

    /// Says that the ticket's batch is in the memtable, and publishes what can be.
    pub(crate) fn applied(&self, ticket: Ticket) {
        self.slot(ticket).applied.store(ticket + 1, Ordering::SeqCst);
        self.advance();
    }

    /// Says that the log is durable up to `lsn`, and publishes what can be.
    pub(crate) fn durable_up_to(&self, lsn: Lsn) {
        self.durable.fetch_max(lsn, Ordering::SeqCst);
        self.advance();
    }

    fn advance(&self) {
        let mut asleep = None;
        while !self.has_failed() {
            let head = self.published.load(Ordering::SeqCst);
            let slot = self.slot(head);
            if slot.applied.load(Ordering::SeqCst) != head + 1 {
                break;
            }
            let last_sequence = slot.last_sequence.load(Ordering::Relaxed);
            if slot.needs_lsn.load(Ordering::Relaxed) > self.durable.load(Ordering::SeqCst) {
                break;
            }
            let won =
                self.published.compare_exchange(head, head + 1, Ordering::SeqCst, Ordering::SeqCst);
            if won.is_ok() {
                self.visible.fetch_max(last_sequence, Ordering::SeqCst);
                self.rouse(head, &mut asleep);
                slot.vacant_for.store(head + CAPACITY, Ordering::Release);
            }
        }
        self.ring(asleep);
    }

    /// Wakes the future that waits for a settled ticket. A sleeping thread is marked awake, and its crowd is put down in `asleep`, to be
    /// woken by one system call together with those that follow; a different crowd that was there is woken.
    fn rouse(&self, ticket: Ticket, asleep: &mut Option<Ticket>) {
        let Slot { word, waker, crowd, .. } = self.slot(ticket);
        if word.load(Ordering::SeqCst) == tag(ticket, POLLED) {
            let waker = waker.lock().unwrap_or_else(PoisonError::into_inner).take();
            return waker.map_or((), Waker::wake);
        }
        let crowd = crowd.load(Ordering::Relaxed);
        let woken = word.compare_exchange(
            tag(ticket, ASLEEP),
            tag(ticket, AWAKE),
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        if woken.is_ok() && *asleep != Some(crowd) {
            self.ring(asleep.replace(crowd));
        }
    }

    /// Wakes everybody who sleeps at a crowd's bell.
    fn ring(&self, crowd: Option<Ticket>) {
        if let Some(crowd) = crowd {
            let bell = &self.slot(crowd).bell;
            bell.change();
            bell.wake(EVERYBODY);
        }
    }

    /// Asks the committer of an unpublished ticket to lead. False if no thread waits for the ticket, so that somebody else must.
    #[must_use]
    pub(crate) fn ask_to_lead(&self, ticket: Ticket) -> bool {
        let Slot { word, crowd, .. } = self.slot(ticket);
        if word.load(Ordering::SeqCst) == tag(ticket, POLLED) {
            return false;
        }
        let bell = &self.slot(crowd.load(Ordering::Relaxed)).bell;
        for state in [ASLEEP, AWAKE] {
            let asked = word.compare_exchange(
                tag(ticket, state),
                tag(ticket, LEAD),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            match asked {
                Ok(_) => {
                    if state == ASLEEP {
                        // The bell changes for all, in case the committer is only about to sleep; the others sleep on.
                        bell.change();
                        bell.wake(bit_of(ticket));
                    }
                    return true;
                }
                // It fell asleep between the two attempts.
                Err(now) if state == AWAKE && now == tag(ticket, ASLEEP) => {
                    return self.ask_to_lead(ticket);
                }
                Err(_) => {}
            }
        }
        true
    }

    /// Whether a polled ticket is settled: published, or the pipeline has failed. If not, `context` is woken when it is.
    pub(crate) fn poll_settled(&self, ticket: Ticket, context: &Context<'_>) -> Poll<()> {
        let settled = || self.is_published(ticket) || self.has_failed();
        if settled() {
            return Poll::Ready(());
        }
        let mut waker = self.slot(ticket).waker.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever settles the ticket takes the waker after that, under this lock: it is either seen here, or it will see the waker.
        if settled() {
            return Poll::Ready(());
        }
        match &mut *waker {
            Some(known) => known.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// True once the ticket is published; `visible` is raised a moment later, see [`ensure_visible`](Self::ensure_visible).
    pub(crate) fn is_published(&self, ticket: Ticket) -> bool {
        self.published.load(Ordering::SeqCst) > ticket
    }

    /// Readers see at least `sequence` after this: publication of a ticket and the raise of `visible` are two steps.
    pub(crate) fn ensure_visible(&self, sequence: Sequence) {
        if self.visible.load(Ordering::Acquire) < sequence {
            self.visible.fetch_max(sequence, Ordering::SeqCst);
        }
    }

    /// True after [`fail`](Self::fail).
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst) != 0
    }

    /// Stops publication for good and wakes every committer of a ticket below `next`.
    pub(crate) fn fail(&self, next: Ticket) {
        self.failed.store(1, Ordering::SeqCst);
        let mut asleep = None;
        for ticket in self.published.load(Ordering::SeqCst)..next {
            self.rouse(ticket, &mut asleep);
        }
        self.ring(asleep);
    }

    /// Waits until the ticket is published, the pipeline fails, or somebody must lead. `briefly` says that the wait is expected to be
    /// for other threads' memtable inserts only, not for the device.
    pub(crate) fn wait(&self, ticket: Ticket, briefly: bool) -> Wake {
        let Slot { word, crowd, .. } = self.slot(ticket);
        // Should the ticket be published already and the slot another's, then the bell is a wrong one, but nobody goes to sleep.
        let bell = &self.slot(crowd.load(Ordering::Relaxed)).bell;
        let settled = || self.is_published(ticket) || self.has_failed();
        if briefly {
            for round in 0..SPINS + YIELDS {
                if settled() {
                    return Wake::Settled;
                }
                if round < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
        }
        loop {
            // Before it is looked whether to sleep: whoever changes that, rings afterwards.
            let rung = bell.number();
            if settled() {
                return Wake::Settled;
            }
            let slept = word.compare_exchange(
                tag(ticket, AWAKE),
                tag(ticket, ASLEEP),
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            if slept == Err(tag(ticket, LEAD)) {
                word.store(tag(ticket, AWAKE), Ordering::SeqCst);
                return Wake::Lead;
            }
            if settled() {
                return Wake::Settled;
            }
            bell.wait(rung, bit_of(ticket));
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("visible", &self.visible()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn tickets_are_published_in_order_and_only_when_durable() {
        let publisher = Publisher::new(10, 0);
        for ticket in 0..3 {
            publisher.enter(
                ticket,
                ticket,
                11 + ticket,
                if ticket == 1 { 100 } else { 0 },
                Waiter::Thread,
            );
        }
        publisher.applied(2);
        publisher.applied(1);
        assert_eq!(publisher.visible(), 10, "the first is not applied");
        publisher.applied(0);
        assert_eq!(publisher.visible(), 11, "the second is not durable");
        publisher.durable_up_to(99);
        assert_eq!(publisher.visible(), 11);
        publisher.durable_up_to(100);
        assert_eq!(publisher.visible(), 13);
        assert!(publisher.is_published(2));
    }

    #[test]
    fn a_request_to_lead_reaches_a_sleeping_and_a_busy_committer() {
        let publisher = Arc::new(Publisher::new(0, 0));
        publisher.enter(0, 0, 1, 1, Waiter::Thread);
        assert!(publisher.ask_to_lead(0));
        assert_eq!(publisher.wait(0, false), Wake::Lead);
        let sleeper = Arc::clone(&publisher);
        let (woken, wakes) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for _ in 0..2 {
                woken.send(sleeper.wait(0, false)).unwrap();
            }
        });
        while publisher.slots[0].word.load(Ordering::SeqCst) != tag(0, ASLEEP) {
            std::thread::yield_now();
        }
        assert!(publisher.ask_to_lead(0));
        assert_eq!(wakes.recv().unwrap(), Wake::Lead);
        publisher.applied(0);
        publisher.durable_up_to(1);
        assert_eq!(wakes.recv().unwrap(), Wake::Settled);
        thread.join().unwrap();
    }

    #[test]
    fn one_of_a_crowd_is_woken_to_lead_and_all_when_their_frame_is_durable() {
        const CROWD: u64 = 40;
        const LEADER: u64 = 5;
        let publisher = Publisher::new(0, 0);
        for ticket in 0..CROWD {
            publisher.enter(ticket, 0, ticket + 1, 1, Waiter::Thread);
            publisher.applied(ticket);
        }
        let (woken, wakes) = std::sync::mpsc::channel();
        let all_asleep = || {
            (0..CROWD).all(|ticket| {
                publisher.slot(ticket).word.load(Ordering::SeqCst) == tag(ticket, ASLEEP)
            })
        };
        std::thread::scope(|scope| {
            for ticket in 0..CROWD {
                let (publisher, woken) = (&publisher, woken.clone());
                scope.spawn(move || {
                    loop {
                        let wake = publisher.wait(ticket, false);
                        woken.send((ticket, wake)).unwrap();
                        if wake == Wake::Settled {
                            return;
                        }
                    }
                });
            }
            for _ in 0..100 {
                while !all_asleep() {
                    std::thread::yield_now();
                }
                assert!(publisher.ask_to_lead(LEADER));
                assert_eq!(wakes.recv().unwrap(), (LEADER, Wake::Lead));
            }
            while !all_asleep() {
                std::thread::yield_now();
            }
            assert!(wakes.try_recv().is_err(), "nobody else woke up");
            publisher.durable_up_to(1);
        });
        let mut settled: Vec<_> = wakes.try_iter().collect();
        settled.sort_unstable_by_key(|&(ticket, _)| ticket);
        assert_eq!(settled, (0..CROWD).map(|ticket| (ticket, Wake::Settled)).collect::<Vec<_>>());
        assert_eq!(publisher.visible(), CROWD);
    }

    #[test]
    fn many_threads_through_a_small_ring_all_wake_up() {
        let publisher = Arc::new(Publisher::new(0, 0));
        let next = Arc::new(std::sync::Mutex::new(0_u64));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (publisher, next) = (Arc::clone(&publisher), Arc::clone(&next));
                std::thread::spawn(move || {
                    for _ in 0..5000 {
                        let ticket = {
                            let mut next = next.lock().unwrap();
                            let ticket = *next;
                            // Whoever published the slot's last ticket may not have run since.
                            while !publisher.has_room(ticket) {
                                std::thread::yield_now();
                            }
                            publisher.enter(ticket, ticket & !3, ticket + 1, 0, Waiter::Thread);
                            *next += 1;
                            ticket
                        };
                        publisher.applied(ticket);
                        assert_eq!(publisher.wait(ticket, ticket % 2 == 0), Wake::Settled);
                        publisher.ensure_visible(ticket + 1);
                        assert!(publisher.visible() > ticket);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(publisher.visible(), 40_000);
    }
}
