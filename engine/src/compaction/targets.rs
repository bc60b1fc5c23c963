//! How large each level should be, and how far it is from that.
//!
//! Targets follow the data: the largest level keeps its size, each level above it should be `level_ratio` times smaller, up to the *base
//! level*, whose target is at most `level_base_bytes` and into which level 0 is compacted. Levels above the base level should be
//! empty. So most data is always in the last level, and space amplification stays near `1 + 1/ratio` however much data there is.

use crate::compaction::plan::Running;
use crate::limits::LEVELS;
use crate::manifest::Version;
use crate::options::Options;

/// The deepest level.
pub(super) const LAST_LEVEL: usize = LEVELS - 1;

/// Target sizes of the levels of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LevelTargets {
    /// Where level 0 goes: no deeper than the first level that holds anything.
    pub(crate) base_level: usize,
    bytes: [u64; LEVELS],
}

impl LevelTargets {
    /// The targets for `version`.
    pub(crate) fn of<T>(version: &Version<T>, options: &Options) -> Self {
        let largest = (1..LEVELS).map(|level| version.level_bytes(level)).max().unwrap_or(0);
        // What lies above the base level should move down whatever its size: a target of one byte says so.
        let mut bytes = [1; LEVELS];
        let mut level = LAST_LEVEL;
        let mut size = largest;
        bytes[level] = largest.max(options.level_base_bytes);
        while size > options.level_base_bytes && level > 1 {
            level -= 1;
            size /= options.level_ratio.max(2);
            bytes[level] = size.max(1);
        }
        let first_filled = (1..LEVELS).find(|&level| version.level_len(level) > 0);
        Self { base_level: level.min(first_filled.unwrap_or(level)), bytes }
    }

    /// Target size of a level from 1 on.
    pub(crate) fn bytes(&self, level: usize) -> u64 {
        self.bytes.get(level).copied().unwrap_or(u64::MAX)
    }

    /// How urgent a level from 1 on is: at 1 it is full.
    pub(super) fn score<T>(&self, version: &Version<T>, level: usize, running: &Running) -> f64 {
        let waiting = version.level_tables(level).filter(|table| !running.is_busy(table.number()));
        let bytes: u64 = waiting.map(|table| table.meta.file_bytes).sum();
        bytes as f64 / self.bytes(level) as f64
    }

    /// Bytes above the target of a level from 1 on.
    pub(super) fn excess<T>(&self, version: &Version<T>, level: usize) -> u64 {
        version.level_bytes(level).saturating_sub(self.bytes(level))
    }
}

/// How urgent level 0 is: at 1 it should be compacted.
pub(super) fn level0_score<T>(version: &Version<T>, options: &Options, running: &Running) -> f64 {
    let mut sub_levels = 0;
    let mut bytes = 0;
    for run in version.l0() {
        let waiting = run.tables().iter().filter(|table| !running.is_busy(table.number()));
        let run_bytes: u64 = waiting.map(|table| table.meta.file_bytes).sum();
        sub_levels += u64::from(run_bytes > 0);
        bytes += run_bytes;
    }
    let by_count = sub_levels as f64 / options.l0_compaction_trigger.max(1) as f64;
    let by_bytes = bytes as f64 / options.level_base_bytes.max(1) as f64;
    by_count.max(by_bytes)
}

/// Runs of level 0, or half memtables, if it holds more of those: what writers are delayed by.
///
/// A run costs readers the same whatever its size, and its bytes cost the compaction: with a full memtable in each, half as many runs are as
/// much of a debt.
pub(crate) fn level0_load<T>(version: &Version<T>, options: &Options) -> usize {
    let run_bytes = (options.memtable_bytes as u64 / 2).max(1);
    let by_bytes = version.level_bytes(0) / run_bytes;
    version.l0().len().max(usize::try_from(by_bytes).unwrap_or(usize::MAX))
}

/// Bytes that compactions have yet to move before every level is within its target: what writers are delayed by.
pub(crate) fn debt_bytes<T>(version: &Version<T>, options: &Options) -> u64 {
    let targets = LevelTargets::of(version, options);
    let deeper: u64 = (1..LAST_LEVEL).map(|level| targets.excess(version, level)).sum();
    // The oldest sub-levels have waited longest, and hold what is beyond the trigger.
    let beyond = version.l0().len().saturating_sub(options.l0_compaction_trigger);
    let runs: u64 = version.l0().iter().rev().take(beyond).map(|run| run.bytes()).sum();
    let bytes = version.level_bytes(0).saturating_sub(options.level_base_bytes);
    deeper.saturating_add(runs.max(bytes))
}
