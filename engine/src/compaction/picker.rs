//! What to compact next: a pure function of a version, the options and the plans that are running.
//!
//! Every plan keeps the order of age: what it moves below another table is older wherever the two overlap. In level 0 that means that
//! a table only moves together with all older tables of level 0 that overlap it. From level 1 on it follows from the levels.
//!
//! The most urgent level goes first (level 0 by its sub-levels, the others by size against target). Within a level the table goes
//! first that costs the least rewriting below for its size, tombstone-dense ones before others.
//!
//! Tables that consist of tombstones are sent down to what they delete before that, unless level 0 is so full that
//! writers will soon be delayed: readers of such a range pass over what they do not see. In level 0 that is done only where the tombstones
//! hide much of what lies below, or deletes all over a large database would have it rewritten again and again.
//!
//! When no level is over its target, level 0 is merged if readers have paid for that, or if writers pause and it takes much of the space. Then tables of which more than half has expired are
//! rewritten where they are, which leaves tombstones of them or nothing. So are tables that point to value files that are mostly
//! garbage, or to several small ones, which moves their values to new files.

use std::sync::Arc;
use std::time::Duration;

use crate::compaction::plan::{KeyRange, Plan, Reason, Running, is_tombstone_dense};
use crate::compaction::space;
use crate::compaction::targets::{LAST_LEVEL, LevelTargets, level0_score};
use crate::file_name::FileNumber;
use crate::kinds::expiry::Millis;
use crate::limits::LEVELS;
use crate::manifest::{TableHandle, Version};
use crate::options::Options;
use crate::sstable::Table;
use crate::sstable::meta::TableMeta;
use crate::values::Movable;

type Tables<T> = Vec<Arc<TableHandle<T>>>;

/// Tables of the size of an output that a plan may read: bounds how long one compaction takes and how much space it needs.
const PLAN_TABLES_MAX: u64 = 25;

/// Tables of the size of an output that a moved table may overlap one level further down, before it is better rewritten in pieces.
const GRANDPARENT_TABLES_MAX: u64 = 10;

/// From this score of level 0 on, tombstones wait: it would soon delay writers.
const PRESSING_SCORE: f64 = 2.0;

/// Tombstones of a table of level 0 are worth a compaction of their own if they are at least so many, and if there is at most so many
/// times that below them.
const TOMBSTONES_MIN: u64 = 1024;
const RECORDS_BELOW_MAX: u64 = 4;

/// What a pick depends on.
pub(crate) struct PickerInput<'a, T = Table> {
    pub(crate) version: &'a Version<T>,
    pub(crate) options: &'a Options,
    pub(crate) running: &'a Running,
    pub(crate) cursors: &'a Cursors,
    /// Unix time, for what has expired.
    pub(crate) now: Millis,
    /// Readers have paid for merging level 0.
    pub(crate) reads_pay: bool,
    /// Time since the last flush.
    pub(crate) quiet: Duration,
    /// What should move of the value files.
    pub(crate) movable: &'a Movable,
}

impl<T> Clone for PickerInput<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for PickerInput<'_, T> {}

/// Where the last plan of each level ended, so that equally good tables take turns.
#[derive(Debug, Default)]
pub(crate) struct Cursors([Vec<u8>; LEVELS]);

impl Cursors {
    /// The next pick in the plan's level begins after the plan.
    pub(crate) fn advance<T>(&mut self, plan: &Plan<T>) {
        if let (Some(cursor), Some(last)) = (self.0.get_mut(plan.input_level), plan.inputs.last()) {
            cursor.clone_from(&last.meta.largest);
        }
    }

    fn is_behind(&self, level: usize, key: &[u8]) -> bool {
        self.0.get(level).is_some_and(|cursor| key <= cursor.as_slice())
    }
}

/// The most useful compaction that can run beside the running ones, if any is needed.
pub(crate) fn pick<T>(input: PickerInput<'_, T>) -> Option<Plan<T>> {
    let PickerInput { version, options, running, .. } = input;
    let targets = LevelTargets::of(version, options);
    let mut urgent = vec![(level0_score(version, options, running), 0)];
    urgent.extend((1..LAST_LEVEL).map(|level| (targets.score(version, level, running), level)));
    urgent.retain(|&(score, _)| score >= 1.0);
    // Stable, so that of equally urgent levels the upper one comes first.
    urgent.sort_by(|a, b| b.0.total_cmp(&a.0));
    let pressing = urgent.iter().any(|&(score, level)| level == 0 && score >= PRESSING_SCORE);
    let tombstones = || pick_tombstones(input, targets.base_level);
    if !pressing && let Some(plan) = tombstones() {
        return Some(plan);
    }
    urgent
        .into_iter()
        .find_map(|(_, level)| match level {
            0 => pick_level0(input, targets.base_level, Reason::Level0, None),
            _ => pick_level(input, level, targets.excess(version, level)),
        })
        .or_else(|| {
            let reads = input.reads_pay && is_worth_merging(version);
            let reason = match reads {
                true => Reason::Reads,
                false if space::is_due(version, input.quiet) => Reason::Space,
                false => return None,
            };
            pick_level0(input, targets.base_level, reason, None)
        })
        .or_else(tombstones)
        .or_else(|| pick_stale(input, targets.base_level))
}

/// Bytes that merging level 0 away takes; `None` if readers would gain nothing.
pub(crate) fn level0_merge_bytes<T>(version: &Version<T>, options: &Options) -> Option<u64> {
    let base_level = LevelTargets::of(version, options).base_level;
    is_worth_merging(version).then(|| version.level_bytes(0) + version.level_bytes(base_level))
}

/// Whether level 0 holds more than one run with all levels would.
fn is_worth_merging<T>(version: &Version<T>) -> bool {
    let deeper = usize::from((1..LEVELS).any(|level| version.level_len(level) > 0));
    !version.l0().is_empty() && version.l0().len() + deeper > 1
}

/// A plan, if it can run beside the running ones.
fn plan_for<T>(
    input: PickerInput<'_, T>,
    levels: (usize, usize),
    tables: Tables<T>,
    reason: Reason,
) -> Option<Plan<T>> {
    let below_max = GRANDPARENT_TABLES_MAX.saturating_mul(input.options.table_bytes);
    let plan = Plan::new(input.version, levels, tables, reason, below_max)?;
    (!input.running.conflicts(&plan)).then_some(plan)
}

fn plan_bytes_max(options: &Options) -> u64 {
    options.table_bytes.saturating_mul(PLAN_TABLES_MAX).max(options.level_base_bytes)
}

fn same_keyspace<T>(a: &TableHandle<T>, b: &TableHandle<T>) -> bool {
    a.meta.keyspace() == b.meta.keyspace()
}

/// Tables of level 0 that are connected by overlap.
struct Cluster<T> {
    /// Oldest first.
    tables: Tables<T>,
    range: KeyRange,
    sub_levels: usize,
}

/// Tables with the indexes of their sub-levels.
type Members<'a, T> = Vec<(usize, &'a Arc<TableHandle<T>>)>;

/// The clusters of level 0, in key order.
fn clusters<T>(version: &Version<T>) -> Vec<Cluster<T>> {
    let runs = version.l0().iter().enumerate();
    let mut tables: Vec<_> = runs
        .flat_map(|(index, run)| run.tables().iter().map(move |table| (index, table)))
        .collect();
    tables.sort_by(|a, b| a.1.meta.smallest.cmp(&b.1.meta.smallest));
    let mut clusters: Vec<(Members<'_, T>, KeyRange)> = Vec::new();
    for (index, table) in tables {
        match clusters.last_mut() {
            Some((members, range)) if range.overlaps_table(&table.meta) => {
                range.extend(&table.meta);
                members.push((index, table));
            }
            _ => clusters.push((vec![(index, table)], KeyRange::of(&table.meta))),
        }
    }
    let finish = |(mut members, range): (Members<'_, T>, KeyRange)| {
        let mut indexes: Vec<usize> = members.iter().map(|member| member.0).collect();
        indexes.sort_unstable();
        indexes.dedup();
        // Sub-levels are newest first, and the tables of one do not overlap.
        members.sort_by_key(|member| std::cmp::Reverse(member.0));
        let tables = members.into_iter().map(|(_, table)| Arc::clone(table)).collect();
        Cluster { tables, range, sub_levels: indexes.len() }
    };
    clusters.into_iter().map(finish).collect()
}

/// A plan that takes from level 0; only from clusters that touch `within`, if that is given.
fn pick_level0<T>(
    input: PickerInput<'_, T>,
    base_level: usize,
    reason: Reason,
    within: Option<Bounds<'_>>,
) -> Option<Plan<T>> {
    let mut clusters = clusters(input.version);
    clusters.retain(|cluster| within.is_none_or(|bounds| bounds.touches(&cluster.range)));
    if let Some(plan) = move_from_level0(input, base_level, reason, &clusters) {
        return Some(plan);
    }
    clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.sub_levels));
    clusters.into_iter().find_map(|cluster| {
        let tables = oldest_free(&cluster.tables, input);
        plan_for(input, (0, base_level), tables, reason)
    })
}

/// A plan that takes a table of which `wanted` is true out of level 0.
fn pick_level0_where<T>(
    input: PickerInput<'_, T>,
    base_level: usize,
    reason: Reason,
    wanted: impl Fn(&TableMeta) -> bool,
) -> Option<Plan<T>> {
    let level0 = input.version.l0().iter().flat_map(|run| run.tables());
    level0.filter(|table| wanted(&table.meta)).find_map(|table| {
        let (lo, hi) = (Some(&*table.meta.smallest), Some(&*table.meta.largest));
        pick_level0(input, base_level, reason, Some(Bounds { lo, hi }))
    })
}

/// The oldest tables of a cluster, closed under "all older ones that overlap": free ones, up to the size of a plan.
fn oldest_free<T>(cluster: &[Arc<TableHandle<T>>], input: PickerInput<'_, T>) -> Tables<T> {
    let bytes_max = plan_bytes_max(input.options);
    let mut bytes = 0;
    let mut taken: Tables<T> = Vec::new();
    let mut left: Vec<&Arc<TableHandle<T>>> = Vec::new();
    for table in cluster {
        let blocked = input.running.is_busy(table.number())
            || (bytes >= bytes_max && !taken.is_empty())
            || left.iter().any(|older| older.meta.overlaps(&table.meta));
        if blocked {
            left.push(table);
        } else {
            bytes += table.meta.file_bytes;
            taken.push(Arc::clone(table));
        }
    }
    taken
}

/// A move of tables of level 0 that nothing overlaps, neither in level 0 nor in the base level.
fn move_from_level0<T>(
    input: PickerInput<'_, T>,
    base_level: usize,
    reason: Reason,
    clusters: &[Cluster<T>],
) -> Option<Plan<T>> {
    let mut best: Option<Plan<T>> = None;
    for cluster in clusters {
        let [table] = cluster.tables.as_slice() else { continue };
        // Neighbours in key order move together as long as nothing of the base level lies between them.
        let mut tables = best.as_ref().map_or_else(Vec::new, |plan| plan.inputs.clone());
        if tables.last().is_some_and(|last| !same_keyspace(last, table)) {
            return best;
        }
        tables.push(Arc::clone(table));
        match plan_for(input, (0, base_level), tables, reason).filter(Plan::is_trivial_move) {
            Some(plan) => best = Some(plan),
            None if best.is_some() => return best,
            None => {}
        }
    }
    best
}

/// The plan for a level from 1 on that is too large by `excess` bytes.
fn pick_level<T>(input: PickerInput<'_, T>, level: usize, excess: u64) -> Option<Plan<T>> {
    let tables = input.version.run(level).tables();
    let mut candidates: Vec<_> = tables
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let below_bytes = bytes_below(input.version, level + 1, &table.meta);
            // In sixteenths, so that differences that do not matter leave the choice to the cursor.
            let cost = below_bytes.saturating_mul(16) / table.meta.file_bytes.max(1);
            let behind = input.cursors.is_behind(level, &table.meta.smallest);
            (!is_tombstone_dense(&table.meta), cost, behind, index)
        })
        .collect();
    candidates.sort_unstable();
    candidates.into_iter().find_map(|(_, _, _, index)| {
        let seed = plan_for(
            input,
            (level, level + 1),
            vec![Arc::clone(&tables[index])],
            Reason::LevelSize,
        )?;
        Some(grow(input, seed, index, excess))
    })
}

/// Of the tables of `level` that overlap the table, the sum of something.
fn sum_below<T>(
    version: &Version<T>,
    level: usize,
    meta: &TableMeta,
    of: impl Fn(&TableMeta) -> u64,
) -> u64 {
    let near = version.run(level).overlapping(Some(&meta.smallest), Some(&meta.largest));
    let overlapping = near.iter().filter(|table| table.meta.overlaps(meta));
    overlapping.map(|table| of(&table.meta)).sum()
}

/// Bytes of the tables of `level` that overlap the table.
fn bytes_below<T>(version: &Version<T>, level: usize, meta: &TableMeta) -> u64 {
    sum_below(version, level, meta, |below| below.file_bytes)
}

/// Adds neighbours of the plan's one input that bring no further table of the level below with them.
fn grow<T>(input: PickerInput<'_, T>, mut plan: Plan<T>, index: usize, excess: u64) -> Plan<T> {
    let tables = input.version.run(plan.input_level).tables();
    let bytes_max = excess.min(plan_bytes_max(input.options));
    let (mut start, mut end) = (index, index + 1);
    for forward in [true, false] {
        loop {
            let (next_start, next_end) = match (forward, start.checked_sub(1)) {
                (true, _) => (start, end + 1),
                (false, Some(previous)) => (previous, end),
                (false, None) => break,
            };
            let Some(wider) = tables.get(next_start..next_end) else { break };
            let bytes: u64 = wider.iter().map(|table| table.meta.file_bytes).sum();
            if bytes > bytes_max || !wider.iter().all(|table| same_keyspace(table, &tables[index]))
            {
                break;
            }
            let levels = (plan.input_level, plan.output_level);
            match plan_for(input, levels, wider.to_vec(), plan.reason) {
                Some(wider)
                    if wider.overlapping.len() == plan.overlapping.len()
                        && wider.is_trivial_move() == plan.is_trivial_move() =>
                {
                    plan = wider;
                }
                _ => break,
            }
            (start, end) = (next_start, next_end);
        }
    }
    plan
}

/// A plan that sends a table of tombstones down, where there is something below for them to delete.
fn pick_tombstones<T>(input: PickerInput<'_, T>, base_level: usize) -> Option<Plan<T>> {
    let wanted = |meta: &TableMeta| hides_much_below(input.version, meta);
    let from_level0 = pick_level0_where(input, base_level, Reason::Tombstones, wanted);
    from_level0.or_else(|| (1..LAST_LEVEL).find_map(|level| pick_tombstones_of(input, level)))
}

/// Whether point tombstones of a table of level 0 delete a large share of what lies below it.
fn hides_much_below<T>(version: &Version<T>, meta: &TableMeta) -> bool {
    if meta.deletions < TOMBSTONES_MIN || meta.deletions.saturating_mul(2) <= meta.entries {
        return false;
    }
    let entries_in = |level| sum_below(version, level, meta, |below| below.entries);
    let below: u64 = (1..LEVELS).map(entries_in).sum();
    (1..=meta.deletions.saturating_mul(RECORDS_BELOW_MAX)).contains(&below)
}

fn pick_tombstones_of<T>(input: PickerInput<'_, T>, level: usize) -> Option<Plan<T>> {
    let tables = input.version.run(level).tables().iter();
    let mut dense = tables.filter(|table| {
        is_tombstone_dense(&table.meta)
            && (level + 1..LEVELS).any(|level| bytes_below(input.version, level, &table.meta) > 0)
    });
    dense.find_map(|table| {
        plan_for(input, (level, level + 1), vec![Arc::clone(table)], Reason::Tombstones)
    })
}

/// A plan that frees the space of what has expired, or moves values to new files.
fn pick_stale<T>(input: PickerInput<'_, T>, base_level: usize) -> Option<Plan<T>> {
    let has_values_to_move =
        |meta: &TableMeta| !input.movable.moving(meta.values.iter()).is_empty();
    rewrite_where(input, base_level, Reason::Expired, |meta| meta.is_expired(input.now))
        .or_else(|| rewrite_where(input, base_level, Reason::Values, has_values_to_move))
}

/// A plan that rewrites a table of which `wanted` is true: in place, or out of level 0, whose tables have their order by age.
fn rewrite_where<T>(
    input: PickerInput<'_, T>,
    base_level: usize,
    reason: Reason,
    wanted: impl Fn(&TableMeta) -> bool,
) -> Option<Plan<T>> {
    pick_level0_where(input, base_level, reason, &wanted).or_else(|| {
        (1..LEVELS).find_map(|level| {
            let tables = input.version.run(level).tables().iter();
            let mut tables = tables.filter(|table| wanted(&table.meta));
            tables
                .find_map(|table| plan_for(input, (level, level), vec![Arc::clone(table)], reason))
        })
    })
}

/// A range of keys, both bounds inclusive; `None` is no bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    pub(crate) lo: Option<&'a [u8]>,
    pub(crate) hi: Option<&'a [u8]>,
}

impl Bounds<'_> {
    fn touches(self, range: &KeyRange) -> bool {
        let before = self.hi.is_some_and(|hi| hi < range.smallest.as_slice());
        let after = self.lo.is_some_and(|lo| {
            let largest = range.largest.as_slice();
            largest < lo || (largest == lo && range.largest_exclusive)
        });
        !before && !after
    }
}

/// Which tables at the bottom of a range to rewrite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rewrite {
    /// Those with a smaller number. A new file number, taken before the first pick: what was written since then need not be rewritten
    /// again.
    pub(crate) before: FileNumber,
    /// Also those that certainly hold nothing but current values.
    pub(crate) clean_too: bool,
}

/// What is left to do for a range that somebody wants compacted.
#[derive(Debug)]
pub(crate) enum RangePick<T = Table> {
    /// Carry this out, then ask again.
    Plan(Plan<T>),
    /// Wait for a running compaction, then ask again.
    Busy,
    /// Nothing.
    Done,
}

/// The next step to bring everything in `bounds` down to the deepest level that holds something of it, and to rewrite there what may
/// hold tombstones or old versions.
pub(crate) fn pick_range<T>(
    input: PickerInput<'_, T>,
    bounds: Bounds<'_>,
    rewrite: Rewrite,
) -> RangePick<T> {
    let version = input.version;
    let in_range = |level| version.overlapping(level, bounds.lo, bounds.hi);
    let filled = |level: &usize| !in_range(*level).is_empty();
    let or_busy = |plan: Option<Plan<T>>| plan.map_or(RangePick::Busy, RangePick::Plan);
    if filled(&0) {
        let base_level = LevelTargets::of(version, input.options).base_level;
        return or_busy(pick_level0(input, base_level, Reason::Manual, Some(bounds)));
    }
    let Some(bottom) = (1..LEVELS).rev().find(filled) else { return RangePick::Done };
    if let Some(top) = (1..bottom).find(filled) {
        return or_busy(slices(input, (top, top + 1), &in_range(top)));
    }
    let mut stale = in_range(bottom);
    stale.retain(|table| {
        let meta = &table.meta;
        let clean = meta.deletions == 0
            && meta.expiring == 0
            && meta.range_tombstones == 0
            && meta.largest_sequence == 0;
        meta.number < rewrite.before && (rewrite.clean_too || !clean)
    });
    if stale.is_empty() {
        return RangePick::Done;
    }
    or_busy(slices(input, (bottom, bottom), &stale))
}

/// A plan for the first of these tables (in key order) that are free, as many neighbours as fit into one plan.
fn slices<T>(
    input: PickerInput<'_, T>,
    levels: (usize, usize),
    tables: &[Arc<TableHandle<T>>],
) -> Option<Plan<T>> {
    let bytes_max = plan_bytes_max(input.options);
    let run = input.version.run(levels.0);
    (0..tables.len()).find_map(|first| {
        let mut best: Option<Plan<T>> = None;
        for end in first + 1..=tables.len() {
            let slice = &tables[first..end];
            let neighbours = run.overlapping(
                Some(&slice[0].meta.smallest),
                Some(&slice[slice.len() - 1].meta.smallest),
            );
            let connected = neighbours.len() == slice.len()
                && same_keyspace(&slice[0], &slice[slice.len() - 1]);
            let plan = if connected {
                plan_for(input, levels, slice.to_vec(), Reason::Manual)
            } else {
                None
            };
            match plan {
                Some(plan) if best.is_none() || plan.input_bytes() <= bytes_max => {
                    best = Some(plan)
                }
                _ => break,
            }
        }
        best
    })
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
