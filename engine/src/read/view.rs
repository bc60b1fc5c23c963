//! The current set of sources, and how readers get at it without a lock.
//!
//! [`ViewCell`] holds a pointer to the current `Arc<View>`. Readers pin an epoch, load the pointer, use the view and unpin; the writer
//! that replaces it defers dropping the old one until no reader that could have loaded it is pinned. No guard ever outlives a
//! call: iterators and snapshots clone the `Arc`. (Epoch-based reclamation: Fraser, "Practical lock-freedom", 2004.)

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_epoch::{self as epoch, Atomic, Owned};
use std::sync::atomic::Ordering;

use crate::compaction::read_cost::ReadCost;
use crate::key::Sequence;
use crate::kinds::Rules;
use crate::manifest::Version;
use crate::memtable::Memtable;
use crate::range_tombstones::RangeTombstones;
use crate::wal::Lsn;

/// A memtable that is no longer written and waits to become tables.
pub(crate) struct FrozenMemtable {
    pub(crate) memtable: Arc<Memtable>,
    /// Its newest record.
    pub(crate) last_sequence: Sequence,
    /// Every log entry below this is in it or in older memtables.
    pub(crate) log_end: Lsn,
}

/// One consistent set of sources.
pub(crate) struct View {
    /// The memtable being written.
    pub(crate) active: Arc<Memtable>,
    /// Newest first.
    pub(crate) frozen: Vec<Arc<FrozenMemtable>>,
    /// The tables.
    pub(crate) version: Arc<Version>,
    /// What records mean that are more than a value.
    pub(crate) rules: Arc<Rules>,
    /// Where readers say what level 0 costs them.
    pub(crate) read_cost: Arc<ReadCost>,
    /// Range tombstones of everything but the active memtable; made when first asked for.
    settled_tombstones: OnceLock<Arc<RangeTombstones>>,
}

impl View {
    pub(crate) fn new(
        active: Arc<Memtable>,
        frozen: Vec<Arc<FrozenMemtable>>,
        version: Arc<Version>,
        rules: Arc<Rules>,
        read_cost: Arc<ReadCost>,
    ) -> Self {
        Self { active, frozen, version, rules, read_cost, settled_tombstones: OnceLock::new() }
    }

    /// The same tables under other memtables.
    pub(crate) fn with_memtables(
        &self,
        active: Arc<Memtable>,
        frozen: Vec<Arc<FrozenMemtable>>,
    ) -> Self {
        let (version, rules) = (Arc::clone(&self.version), Arc::clone(&self.rules));
        Self::new(active, frozen, version, rules, Arc::clone(&self.read_cost))
    }

    /// All memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|frozen| &frozen.memtable))
    }

    /// The range tombstones of all sources.
    pub(crate) fn range_tombstones(&self) -> Arc<RangeTombstones> {
        let settled = self.settled_tombstones.get_or_init(|| {
            let frozen: Vec<_> =
                self.frozen.iter().map(|frozen| frozen.memtable.range_tombstones()).collect();
            let tables: Vec<_> = self
                .version
                .tables()
                .filter(|(_, handle)| handle.meta.range_tombstones > 0)
                .map(|(_, handle)| Arc::clone(handle.table.range_tombstones()))
                .collect();
            let all = frozen.iter().chain(&tables).map(Arc::as_ref);
            Arc::new(RangeTombstones::union(all))
        });
        if self.active.range_tombstone_count() == 0 {
            return Arc::clone(settled);
        }
        let active = self.active.range_tombstones();
        Arc::new(RangeTombstones::union([settled.as_ref(), active.as_ref()]))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("memtables", &(1 + self.frozen.len()))
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// How often the last collection tries again: some milliseconds, and longer where others want the processor.
const LAST_ROUNDS: u32 = 2000;

/// The current view.
pub(crate) struct ViewCell {
    current: Atomic<Arc<View>>,
    /// Serialises replacements. Holds the views that were replaced, so that it is a background thread that gives up their memtables and
    /// tables, and not the reader or writer who happens to be the last to use one.
    replaced: Mutex<Vec<Arc<View>>>,
}

impl ViewCell {
    pub(crate) fn new(view: View) -> Self {
        Self { current: Atomic::new(Arc::new(view)), replaced: Mutex::default() }
    }

    /// Runs `read` on the current view. Nothing of the view may outlive the call, which the borrow ensures.
    #[inline]
    pub(crate) fn with<R>(&self, read: impl FnOnce(&Arc<View>) -> R) -> R {
        let guard = epoch::pin();
        // Acquire: pairs with the release in `update`; everything in the view was built before.
        let shared = self.current.load(Ordering::Acquire, &guard);
        // SAFETY: the pointer is never null, and the pinned guard keeps what it points to alive until it is dropped, below.
        let view = unsafe { shared.deref() };
        read(view)
    }

    /// The current view, to keep.
    pub(crate) fn load(&self) -> Arc<View> {
        self.with(Arc::clone)
    }

    /// Replaces the view by what `change` makes of it.
    pub(crate) fn update(&self, change: impl FnOnce(&View) -> View) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let guard = epoch::pin();
        // Acquire, although only writers store: the previous one may have been another thread.
        let shared = self.current.load(Ordering::Acquire, &guard);
        // SAFETY: never null, and kept alive by the guard.
        let old = unsafe { shared.deref() };
        let next = Owned::new(Arc::new(change(old)));
        replaced.push(Arc::clone(old));
        let old = self.current.swap(next, Ordering::AcqRel, &guard);
        // SAFETY: `old` is no longer reachable through the cell, and was swapped out exactly once.
        unsafe { guard.defer_destroy(old) };
        guard.flush();
    }

    /// Gives up the replaced views that nobody uses any more, with the memtables and files that they hold. Called by background threads
    /// after they have changed the view, and from time to time: that may take milliseconds.
    pub(crate) fn collect(&self) {
        Self::advance();
        let unused: Vec<_> = {
            let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
            replaced.extract_if(.., |view| Arc::strong_count(view) == 1).collect()
        };
        drop(unused);
    }

    /// As [`collect`](Self::collect), when nobody will call that again: waits for readers that are in the middle of a look, and for those of other
    /// databases, too, because all share their epochs. Not for who keeps a view.
    pub(crate) fn collect_last(&self) {
        for _ in 0..LAST_ROUNDS {
            self.collect();
            let held_by_epochs = {
                let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
                replaced.iter().any(|view| Arc::strong_count(view) == 2)
            };
            if !held_by_epochs {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Helps the epochs along, so that the references of the cell to replaced views go away even if no reader comes by.
    fn advance() {
        for _ in 0..4 {
            epoch::pin().flush();
        }
    }
}

impl Drop for ViewCell {
    fn drop(&mut self) {
        let cell = std::mem::replace(&mut self.current, Atomic::null());
        // SAFETY: `&mut self` proves that no reader is left, and the pointer is never null while the cell lives.
        drop(unsafe { cell.into_owned() });
        Self::advance();
    }
}

impl std::fmt::Debug for ViewCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.with(|view| view.fmt(f))
    }
}
