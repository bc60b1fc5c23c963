//! One step of a measurement: open a store, load it or run one workload on it, bring it to rest,
//! close it, and say what that took. The numbers of the process are of the whole process, so a step
//! has one for itself (see `worker`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::adapters::Engine;
use crate::driver::{Drive, drive};
use crate::error::{Error, Result};
use crate::keys::{KeyShape, LoadOrder};
use crate::measure::{Latency, OperationSummary};
use crate::memory_limit;
use crate::process::{Usage, disk_bytes};
use crate::store::{Direction, Durability, OpenSpec};
use crate::timeline::TimelineSummary;
use crate::workload::{Distribution, Operation, Workload};

/// Memtables of this size if nobody asks for another.
pub const MEMTABLE_BYTES_DEFAULT: u64 = 64 << 20;

/// How a step leaves the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leave {
    /// Everything flushed and compacted, then closed.
    #[default]
    Settled,
    /// As it is when the last operation is done: the process is killed. What only the log holds is
    /// for the next opening to recover.
    Killed,
}

/// What to do, as passed to a worker process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepSpec {
    /// Engine by name.
    pub engine: String,
    /// The engine's directory, existing.
    pub directory: PathBuf,
    /// Workload by name, or `None` for a load.
    pub workload: Option<String>,
    /// Overrides the workload's request distribution.
    pub distribution: Option<Distribution>,
    /// Durability of every write.
    pub durability: Durability,
    /// Memory for the engine's cache.
    pub cache_bytes: u64,
    /// Threads.
    pub threads: usize,
    /// Records to load, or loaded.
    pub records: u64,
    /// Size of a record.
    pub value_size: usize,
    /// Operations of a run.
    pub operations: Option<u64>,
    /// Time limit of a run.
    pub seconds: Option<f64>,
    /// Operations per second to aim at.
    pub target_rate: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
    /// What keys look like.
    pub keys: KeyShape,
    /// In which order a load inserts them.
    pub order: LoadOrder,
    /// Writes that are collected in memory.
    pub memtable_bytes: u64,
    /// A load that only prepares data for others to measure: it may use a lower durability than
    /// asked for, and is durable once settled.
    pub prepare: bool,
    /// Read everything once before the clock starts, so that caches are full and pages mapped.
    pub warm: bool,
    /// How to leave the store.
    pub leave: Leave,
    /// A control group to do it in: its directory.
    pub control_group: Option<PathBuf>,
}

impl StepSpec {
    fn open_spec(&self, workload: Option<&'static Workload>) -> OpenSpec {
        OpenSpec {
            directory: self.directory.clone(),
            durability: self.durability,
            cache_bytes: self.cache_bytes,
            threads: self.threads,
            records: self.records,
            value_size: self.value_size,
            memtable_bytes: self.memtable_bytes,
            transactions: workload.is_some_and(Workload::transacts),
        }
    }

    fn drive(&self, workload: Option<&'static Workload>) -> Drive {
        Drive {
            workload,
            distribution: self.distribution,
            records: self.records,
            operations: self.operations,
            seconds: self.seconds,
            threads: self.threads,
            target_rate: self.target_rate,
            seed: self.seed,
            value_size: self.value_size,
            keys: self.keys,
            order: self.order,
        }
    }

    /// Operations to expect, for a progress bar.
    #[must_use]
    pub fn operations_expected(&self) -> Option<u64> {
        if self.workload.is_none() { Some(self.records) } else { self.operations }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StepOutcome {
    /// The engine's configuration.
    pub configuration: String,
    /// Operations done.
    pub operations: u64,
    /// Time to open the store, recovery included.
    pub open_seconds: f64,
    /// Time from the first operation to the last; opening, settling and closing are not in it.
    pub elapsed_seconds: f64,
    /// Operations by time.
    pub throughput_ops_per_sec: f64,
    /// Records that reads and scans have found.
    pub found: u64,
    /// Operations over time.
    pub timeline: TimelineSummary,
    /// Latencies of all operations.
    pub latency_us: Latency,
    /// Count and latencies of each operation type.
    pub by_operation: BTreeMap<Operation, OperationSummary>,
    /// CPU time of the whole step, settling and closing included.
    pub cpu_seconds: f64,
    /// Largest resident set, mapped files included.
    pub peak_rss_bytes: Option<u64>,
    /// Resident memory that isn't backed by files, when the last operation was done.
    pub anonymous_rss_bytes: Option<u64>,
    /// Bytes sent to storage in the whole step.
    pub bytes_written: Option<u64>,
    /// Size of the store when the last operation was done.
    pub disk_bytes_at_work: u64,
    /// Size of the store after closing.
    pub disk_bytes: u64,
    /// Time to flush, compact and checkpoint what the operations left behind.
    pub settle_seconds: f64,
    /// Bytes sent to storage meanwhile: what was owed.
    pub settle_bytes_written: Option<u64>,
    /// Reads that didn't find a record that is surely there.
    pub missing: u64,
    /// Reads and scans with a wrong result.
    pub wrong: u64,
    /// Attempts of transactions that failed because of others, and were made again.
    pub aborts: u64,
    /// Records in the store afterwards.
    pub records_after: u64,
}

/// Carries out the step in this process. `progress` hears the operations done and may return false
/// to break off.
///
/// # Errors
/// A request that can't be met, or the engine's error.
pub fn execute(spec: &StepSpec, progress: &mut dyn FnMut(u64) -> bool) -> Result<StepOutcome> {
    let engine = Engine::named(&spec.engine)?;
    let open = engine.opener()?;
    if let Some(group) = &spec.control_group {
        memory_limit::enter(group)?;
    }
    let workload = spec.workload.as_deref().map(Workload::named).transpose()?;
    let promises = if let Some(workload) = workload { workload.writes() } else { !spec.prepare };
    if promises {
        engine.require(spec.durability)?;
    }
    let failed = |action| move |source| Error::Engine { engine: engine.name, action, source };
    let opening = Instant::now();
    let mut store = open(&spec.open_spec(workload)).map_err(failed("opening the store"))?;
    let open_seconds = opening.elapsed().as_secs_f64();
    let configuration = store.configuration();
    if spec.warm {
        let all = store.scan_all(Direction::Forward, &mut |_, _| ());
        all.map_err(failed("warming the store up"))?;
    }
    let plan = spec.drive(workload);
    let driven = drive(engine.name, store.as_ref(), &plan, progress)?;
    let at_work = Usage::now();
    let disk_bytes_at_work = disk_bytes(&spec.directory)?;
    let settling = Instant::now();
    match spec.leave {
        Leave::Settled => store.settle().map_err(failed("settling the store"))?,
        Leave::Killed => {}
    }
    let settle_seconds = settling.elapsed().as_secs_f64();
    match spec.leave {
        Leave::Settled => store.close().map_err(failed("closing the store"))?,
        // Not even dropped: the worker process is killed with the store open.
        Leave::Killed => std::mem::forget(store),
    }
    let usage = Usage::now();
    let elapsed_seconds = driven.elapsed.as_secs_f64();
    let operations = driven.measures.count();
    Ok(StepOutcome {
        configuration,
        operations,
        open_seconds,
        elapsed_seconds,
        throughput_ops_per_sec: operations as f64 / elapsed_seconds.max(1e-9),
        found: driven.found,
        timeline: driven.timeline.summary(),
        latency_us: driven.measures.overall(),
        by_operation: driven.measures.by_operation(),
        cpu_seconds: usage.cpu_seconds,
        peak_rss_bytes: usage.peak_rss_bytes,
        anonymous_rss_bytes: at_work.anonymous_rss_bytes,
        bytes_written: usage.bytes_written,
        disk_bytes_at_work,
        disk_bytes: disk_bytes(&spec.directory)?,
        settle_seconds,
        settle_bytes_written: usage
            .bytes_written
            .zip(at_work.bytes_written)
            .map(|(after, before)| after.saturating_sub(before)),
        missing: driven.missing,
        wrong: driven.wrong,
        aborts: driven.aborts,
        records_after: driven.records,
    })
}
