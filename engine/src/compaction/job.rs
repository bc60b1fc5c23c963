//! Carries out a compaction: merges a plan's inputs into new tables of its output level.
//!
//! A large plan is cut into disjoint key ranges that are merged in parallel. Inputs are read through large overlapped reads, not through
//! the maps, so that a compaction does not evict what readers use. Nothing is visible until the caller applies the edit; on an error all
//! outputs are removed and the inputs stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::compaction::output::{NewTable, Output, OutputContext, remove};
use crate::compaction::plan::Plan;
use crate::compaction::precedence::{Manners, Precedence};
use crate::compaction::retention::Retention;
use crate::cursor::Cursor as _;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Trailer;
use crate::manifest::{Run, TableHandle};
use crate::range_tombstones::RangeTombstones;
use crate::read::merge::MergeCursor;
use crate::read::source::RunCursor;
use crate::sstable::TableStream;

/// Inputs smaller than this many output tables per thread are not worth another thread.
const TABLES_PER_PART_MIN: u64 = 2;

/// Records between two looks at whether to stop.
const RECORDS_PER_CHECK: u32 = 1024;

/// What running a plan needs.
pub(crate) struct JobContext<'a> {
    pub(crate) output: OutputContext<'a>,
    pub(crate) retention: &'a Retention,
    /// Most threads to use.
    pub(crate) threads: usize,
    /// Set when the database closes.
    pub(crate) stop: &'a AtomicBool,
    /// Whom to let go first.
    pub(crate) precedence: &'a Precedence,
}

/// A part of the key space: inclusive start, exclusive end; `None` is no bound.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

/// Merges the plan's inputs. The new tables are durable, but not part of a version.
pub(crate) fn run(context: &JobContext<'_>, plan: &Plan) -> Result<Vec<NewTable>> {
    let inputs = Inputs::of(plan)?;
    let parts = cut(plan, context.threads, context.output.table_bytes);
    let results: Vec<Result<Vec<NewTable>>> = if parts.len() == 1 {
        parts.iter().map(|part| merge_part(context, plan, &inputs, part)).collect()
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = parts
                .iter()
                .map(|part| scope.spawn(|| merge_part(context, plan, &inputs, part)))
                .collect();
            let panicked = || Err(Error::internal("a compaction thread panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
        })
    };
    let mut tables = Vec::new();
    let mut failure = None;
    for result in results {
        match result {
            Ok(part) => tables.extend(part),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        None => Ok(tables),
        Some(error) => {
            tables.iter().for_each(|table| remove(context.output.env, table));
            Err(error)
        }
    }
}

/// The plan's inputs as sorted runs, and all their range tombstones.
struct Inputs {
    runs: Vec<Arc<Run>>,
    tombstones: RangeTombstones,
}

impl Inputs {
    fn of(plan: &Plan) -> Result<Self> {
        let run =
            |tables: Vec<Arc<TableHandle>>| Run::new(tables).map(Arc::new).map_err(Error::internal);
        let mut runs = Vec::new();
        if plan.input_level == 0 {
            for table in &plan.inputs {
                runs.push(run(vec![Arc::clone(table)])?);
            }
        } else {
            runs.push(run(plan.inputs.clone())?);
        }
        runs.push(run(plan.overlapping.clone())?);
        let sets: Vec<_> =
            plan.all_inputs().map(|handle| Arc::clone(handle.table.range_tombstones())).collect();
        Ok(Self { runs, tombstones: RangeTombstones::union(sets.iter().map(Arc::as_ref)) })
    }

    fn cursor(&self) -> MergeCursor<RunCursor<TableStream>> {
        MergeCursor::new(self.runs.iter().map(|run| RunCursor::new(Arc::clone(run))).collect())
    }
}

/// Cuts the plan's key range into parts of about equal size.
fn cut(plan: &Plan, threads: usize, table_bytes: u64) -> Vec<Part> {
    let bytes: u64 = plan.all_inputs().map(|handle| handle.meta.file_bytes).sum();
    let parts = (bytes / (table_bytes * TABLES_PER_PART_MIN)).clamp(1, threads as u64) as usize;
    let mut boundaries = Vec::new();
    if parts > 1 {
        // Every table offers boundaries in proportion to its size; evenly spaced ones of all offers are taken.
        let mut offers: Vec<Vec<u8>> = Vec::new();
        for handle in plan.all_inputs() {
            let share = (handle.meta.file_bytes * 16 * parts as u64 / bytes.max(1)) as usize;
            offers.extend(handle.table.block_boundaries(share.max(1) + 1));
        }
        offers.sort_unstable();
        offers.dedup();
        let taken = (1..parts).filter_map(|part| offers.get(part * offers.len() / parts).cloned());
        boundaries.extend(taken);
        boundaries.dedup();
    }
    let starts = std::iter::once(None).chain(boundaries.iter().cloned().map(Some));
    let ends = boundaries.iter().cloned().map(Some).chain(std::iter::once(None));
    starts.zip(ends).map(|(from, to)| Part { from, to }).collect()
}

fn merge_part(
    context: &JobContext<'_>,
    plan: &Plan,
    inputs: &Inputs,
    part: &Part,
) -> Result<Vec<NewTable>> {
    let covering = inputs.tombstones.clipped(part.from.as_deref(), part.to.as_deref());
    let kept = context.retention.tombstones(&covering);
    let mut filter = context.retention.filter(&covering);
    let mut output = Output::new(&context.output, &kept, &plan.grandparents, part.from.clone());
    let mut merge = inputs.cursor();
    match &part.from {
        Some(from) => merge.seek(from, Trailer::NEWEST)?,
        None => merge.seek_to_first()?,
    }
    let mut until_check = RECORDS_PER_CHECK;
    let mut manners = Manners::default();
    while merge.valid() {
        let key = merge.key();
        if part.to.as_ref().is_some_and(|to| key >= to.as_slice()) {
            break;
        }
        let mut emit = |key: &[u8], trailer, value: &[u8]| output.add(key, trailer, value);
        filter.push(key, merge.trailer(), merge.value(), &mut emit)?;
        until_check -= 1;
        if until_check == 0 {
            until_check = RECORDS_PER_CHECK;
            if context.stop.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Closed, "the database is closing"));
            }
            context.precedence.give_way(&mut manners);
        }
        merge.next()?;
    }
    filter.finish(&mut |key, trailer, value| output.add(key, trailer, value))?;
    output.complete(part.to.as_deref())
}
