//! A compaction plan: which tables to merge into which level, and what may be assumed while doing so.
//!
//! A plan holds its inputs (they stay readable whatever happens meanwhile) and does nothing. [`Running`] remembers the plans being carried
//! out, so that no two of them share a table or write to overlapping ranges of one level.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::file_name::FileNumber;
use crate::limits::LEVELS;
use crate::manifest::{TableHandle, Version};
use crate::sstable::Table;
use crate::sstable::meta::TableMeta;

/// Why a plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Level 0 has too many sub-levels or too many bytes.
    Level0,
    /// A level is larger than its target.
    LevelSize,
    /// A table consists of tombstones for the most part.
    Tombstones,
    /// Most of a table has expired.
    Expired,
    /// A table points to value files that are mostly garbage, or to several small ones.
    Values,
    /// Level 0 costs readers more than merging it does.
    Reads,
    /// Level 0 takes much space, and nobody writes.
    Space,
    /// Somebody asked for the range.
    Manual,
}

/// The keys that some tables span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) smallest: Vec<u8>,
    pub(crate) largest: Vec<u8>,
    /// True if `largest` itself is not covered.
    pub(crate) largest_exclusive: bool,
}

impl KeyRange {
    /// The range of one table.
    pub(crate) fn of(meta: &TableMeta) -> Self {
        Self {
            smallest: meta.smallest.clone(),
            largest: meta.largest.clone(),
            largest_exclusive: meta.largest_exclusive,
        }
    }

    /// The smallest range that holds all of these tables.
    pub(crate) fn hull<'a, T: 'a>(
        tables: impl IntoIterator<Item = &'a Arc<TableHandle<T>>>,
    ) -> Option<Self> {
        let mut tables = tables.into_iter();
        let mut hull = Self::of(&tables.next()?.meta);
        tables.for_each(|table| hull.extend(&table.meta));
        Some(hull)
    }

    /// Grows the range to hold the table too.
    pub(crate) fn extend(&mut self, meta: &TableMeta) {
        if meta.smallest < self.smallest {
            self.smallest.clone_from(&meta.smallest);
        }
        if (&meta.largest, !meta.largest_exclusive) > (&self.largest, !self.largest_exclusive) {
            self.largest.clone_from(&meta.largest);
            self.largest_exclusive = meta.largest_exclusive;
        }
    }

    fn ends_before(&self, key: &[u8]) -> bool {
        let largest = self.largest.as_slice();
        largest < key || (largest == key && self.largest_exclusive)
    }

    /// True if a key may lie in both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        !self.ends_before(&other.smallest) && !other.ends_before(&self.smallest)
    }

    /// True if the table may hold a key of the range.
    pub(crate) fn overlaps_table(&self, meta: &TableMeta) -> bool {
        !self.ends_before(&meta.smallest) && !meta.ends_before(&self.smallest)
    }

    /// The tables of one level that may hold a key of the range.
    pub(crate) fn overlapping_in<T>(
        &self,
        version: &Version<T>,
        level: usize,
    ) -> Vec<Arc<TableHandle<T>>> {
        let mut tables = version.overlapping(level, Some(&self.smallest), Some(&self.largest));
        tables.retain(|table| self.overlaps_table(&table.meta));
        tables
    }
}

/// Tables to merge.
pub(crate) struct Plan<T = Table> {
    pub(crate) input_level: usize,
    /// Where the outputs go; the input level itself if tables are only rewritten.
    pub(crate) output_level: usize,
    /// Tables of the input level: oldest first in level 0, in key order elsewhere.
    pub(crate) inputs: Vec<Arc<TableHandle<T>>>,
    /// All tables of the output level that overlap the inputs, in key order.
    pub(crate) overlapping: Vec<Arc<TableHandle<T>>>,
    /// Tables one below the output level that overlap the plan.
    pub(crate) grandparents: Vec<Arc<TableHandle<T>>>,
    pub(crate) reason: Reason,
    /// True if no level below the output level holds anything of the plan's range, so that tombstones hide nothing down there.
    pub(crate) bottommost: bool,
    range: KeyRange,
    trivial: bool,
}

impl<T> Plan<T> {
    /// Completes a plan with what overlaps its inputs. `None` without inputs.
    pub(super) fn new(
        version: &Version<T>,
        (input_level, output_level): (usize, usize),
        inputs: Vec<Arc<TableHandle<T>>>,
        reason: Reason,
        grandparent_bytes_max: u64,
    ) -> Option<Self> {
        let mut range = KeyRange::hull(&inputs)?;
        let overlapping = if output_level == input_level {
            Vec::new()
        } else {
            range.overlapping_in(version, output_level)
        };
        overlapping.iter().for_each(|table| range.extend(&table.meta));
        let grandparents = range.overlapping_in(version, output_level + 1);
        let bottommost =
            (output_level + 1..LEVELS).all(|level| range.overlapping_in(version, level).is_empty());
        let disjoint = input_level > 0 || {
            let mut by_key: Vec<_> = inputs.iter().map(|table| &table.meta).collect();
            by_key.sort_by(|a, b| a.smallest.cmp(&b.smallest));
            by_key.windows(2).all(|pair| !pair[0].overlaps(pair[1]))
        };
        let grandparent_bytes: u64 = grandparents.iter().map(|table| table.meta.file_bytes).sum();
        let allowed = grandparent_bytes_max.saturating_mul(inputs.len() as u64);
        // Moved to the bottom as they are, tombstones would stay for ever.
        let worth_rewriting =
            bottommost && inputs.iter().any(|table| is_tombstone_dense(&table.meta));
        let trivial = output_level != input_level
            && overlapping.is_empty()
            && disjoint
            && grandparent_bytes <= allowed
            && !worth_rewriting;
        Some(Self {
            input_level,
            output_level,
            inputs,
            overlapping,
            grandparents,
            reason,
            bottommost,
            range,
            trivial,
        })
    }

    /// True if the inputs can change their level as they are.
    pub(crate) fn is_trivial_move(&self) -> bool {
        self.trivial
    }

    /// Every table that the plan replaces.
    pub(crate) fn all_inputs(&self) -> impl Iterator<Item = &Arc<TableHandle<T>>> {
        self.inputs.iter().chain(&self.overlapping)
    }

    /// Every table that the plan replaces, with its level.
    pub(crate) fn removals(&self) -> Vec<(usize, FileNumber)> {
        let upper = self.inputs.iter().map(|table| (self.input_level, table.number()));
        let lower = self.overlapping.iter().map(|table| (self.output_level, table.number()));
        upper.chain(lower).collect()
    }

    /// Bytes to read.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.all_inputs().map(|table| table.meta.file_bytes).sum()
    }
}

impl<T> fmt::Display for Plan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = |tables: &[Arc<TableHandle<T>>]| -> String {
            let numbers: Vec<_> = tables.iter().map(|table| table.number().to_string()).collect();
            numbers.join(" ")
        };
        let (from, to) = (self.input_level, self.output_level);
        write!(f, "{:?} L{from} [{}] + L{to}", self.reason, numbers(&self.inputs))?;
        write!(f, " [{}] below [{}]", numbers(&self.overlapping), numbers(&self.grandparents))?;
        if self.trivial {
            f.write_str(" move")?;
        }
        if self.bottommost {
            f.write_str(" bottommost")?;
        }
        Ok(())
    }
}

impl<T> fmt::Debug for Plan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// True if compacting the table is likely to free more than its own size.
pub(super) fn is_tombstone_dense(meta: &TableMeta) -> bool {
    meta.range_tombstones > 0 || meta.deletions.saturating_mul(2) > meta.entries
}

/// The plans that are being carried out.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// By the number of the first input, which no other plan has.
    plans: HashMap<FileNumber, RunningPlan>,
    tables: HashSet<FileNumber>,
}

#[derive(Debug)]
struct RunningPlan {
    output_level: usize,
    range: KeyRange,
}

impl Running {
    /// Remembers a plan that begins.
    pub(crate) fn add<T>(&mut self, plan: &Plan<T>) {
        let Some(first) = plan.inputs.first() else { return };
        self.tables.extend(plan.all_inputs().map(|table| table.number()));
        let entry = RunningPlan { output_level: plan.output_level, range: plan.range.clone() };
        self.plans.insert(first.number(), entry);
    }

    /// Forgets a plan that ended, well or not.
    pub(crate) fn remove<T>(&mut self, plan: &Plan<T>) {
        let Some(first) = plan.inputs.first() else { return };
        if self.plans.remove(&first.number()).is_some() {
            for table in plan.all_inputs() {
                self.tables.remove(&table.number());
            }
        }
    }

    /// Keeps a place in a level free for the table `number`.
    pub(crate) fn reserve(&mut self, number: FileNumber, level: usize, range: KeyRange) {
        self.plans.insert(number, RunningPlan { output_level: level, range });
    }

    /// Gives up the place that was reserved for the table.
    pub(crate) fn release(&mut self, number: FileNumber) {
        self.plans.remove(&number);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.plans.len()
    }

    /// True if the table is an input of a running plan.
    pub(crate) fn is_busy(&self, number: FileNumber) -> bool {
        self.tables.contains(&number)
    }

    /// True if a running plan reads or writes anything of the range.
    pub(crate) fn touches(&self, range: &KeyRange) -> bool {
        self.plans.values().any(|running| running.range.overlaps(range))
    }

    /// True if the plan shares a table with a running one, or would write where a running one writes.
    pub(crate) fn conflicts<T>(&self, plan: &Plan<T>) -> bool {
        plan.all_inputs().any(|table| self.is_busy(table.number()))
            || self.plans.values().any(|running| {
                running.output_level == plan.output_level && running.range.overlaps(&plan.range)
            })
    }
}
