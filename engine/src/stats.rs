//! Numbers about an open database, for people and for machines.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::core::Core;
use crate::limits::LEVELS;
use crate::read::snapshot::SnapshotHolder;

/// Size of one level of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LevelStats {
    /// Table files.
    pub tables: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Sorted runs: the tables that a lookup may have to ask. At most 1 below level 0.
    pub runs: usize,
}

/// How many transactions there were, and how they ended. A write to a keyspace with indexes is a transaction, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TransactionStats {
    /// Begun. Those that are neither in `committed` nor in `rolled_back` are open.
    pub begun: u64,
    /// Committed; with `commit_async`, as soon as the commit has its place in the order.
    pub committed: u64,
    /// Ended in any other way: rolled back, dropped, or refused.
    pub rolled_back: u64,
    /// Got `Conflict`, at commit or at `get_for_update`.
    pub conflicts: u64,
    /// Times that `get_for_update` gave `LockTimeout`.
    pub lock_timeouts: u64,
    /// Times that `get_for_update` gave `Deadlock`.
    pub deadlocks: u64,
}

/// Numbers about an open database. Totals count from when it was opened. Prints as a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Which I/O backend is in use, and why, if it is a fallback.
    pub io: String,
    /// How the log is written; empty without a log.
    pub log: String,
    /// The newest visible sequence number.
    pub sequence: u64,
    /// Memtables in memory, the active one included.
    pub memtables: usize,
    /// Bytes of all memtables.
    pub memtable_bytes: u64,
    /// Bytes of decompressed blocks in the cache.
    pub block_cache_bytes: u64,
    /// Lookups that the block cache answered.
    pub block_cache_hits: u64,
    /// Lookups that the block cache did not answer.
    pub block_cache_misses: u64,
    /// Bytes of indexes and filters of all tables; they live in memory maps, which the kernel can reclaim.
    pub index_and_filter_bytes: u64,
    /// The bound on private memory that the options set: memtables, block cache, and buffers of background work.
    pub memory_bound_bytes: u64,
    /// Bytes of log segment files in use.
    pub log_bytes: u64,
    /// The levels of the tree, level 0 first.
    pub levels: [LevelStats; LEVELS],
    /// Value files.
    pub value_files: usize,
    /// Bytes of value files.
    pub value_file_bytes: u64,
    /// Bytes in value files that no table points to any more.
    pub value_garbage_bytes: u64,
    /// Value files that are so small that compactions merge those that one table points to.
    pub value_files_small: usize,
    /// Live snapshots.
    pub snapshots: usize,
    /// The oldest sequence number that a snapshot holds, named ones included.
    pub oldest_snapshot: Option<u64>,
    /// Who holds snapshots, oldest first: what they need is kept by compactions.
    pub snapshot_holders: Vec<SnapshotHolder>,
    /// Transactions.
    pub transactions: TransactionStats,
    /// Bytes of batches that were committed.
    pub user_bytes_written: u64,
    /// Bytes of tables and value files that ingests added.
    pub ingest_bytes_written: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of tables and value files that flushes wrote.
    pub flush_bytes_written: u64,
    /// Compactions, trivial moves not included.
    pub compactions: u64,
    /// Compactions that only moved a table.
    pub trivial_moves: u64,
    /// Bytes that compactions read.
    pub compaction_bytes_read: u64,
    /// Bytes that compactions wrote.
    pub compaction_bytes_written: u64,
    /// Of these, bytes of value files: values that were separated late, or moved.
    pub compaction_value_bytes_written: u64,
    /// Bytes by which levels exceed their targets.
    pub compaction_debt_bytes: u64,
    /// Time that writers were held back, over all threads.
    pub stalled: Duration,
    /// Why writes are refused, if they are.
    pub failure: Option<String>,
}

impl Stats {
    pub(crate) fn gather(core: &Core) -> Self {
        let view = core.views.load();
        let mut levels = [LevelStats::default(); LEVELS];
        for (number, level) in levels.iter_mut().enumerate() {
            level.tables = view.version.level_len(number);
            level.bytes = view.version.level_bytes(number);
            level.runs =
                view.version.level_runs(number).iter().filter(|run| !run.is_empty()).count();
        }
        let values = core.rules.values.usage(&view.version, core.options.table_bytes);
        let (snapshots, oldest_snapshot) = core.snapshots.summary();
        let (_, _, log_bytes) = core.pipeline.log_position();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &core.counters;
        let cache = &core.env.cache;
        Self {
            io: core.file_system.description(),
            log: core.pool.as_ref().map(|pool| pool.device().description()).unwrap_or_default(),
            sequence: core.pipeline.visible(),
            memtables: 1 + view.frozen.len(),
            memtable_bytes: view.memtables().map(|memtable| memtable.memory_usage() as u64).sum(),
            block_cache_bytes: cache.used_bytes(),
            block_cache_hits: cache.hits(),
            block_cache_misses: cache.misses(),
            index_and_filter_bytes: view
                .version
                .tables()
                .map(|(_, handle)| handle.table.index_and_filter_bytes())
                .sum(),
            memory_bound_bytes: core.options.memory_bound_bytes(),
            log_bytes,
            levels,
            value_files: values.files,
            value_file_bytes: values.file_bytes,
            value_garbage_bytes: values.garbage_bytes,
            value_files_small: values.movable.small.len(),
            snapshots,
            oldest_snapshot,
            snapshot_holders: core.snapshots.holders(),
            transactions: core.transactions.totals(),
            user_bytes_written: counters.user_bytes_written.iter().map(count).sum(),
            ingest_bytes_written: count(&counters.ingest_bytes_written),
            flushes: count(&counters.flushes),
            flush_bytes_written: count(&counters.flush_bytes_written),
            compactions: count(&counters.compactions),
            trivial_moves: count(&counters.trivial_moves),
            compaction_bytes_read: count(&counters.compaction_bytes_read),
            compaction_bytes_written: count(&counters.compaction_bytes_written),
            compaction_value_bytes_written: count(&counters.compaction_value_bytes_written),
            compaction_debt_bytes: core.debt_bytes(&view.version),
            stalled: core.pipeline.stall().stalled(),
            failure: core.pipeline.failure().map(ToString::to_string),
        }
    }

    /// Bytes of all tables.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }

    /// Bytes written to tables for each byte that the user wrote; the log is not counted.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        let written = self.flush_bytes_written + self.compaction_bytes_written;
        written as f64 / self.user_bytes_written.max(1) as f64
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(f, "{name:<24} {value}");
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        line("I/O", self.io.clone())?;
        line("log", format!("{}; {}", self.log, mib(self.log_bytes)))?;
        line("memtables", format!("{}; {}", self.memtables, mib(self.memtable_bytes)))?;
        line(
            "block cache",
            format!(
                "{}; {} hits, {} misses",
                mib(self.block_cache_bytes),
                self.block_cache_hits,
                self.block_cache_misses
            ),
        )?;
        line("indexes and filters", mib(self.index_and_filter_bytes))?;
        line("memory bound", mib(self.memory_bound_bytes))?;
        for (number, level) in self.levels.iter().enumerate().filter(|(_, level)| level.tables > 0)
        {
            line(
                &format!("level {number}"),
                format!("{} tables, {} runs, {}", level.tables, level.runs, mib(level.bytes)),
            )?;
        }
        if self.value_files > 0 {
            let (all, garbage) = (mib(self.value_file_bytes), mib(self.value_garbage_bytes));
            let (files, small) = (self.value_files, self.value_files_small);
            line("value files", format!("{files}; {all}, {garbage} of it garbage; {small} small"))?;
            let moved = mib(self.compaction_value_bytes_written);
            line("  by compactions", format!("{moved} written"))?;
        }
        line("snapshots", self.snapshots.to_string())?;
        for holder in &self.snapshot_holders {
            let name = holder.name.as_deref().unwrap_or("(not named)");
            let (count, sequence, age) = (holder.count, holder.sequence, holder.age.as_secs());
            line("  held by", format!("{name}: {count} at sequence {sequence} for {age} s"))?;
        }
        let TransactionStats { begun, committed, rolled_back, .. } = self.transactions;
        let TransactionStats { conflicts, lock_timeouts, deadlocks, .. } = self.transactions;
        line(
            "transactions",
            format!("{begun} begun, {committed} committed, {rolled_back} rolled back"),
        )?;
        line(
            "  met",
            format!("{conflicts} conflicts, {lock_timeouts} lock timeouts, {deadlocks} deadlocks"),
        )?;
        line("ingests", format!("{} written", mib(self.ingest_bytes_written)))?;
        line("flushes", format!("{}; {} written", self.flushes, mib(self.flush_bytes_written)))?;
        line(
            "compactions",
            format!(
                "{} and {} moves; {} read, {} written",
                self.compactions,
                self.trivial_moves,
                mib(self.compaction_bytes_read),
                mib(self.compaction_bytes_written)
            ),
        )?;
        line("compaction debt", mib(self.compaction_debt_bytes))?;
        line("write amplification", format!("{:.2}", self.write_amplification()))?;
        line("writers held back", format!("{:.3} s", self.stalled.as_secs_f64()))?;
        match &self.failure {
            Some(failure) => line("failed", failure.clone()),
            None => Ok(()),
        }
    }
}
