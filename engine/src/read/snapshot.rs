//! Which sequence numbers somebody may still read at.
//!
//! Most snapshots are those of short transactions, and are in slots that take no lock ([`snapshot_slots`](super::snapshot_slots)); the
//! others are in a list.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustlite_io::Clock;

use crate::key::Sequence;
use crate::read::snapshot_slots::{SnapshotSlots, TakenSlot};
use crate::stripes::own_stripe;

/// The snapshots that somebody holds: live ones, counted by sequence number, and named ones, which the manifest remembers.
#[derive(Debug)]
pub(crate) struct SnapshotList {
    slots: SnapshotSlots,
    /// Whoever decides what to keep holds the lock, from before the look at the slots on.
    held: Mutex<Held>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct Held {
    /// Ascending. Mostly the newest is added or removed.
    live: VecDeque<Live>,
    named: BTreeMap<String, NamedSnapshot>,
}

/// Live snapshots of one sequence number.
#[derive(Debug, Clone, Copy)]
struct Live {
    sequence: Sequence,
    count: usize,
    /// When the oldest was taken, on the monotonic clock.
    since: Duration,
}

/// A snapshot with a name, which is kept until it is dropped, also while the database is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedSnapshot {
    /// Its name.
    pub name: String,
    /// The sequence number of the last commit that it sees.
    pub sequence: u64,
    /// When it was made, as time since the Unix epoch.
    pub created: Duration,
}

/// Who keeps old versions of records from being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotHolder {
    /// The name; `None` for snapshots of this process, which end when they are dropped.
    pub name: Option<String>,
    /// The sequence number that is kept readable.
    pub sequence: u64,
    /// How many snapshots there are of it: clones share one.
    pub count: usize,
    /// How long it has been held.
    pub age: Duration,
}

/// Keeps one sequence number readable until dropped.
#[derive(Debug)]
pub(crate) struct SnapshotGuard {
    place: Place,
    sequence: Sequence,
}

/// Where a snapshot is registered.
#[derive(Debug)]
enum Place {
    Slot(TakenSlot),
    List(Arc<SnapshotList>),
}

impl SnapshotList {
    /// The list with what the manifest remembers.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        named: impl Iterator<Item = NamedSnapshot>,
    ) -> Arc<Self> {
        let named = named.map(|snapshot| (snapshot.name.clone(), snapshot)).collect();
        let held = Mutex::new(Held { live: VecDeque::new(), named });
        Arc::new(Self { slots: SnapshotSlots::new(), held, clock })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a snapshot of what `visible` says, read while no compaction can be deciding what to drop.
    pub(crate) fn register(self: &Arc<Self>, visible: impl Fn() -> Sequence) -> SnapshotGuard {
        let now = self.clock.monotonic();
        if let Some((slot, sequence)) = self.slots.take(own_stripe(), now, &visible) {
            return SnapshotGuard { place: Place::Slot(slot), sequence };
        }
        let mut held = self.lock();
        let sequence = visible();
        self.list(&mut held, sequence, now)
    }

    fn list(self: &Arc<Self>, held: &mut Held, sequence: Sequence, now: Duration) -> SnapshotGuard {
        held.add(sequence, now);
        SnapshotGuard { place: Place::List(Arc::clone(self)), sequence }
    }

    /// Registers a snapshot of an earlier sequence number, if that is still readable: held by a snapshot, or what `visible` says.
    pub(crate) fn register_at(
        self: &Arc<Self>,
        sequence: Sequence,
        visible: impl FnOnce() -> Sequence,
    ) -> Option<SnapshotGuard> {
        let now = self.clock.monotonic();
        let mut held = self.lock();
        let mut kept = held.sequences().chain(self.slots.held().map(|(kept, _)| kept));
        if !kept.any(|kept| kept == sequence) && visible() != sequence {
            return None;
        }
        drop(kept);
        Some(self.list(&mut held, sequence, now))
    }

    /// Registers a snapshot of what a named one sees, if there is one of that name.
    pub(crate) fn register_named(self: &Arc<Self>, name: &str) -> Option<SnapshotGuard> {
        let now = self.clock.monotonic();
        let mut held = self.lock();
        let sequence = held.named.get(name)?.sequence;
        Some(self.list(&mut held, sequence, now))
    }

    /// Keeps a snapshot that the manifest remembers from now on.
    pub(crate) fn add_named(&self, snapshot: NamedSnapshot) {
        self.lock().named.insert(snapshot.name.clone(), snapshot);
    }

    /// Forgets a snapshot that the manifest has forgotten.
    pub(crate) fn remove_named(&self, name: &str) {
        self.lock().named.remove(name);
    }

    /// The sequence numbers that a flush or compaction starting now must keep readable, ascending: every snapshot, and what is visible.
    pub(crate) fn boundaries(&self, visible: impl FnOnce() -> Sequence) -> Vec<Sequence> {
        let held = self.lock();
        let visible = visible();
        self.slots.decide(visible);
        let mut all: Vec<_> = held
            .sequences()
            .chain(self.slots.sequences())
            .chain(std::iter::once(visible))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The newest sequence number that a snapshot holds.
    pub(crate) fn newest(&self) -> Option<Sequence> {
        let held = self.lock();
        held.sequences().chain(self.slots.sequences()).max()
    }

    /// How many live snapshots there are, and the oldest sequence number that a snapshot holds.
    pub(crate) fn summary(&self) -> (usize, Option<Sequence>) {
        let held = self.lock();
        let listed: usize = held.live.iter().map(|live| live.count).sum();
        let in_slots: Vec<_> = self.slots.held().map(|(sequence, _)| sequence).collect();
        let oldest = held.sequences().chain(in_slots.iter().copied()).min();
        (listed + in_slots.len(), oldest)
    }

    /// Everybody who holds a snapshot, oldest first.
    pub(crate) fn holders(&self) -> Vec<SnapshotHolder> {
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        let held = self.lock();
        let mut live: BTreeMap<_, _> =
            held.live.iter().map(|live| (live.sequence, (live.count, live.since))).collect();
        for (sequence, since) in self.slots.held() {
            let (count, oldest) = live.entry(sequence).or_insert((0, since));
            *count += 1;
            *oldest = since.min(*oldest);
        }
        let live = live.into_iter().map(|(sequence, (count, since))| SnapshotHolder {
            name: None,
            sequence,
            count,
            age: now.saturating_sub(since),
        });
        let named = held.named.values().map(|named| SnapshotHolder {
            name: Some(named.name.clone()),
            sequence: named.sequence,
            count: 1,
            age: wall.saturating_sub(named.created),
        });
        let mut all: Vec<_> = named.chain(live).collect();
        all.sort_by_key(|holder| holder.sequence);
        all
    }
}

impl Held {
    fn add(&mut self, sequence: Sequence, now: Duration) {
        match self.find(sequence) {
            Ok(index) => self.live[index].count += 1,
            Err(index) => self.live.insert(index, Live { sequence, count: 1, since: now }),
        }
    }

    fn remove(&mut self, sequence: Sequence) {
        let Ok(index) = self.find(sequence) else { return };
        self.live[index].count -= 1;
        if self.live[index].count == 0 {
            self.live.remove(index);
        }
    }

    /// Where live snapshots of a sequence number are, or belong.
    fn find(&self, sequence: Sequence) -> Result<usize, usize> {
        self.live.binary_search_by_key(&sequence, |live| live.sequence)
    }

    /// The sequence numbers of all snapshots in the list, in no particular order.
    fn sequences(&self) -> impl Iterator<Item = Sequence> {
        self.live
            .iter()
            .map(|live| live.sequence)
            .chain(self.named.values().map(|named| named.sequence))
    }
}

impl SnapshotGuard {
    pub(crate) fn is_of(&self, list: &Arc<SnapshotList>) -> bool {
        match &self.place {
            Place::Slot(slot) => slot.is_of(&list.slots),
            Place::List(own) => Arc::ptr_eq(own, list),
        }
    }

    pub(crate) fn sequence(&self) -> Sequence {
        self.sequence
    }
}

impl Drop for SnapshotGuard {
    fn drop(&mut self) {
        if let Place::List(list) = &self.place {
            list.lock().remove(self.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, sequence: Sequence) -> NamedSnapshot {
        NamedSnapshot { name: name.into(), sequence, created: Duration::from_secs(5) }
    }

    fn list(names: &[NamedSnapshot]) -> Arc<SnapshotList> {
        let file_system = rustlite_io::SimFileSystem::new(1);
        let clock = rustlite_io::FileSystem::clock(&*file_system);
        SnapshotList::new(clock, names.iter().cloned())
    }

    #[test]
    fn boundaries_hold_live_snapshots_and_the_visible_end() {
        let list = list(&[]);
        let first = list.register(|| 5);
        let again = list.register(|| 5);
        let second = list.register(|| 9);
        assert_eq!(list.boundaries(|| 12), vec![5, 9, 12]);
        drop(first);
        assert_eq!(list.boundaries(|| 9), vec![5, 9]);
        drop((again, second));
        assert_eq!(list.boundaries(|| 12), vec![12]);
        assert_eq!(list.summary(), (0, None));
    }

    #[test]
    fn named_snapshots_are_held_until_they_are_removed() {
        let list = list(&[named("before", 3)]);
        list.add_named(named("after", 8));
        assert_eq!(list.boundaries(|| 12), vec![3, 8, 12]);
        assert_eq!(list.summary(), (0, Some(3)));
        let guard = list.register_named("before").unwrap();
        list.remove_named("before");
        assert_eq!(list.boundaries(|| 12), vec![3, 8, 12], "a reader is left");
        let held: Vec<_> = list.holders().into_iter().map(|it| (it.sequence, it.name)).collect();
        assert_eq!(held, [(3, None), (8, Some("after".to_owned()))]);
        drop(guard);
        assert_eq!(list.boundaries(|| 12), vec![8, 12]);
        assert!(list.register_named("before").is_none());
    }

    #[test]
    fn only_what_is_held_or_visible_can_be_registered_again() {
        let list = list(&[named("n", 3)]);
        let live = list.register(|| 5);
        for (sequence, readable) in [(3, true), (4, false), (5, true), (6, false), (9, true)] {
            assert_eq!(list.register_at(sequence, || 9).is_some(), readable, "{sequence}");
        }
        drop(live);
        assert!(list.register_at(5, || 9).is_none());
        assert_eq!(list.summary(), (0, Some(3)));
    }
}
