//! Where most snapshots are registered: without a lock, each thread on cache lines of its own.
//!
//! Who registers a snapshot says which sequence number it is going to read at, and then looks whether meanwhile somebody has decided
//! what must be kept. Who decides that raises `decided` to what is visible, and then looks at all slots.
//!
//! ```text
//!   registers               decides what to keep
//!   slot = visible          decided = visible
//!   read decided            read slot
//! ```
//!
//! Guarantee: a snapshot that a decision has not seen is at least as new as what was visible to the decision, which keeps all that is newer.
//! For if the slot was read before it was written, then `decided` was raised before it is read (all four are sequentially
//! consistent), and who registers takes the next visible sequence number instead, until it is not below `decided`.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::key::Sequence;
use crate::sync::atomic::Ordering;
use crate::sync::sequential::AtomicU64;

/// Threads that have slots of their own.
const STRIPES: usize = if cfg!(loom) { 1 } else { 16 };

/// Slots of a thread. Whoever holds more snapshots at a time registers them elsewhere.
const SLOTS_EACH: usize = if cfg!(loom) { 1 } else { 4 };

/// Below a sequence number in a slot. A snapshot that is `TAKEN` may turn out to be too old, and is not to be relied on by others.
const STATE_BITS: u32 = 2;
const TAKEN: u64 = 1;
const HELD: u64 = 2;
const FREE: u64 = 0;

/// One snapshot, or none.
#[derive(Debug)]
struct Slot {
    /// The sequence number and the state; nothing but `FREE` if there is none.
    word: AtomicU64,
    /// When it was taken, on the monotonic clock, in nanoseconds. Relaxed: for people.
    since: AtomicU64,
}

/// All slots of a database.
#[derive(Debug)]
pub(crate) struct SnapshotSlots {
    slots: [Arc<CachePadded<Slot>>; STRIPES * SLOTS_EACH],
    /// What was visible to the newest decision about what to keep.
    decided: CachePadded<AtomicU64>,
}

/// A slot with a snapshot, until dropped.
#[derive(Debug)]
pub(crate) struct TakenSlot {
    slot: Arc<CachePadded<Slot>>,
}

impl SnapshotSlots {
    pub(crate) fn new() -> Self {
        let slot = |_| Slot { word: AtomicU64::new(FREE), since: AtomicU64::new(0) };
        Self {
            slots: std::array::from_fn(|index| Arc::new(CachePadded::new(slot(index)))),
            decided: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Registers a snapshot of what `visible` says in one of the slots of a stripe. Gives its sequence number; `None` if they are taken.
    #[inline]
    pub(crate) fn take(
        &self,
        stripe: usize,
        since: Duration,
        visible: impl Fn() -> Sequence,
    ) -> Option<(TakenSlot, Sequence)> {
        let mut sequence = visible();
        let mut own = self.slots.iter().skip(stripe % STRIPES * SLOTS_EACH).take(SLOTS_EACH);
        let slot = own.find(|slot| {
            let taken = sequence << STATE_BITS | TAKEN;
            // Relaxed, the look at slots that are not free.
            slot.word.load(Ordering::Relaxed) == FREE
                && slot
                    .word
                    .compare_exchange(FREE, taken, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
        })?;
        while self.decided.load(Ordering::SeqCst) > sequence {
            sequence = visible();
            slot.word.store(sequence << STATE_BITS | TAKEN, Ordering::SeqCst);
        }
        slot.since.store(since.as_nanos() as u64, Ordering::Relaxed);
        slot.word.store(sequence << STATE_BITS | HELD, Ordering::Release);
        Some((TakenSlot { slot: Arc::clone(slot) }, sequence))
    }

    /// Says that somebody decides what to keep, to whom so much is visible, before they look at the slots.
    pub(crate) fn decide(&self, visible: Sequence) {
        self.decided.fetch_max(visible, Ordering::SeqCst);
    }

    /// The sequence numbers of all snapshots, with those that are only about to be taken.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = Sequence> {
        let words = self.slots.iter().map(|slot| slot.word.load(Ordering::SeqCst));
        words.filter(|&word| word != FREE).map(|word| word >> STATE_BITS)
    }

    /// The sequence number of each snapshot, and when it was taken.
    pub(crate) fn held(&self) -> impl Iterator<Item = (Sequence, Duration)> {
        self.slots.iter().filter_map(|slot| {
            let word = slot.word.load(Ordering::SeqCst);
            let since = Duration::from_nanos(slot.since.load(Ordering::Relaxed));
            (word & HELD != 0).then_some((word >> STATE_BITS, since))
        })
    }

    fn has(&self, taken: &TakenSlot) -> bool {
        self.slots.iter().any(|slot| Arc::ptr_eq(slot, &taken.slot))
    }
}

impl TakenSlot {
    /// Whether it is one of these.
    pub(crate) fn is_of(&self, slots: &SnapshotSlots) -> bool {
        slots.has(self)
    }
}

impl Drop for TakenSlot {
    fn drop(&mut self) {
        // Release: what was read at the snapshot was read before.
        self.slot.word.store(FREE, Ordering::Release);
    }
}
