//! A version: the tables of the database at one moment, by level. Immutable and shared.
//!
//! Levels from 1 on are one sorted run each. Level 0 takes flushed memtables, which may overlap; they are arranged in *sub-levels*,
//! each a sorted run: a table sits one above the highest sub-level that holds an older table overlapping it. So flushes that do not
//! overlap (a sequential load) share one run, and the number of sub-levels is the number of tables that a lookup may have to ask.
//!
//! The law that lookups rely on: for any key, of two sources of [`Version::sources`] that may say something about it, the earlier is
//! the newer. Within level 0 it holds by the arrangement above, between levels because compactions only move data down together
//! with everything older that overlaps it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::file_name::FileNumber;
use crate::limits::LEVELS;
use crate::manifest::edit::check_bounds;
use crate::manifest::run::{Run, TableHandle};
use crate::sstable::Table;

/// All tables of the database, by level.
pub(crate) struct Version<T = Table> {
    /// Sub-levels of level 0, newest first.
    l0: Vec<Arc<Run<T>>>,
    /// Levels 1 and deeper.
    deeper: [Arc<Run<T>>; LEVELS - 1],
}

impl<T> Version<T> {
    pub(crate) fn empty() -> Self {
        let empty = Arc::new(Run::empty());
        Self { l0: Vec::new(), deeper: std::array::from_fn(|_| Arc::clone(&empty)) }
    }

    /// The version with these tables.
    pub(crate) fn new(tables: Vec<(usize, Arc<TableHandle<T>>)>) -> Result<Self, String> {
        Self::empty().with_changes(&[], tables)
    }

    /// This version without the `removed` tables and with the `added` ones. Runs that do not change are shared.
    pub(crate) fn with_changes(
        &self,
        removed: &[(usize, FileNumber)],
        added: Vec<(usize, Arc<TableHandle<T>>)>,
    ) -> Result<Self, String> {
        let mut removals: [HashSet<FileNumber>; LEVELS] = Default::default();
        for &(level, number) in removed {
            let set = removals.get_mut(level).ok_or("a level beyond the last")?;
            if !set.insert(number) || !self.level_contains(level, number) {
                return Err(format!("table {number:06} is not in level {level}"));
            }
        }
        let mut additions: [Vec<Arc<TableHandle<T>>>; LEVELS] = Default::default();
        for (level, table) in added {
            let detail = |what| format!("table {:06}: {what}", table.number());
            check_bounds(&table.meta).map_err(detail)?;
            additions.get_mut(level).ok_or("a level beyond the last")?.push(table);
        }
        let mut additions = additions.into_iter();
        let mut removals = removals.iter();
        let (l0_removed, l0_added) = (removals.next().expect("level 0"), additions.next());
        let l0_added = l0_added.unwrap_or_default();
        let mut version = Self { l0: self.l0.clone(), deeper: self.deeper.clone() };
        if !l0_removed.is_empty() || !l0_added.is_empty() {
            let kept = self.level_tables(0).filter(|table| !l0_removed.contains(&table.number()));
            version.l0 = arrange(kept.cloned().chain(l0_added).collect())?;
        }
        for (run, (removed, added)) in version.deeper.iter_mut().zip(removals.zip(additions)) {
            if !removed.is_empty() || !added.is_empty() {
                *run = Arc::new(run.with_changes(removed, added)?);
            }
        }
        Ok(version)
    }

    /// Sub-levels of level 0, newest first.
    pub(crate) fn l0(&self) -> &[Arc<Run<T>>] {
        &self.l0
    }

    /// The run of a level from 1 on.
    pub(crate) fn run(&self, level: usize) -> &Arc<Run<T>> {
        debug_assert!(level > 0, "level 0 has sub-levels");
        &self.deeper[level - 1]
    }

    /// Every sorted run, so that of two that may hold a key, the earlier holds the newer version.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Arc<Run<T>>> {
        self.l0.iter().chain(&self.deeper).filter(|run| !run.is_empty())
    }

    /// Every table with its level, newest runs first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (usize, &Arc<TableHandle<T>>)> {
        (0..LEVELS).flat_map(|level| self.level_tables(level).map(move |table| (level, table)))
    }

    /// The tables of one level.
    pub(crate) fn level_tables(&self, level: usize) -> impl Iterator<Item = &Arc<TableHandle<T>>> {
        self.level_runs(level).iter().flat_map(|run| run.tables())
    }

    /// The sorted runs of one level, newest first.
    pub(crate) fn level_runs(&self, level: usize) -> &[Arc<Run<T>>] {
        match level.checked_sub(1) {
            None => &self.l0,
            Some(index) => self.deeper.get(index..=index).unwrap_or_default(),
        }
    }

    /// The tables of a level that may say something about a key from `lo` to `hi`, both inclusive; `None` is no bound.
    pub(crate) fn overlapping(
        &self,
        level: usize,
        lo: Option<&[u8]>,
        hi: Option<&[u8]>,
    ) -> Vec<Arc<TableHandle<T>>> {
        let runs = self.level_runs(level).iter();
        runs.flat_map(|run| run.overlapping(lo, hi)).cloned().collect()
    }

    /// Bytes of the files of one level.
    pub(crate) fn level_bytes(&self, level: usize) -> u64 {
        self.level_runs(level).iter().map(|run| run.bytes()).sum()
    }

    /// Number of tables of one level.
    pub(crate) fn level_len(&self, level: usize) -> usize {
        self.level_runs(level).iter().map(|run| run.len()).sum()
    }

    fn level_contains(&self, level: usize, number: FileNumber) -> bool {
        self.level_tables(level).any(|table| table.number() == number)
    }

    /// Checks what must hold of every version; says what does not.
    ///
    /// The order inside each run was checked when the run was built; here it is checked that no table is in two places and that the
    /// sub-levels of level 0 are in the order of age wherever they overlap.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut places = HashMap::new();
        for (level, table) in self.tables() {
            if let Some(other) = places.insert(table.number(), level) {
                return Err(format!(
                    "table {:06} is in level {other} and again in level {level}",
                    table.number()
                ));
            }
        }
        for (index, newer_run) in self.l0.iter().enumerate() {
            for newer in newer_run.tables() {
                let range =
                    (Some(newer.meta.smallest.as_slice()), Some(newer.meta.largest.as_slice()));
                for older in
                    self.l0[index + 1..].iter().flat_map(|run| run.overlapping(range.0, range.1))
                {
                    if older.meta.overlaps(&newer.meta) && age(older) > age(newer) {
                        return Err(format!(
                            "table {:06} of level 0 lies above the newer table {:06}",
                            newer.number(),
                            older.number()
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

impl<T> std::fmt::Debug for Version<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version").field("l0", &self.l0).field("deeper", &self.deeper).finish()
    }
}

/// What level 0 is ordered by. Flushes happen in the order of their sequence numbers, and the sequence ranges of two flushes do not
/// cross; the tables of one flush do not overlap in keys, so that their order among each other does not matter.
pub(crate) fn age<T>(table: &TableHandle<T>) -> (u64, FileNumber) {
    (table.meta.largest_sequence, table.number())
}

/// Arranges the tables of level 0 in sub-levels, newest first.
fn arrange<T>(mut tables: Vec<Arc<TableHandle<T>>>) -> Result<Vec<Arc<Run<T>>>, String> {
    tables.sort_by_key(|table| age(table));
    // Oldest first, and each kept in key order, so that overlap is found by binary search.
    let mut sub_levels: Vec<Vec<Arc<TableHandle<T>>>> = Vec::new();
    for table in tables {
        let above = sub_levels
            .iter()
            .rposition(|run| {
                let after =
                    run.partition_point(|other| other.meta.ends_before(&table.meta.smallest));
                run.get(after).is_some_and(|other| !table.meta.ends_before(&other.meta.smallest))
            })
            .map_or(0, |highest| highest + 1);
        if above == sub_levels.len() {
            sub_levels.push(Vec::new());
        }
        let run = &mut sub_levels[above];
        let at = run.partition_point(|other| other.meta.smallest < table.meta.smallest);
        run.insert(at, table);
    }
    sub_levels.into_iter().rev().map(|tables| Run::new(tables).map(Arc::new)).collect()
}
