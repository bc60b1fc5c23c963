//! Which sequence numbers somebody may still read at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::key::Sequence;

/// The live snapshots, counted by sequence number.
#[derive(Debug, Default)]
pub(crate) struct SnapshotList {
    live: Mutex<BTreeMap<Sequence, usize>>,
}

/// Keeps one sequence number readable until dropped.
#[derive(Debug)]
pub(crate) struct SnapshotGuard {
    list: Arc<SnapshotList>,
    sequence: Sequence,
}

impl SnapshotList {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Sequence, usize>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a snapshot of what `visible` says, read while no compaction can be deciding what to drop.
    pub(crate) fn register(self: &Arc<Self>, visible: impl FnOnce() -> Sequence) -> SnapshotGuard {
        let mut live = self.lock();
        let sequence = visible();
        *live.entry(sequence).or_default() += 1;
        SnapshotGuard { list: Arc::clone(self), sequence }
    }

    /// The sequence numbers that a flush or compaction starting now must keep readable, ascending: every live snapshot, and what is
    /// visible.
    pub(crate) fn boundaries(&self, visible: impl FnOnce() -> Sequence) -> Vec<Sequence> {
        let live = self.lock();
        let visible = visible();
        let mut all: Vec<_> = live.keys().copied().collect();
        if all.last() != Some(&visible) {
            all.push(visible);
        }
        all
    }

    /// The newest sequence number that a snapshot holds.
    pub(crate) fn newest(&self) -> Option<Sequence> {
        self.lock().keys().next_back().copied()
    }

    /// How many snapshots are live, and the oldest.
    pub(crate) fn summary(&self) -> (usize, Option<Sequence>) {
        let live = self.lock();
        (live.values().sum(), live.keys().next().copied())
    }
}

impl SnapshotGuard {
    pub(crate) fn is_of(&self, list: &Arc<SnapshotList>) -> bool {
        Arc::ptr_eq(&self.list, list)
    }

    pub(crate) fn sequence(&self) -> Sequence {
        self.sequence
    }
}

impl Drop for SnapshotGuard {
    fn drop(&mut self) {
        let mut live = self.list.lock();
        if let Some(count) = live.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                live.remove(&self.sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_hold_live_snapshots_and_the_visible_end() {
        let list = Arc::new(SnapshotList::default());
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
}
