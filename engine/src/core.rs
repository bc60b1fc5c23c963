//! `Core`: what all handles to one open database share, and the operations that need more than one part of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustlite_io::{Clock, FileSystem};

use crate::commit::pipeline::CommitPipeline;
use crate::compaction::background::CompactionState;
use crate::compaction::precedence::Precedence;
use crate::compaction::rate_limiter::RateLimiter;
use crate::compaction::read_cost::ReadCost;
use crate::error::Result;
use crate::index::registry::Indexes;
use crate::key::Sequence;
use crate::kinds::Rules;
use crate::manifest::VersionSet;
use crate::options::Options;
use crate::read::iter::ReadPoint;
use crate::read::snapshot::{SnapshotGuard, SnapshotList};
use crate::read::view::{View, ViewCell};
use crate::sstable::TableEnv;
use crate::stripes::Striped;
use crate::txn::counters::TransactionCounters;
use crate::txn::locks::LockTable;
use crate::wal::segment::SegmentPool;

/// The parts of one open database.
pub(crate) struct Core {
    pub(crate) file_system: Arc<dyn FileSystem>,
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    pub(crate) env: TableEnv,
    pub(crate) versions: Arc<VersionSet>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) views: Arc<ViewCell>,
    pub(crate) pipeline: CommitPipeline,
    pub(crate) snapshots: Arc<SnapshotList>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Keys that transactions have locked.
    pub(crate) locks: LockTable,
    pub(crate) transactions: TransactionCounters,
    pub(crate) indexes: Indexes,
    /// `None` without a log: read-only and in-memory databases.
    pub(crate) pool: Option<Arc<SegmentPool>>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) read_cost: Arc<ReadCost>,
    pub(crate) limiter: RateLimiter,
    pub(crate) precedence: Precedence,
    pub(crate) compactions: Mutex<CompactionState>,
    pub(crate) counters: Counters,
}

/// Totals since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: AtomicU64,
    pub(crate) flush_bytes_written: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) trivial_moves: AtomicU64,
    pub(crate) compaction_bytes_read: AtomicU64,
    pub(crate) compaction_bytes_written: AtomicU64,
    pub(crate) compaction_value_bytes_written: AtomicU64,
    pub(crate) ingest_bytes_written: AtomicU64,
    pub(crate) user_bytes_written: Striped<AtomicU64>,
}

impl Core {
    /// A point to read at that nothing is kept alive for but the view: for iterators.
    ///
    /// The view first, then the sequence number: a compaction that this view already includes dropped only what was invisible then.
    pub(crate) fn read_point(&self) -> ReadPoint {
        let view = self.views.load();
        ReadPoint::new(view, self.pipeline.visible(), None)
    }

    /// Runs `read` with the current view and what is visible in it.
    #[inline]
    pub(crate) fn with_view<R>(&self, read: impl FnOnce(&Arc<View>, Sequence) -> R) -> R {
        self.views.with(|view| read(view, self.pipeline.visible()))
    }

    /// Registers a snapshot of what is visible now.
    pub(crate) fn snapshot(&self) -> SnapshotGuard {
        self.snapshots.register(|| self.pipeline.visible())
    }

    /// The one rule for changes of the manifest that failed: if nobody knows whether one is in force, all later writes are refused. They
    /// would belong to one state or the other: go into a keyspace that may be gone, take the sequence number of an ingest that may be
    /// there. Only reopening can tell. A full disk leaves the manifest as it was.
    pub(crate) fn recorded<R>(&self, changed: Result<R>) -> Result<R> {
        changed.inspect_err(|_| {
            if let Some(failure) = self.versions.failure() {
                self.pipeline.fail(failure.context("cannot record a change of tables"));
            }
        })
    }
}

/// Wakes background threads, and tells them to stop.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    generation: Mutex<u64>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Signals {
    /// Something changed that a background thread may want to act on.
    pub(crate) fn wake(&self) {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// The number of wake-ups so far: read it, look for work, and if there is none, wait for it to change.
    pub(crate) fn generation(&self) -> u64 {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there was a wake-up after `seen`, or for `patience`.
    pub(crate) fn wait(&self, seen: u64, patience: Duration) {
        let generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        if *generation == seen && !self.is_stopping() {
            drop(self.changed.wait_timeout(generation, patience));
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(crate) fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("directory", &self.directory).finish_non_exhaustive()
    }
}
