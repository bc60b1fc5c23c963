//! The order of a measurement: which steps, on which data, how often; and what is reported of the
//! rounds.
//!
//! The order follows YCSB's advice, made fair for several engines:
//! 1. every engine is loaded; A, B, C and F run on that load, then D, which inserts;
//! 2. every engine is loaded afresh before E, because D has left it larger (a load is used until a
//!    workload inserts);
//! 3. for each workload the engines take turns, a different one first each time, so that a drift of
//!    the machine (heat, neighbours, a filling disk) doesn't always hit the same one;
//! 4. all of it once per round; reported is the round with the median throughput, whole, so that
//!    all numbers of a line belong together.

use std::path::PathBuf;

use serde::Serialize;

use crate::adapters::Engine;
use crate::directory::{Loaded, WorkDirectory};
use crate::error::{Error, Result};
use crate::keys::{KeyShape, LoadOrder};
use crate::machine::Machine;
use crate::progress::Progress;
use crate::step::{Leave, MEMTABLE_BYTES_DEFAULT, StepOutcome, StepSpec};
use crate::store::Durability;
use crate::worker;
use crate::workload::{Distribution, Workload};

/// The engine that the others are related to.
const REFERENCE: &str = "rustlite";

/// Size of a record if nobody asks for another: 10 fields of 100 bytes, as in YCSB.
pub const VALUE_SIZE_DEFAULT: usize = 1000;

/// Everything asked for, validated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `ycsb` binary, for worker processes.
    pub program: PathBuf,
    /// The engines, in the order of the report.
    pub engines: Vec<&'static Engine>,
    /// The workloads, in the order of the report.
    pub workloads: Vec<&'static Workload>,
    /// Records to load.
    pub records: u64,
    /// Operations of a run.
    pub operations: Option<u64>,
    /// Time limit of a run.
    pub seconds: Option<f64>,
    /// Operations per second to aim at.
    pub target_rate: Option<f64>,
    /// Threads.
    pub threads: usize,
    /// Size of a record to load, or that must have been loaded; `None` for the default, or for
    /// whatever was loaded.
    pub value_size: Option<usize>,
    /// Durability of every write.
    pub durability: Durability,
    /// Overrides the workloads' request distributions.
    pub distribution: Option<Distribution>,
    /// Memory for each engine's cache.
    pub cache_bytes: u64,
    /// Rounds.
    pub rounds: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// What the keys of a load look like.
    pub keys: KeyShape,
    /// In which order a load inserts them.
    pub order: LoadOrder,
}

/// One line of the report: an engine and a workload (or its load).
#[derive(Debug, Clone, Serialize)]
pub struct ResultLine {
    /// Engine by name.
    pub engine: &'static str,
    /// Workload by name, or `load`.
    pub workload: &'static str,
    /// Threads.
    pub threads: usize,
    /// Records in the store when the step began; for a load, those it loaded.
    pub records: u64,
    /// Size of a record, in bytes.
    pub value_size: usize,
    /// Durability of every write.
    pub durability: Durability,
    /// RustLite's throughput divided by this engine's, in the same workload.
    pub rustlite_ratio: Option<f64>,
    /// Throughput of every round, in order.
    pub throughput_of_rounds: Vec<f64>,
    /// Reads that found nothing plus wrong results; a comparison with any is no comparison.
    pub errors: u64,
    /// What the step of the median round measured.
    #[serde(flatten)]
    pub outcome: StepOutcome,
}

/// The whole document.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// A line per workload and engine.
    pub results: Vec<ResultLine>,
    /// A line per engine: the first load of each round.
    pub loads: Vec<ResultLine>,
    /// Where it was measured.
    pub machine: Machine,
    /// Rounds that the medians are of.
    pub rounds: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Time limit of each run.
    pub seconds: Option<f64>,
    /// Operations per second aimed at.
    pub target_rate: Option<f64>,
    /// The request distribution, if it wasn't each workload's own.
    pub distribution: Option<Distribution>,
    /// Memory for each engine's cache.
    pub cache_bytes: u64,
    /// What the keys of a load look like.
    pub keys: KeyShape,
    /// In which order a load inserts them.
    pub order: LoadOrder,
}

impl Report {
    /// An error if any engine lost or garbled a record.
    ///
    /// # Errors
    /// [`Error::WrongAnswers`], naming engine and workload.
    pub fn require_right_answers(&self) -> Result<()> {
        let bad: Vec<String> = self
            .results
            .iter()
            .chain(&self.loads)
            .filter(|line| line.errors > 0)
            .map(|line| format!("{} in workload {}: {}", line.engine, line.workload, line.errors))
            .collect();
        if bad.is_empty() {
            return Ok(());
        }
        Err(Error::WrongAnswers(format!(
            "records that must be there were missing or wrong, so the numbers don't count: {}",
            bad.join("; ")
        )))
    }
}

/// One finished step.
#[derive(Debug)]
struct Sample {
    engine: &'static str,
    workload: &'static str,
    records: u64,
    value_size: usize,
    outcome: StepOutcome,
}

/// A measurement on its way.
pub struct Session<'a> {
    settings: &'a Settings,
    directory: &'a mut WorkDirectory,
    progress: &'a Progress,
    machine: Machine,
    samples: Vec<Sample>,
    loads: Vec<Sample>,
}

impl<'a> Session<'a> {
    /// A measurement in `directory`. Looks at the machine first, while the device is still idle.
    pub fn new(
        settings: &'a Settings,
        directory: &'a mut WorkDirectory,
        progress: &'a Progress,
    ) -> Self {
        progress.begin("looking at the machine", None);
        let machine = Machine::describe(directory.path());
        let (samples, loads) = (Vec::new(), Vec::new());
        Self { settings, directory, progress, machine, samples, loads }
    }

    /// Loads every engine, in every round.
    ///
    /// # Errors
    /// The first step that fails.
    pub fn load(mut self) -> Result<Report> {
        for round in 0..self.settings.rounds {
            for engine in rotated(&self.settings.engines, round) {
                self.load_engine(engine, true)?;
            }
        }
        Ok(self.report())
    }

    /// Runs the workloads on what is loaded already.
    ///
    /// # Errors
    /// [`Error::Usage`] if an engine isn't loaded, or not as asked; or the first step that fails.
    pub fn run_loaded(mut self) -> Result<Report> {
        for engine in &self.settings.engines {
            let Some(loaded) = self.directory.loaded(engine.name) else {
                return Err(Error::Usage(format!(
                    "{} holds no complete load of {}; make one with \
                     `ycsb load --engines {} --dir {}`",
                    self.directory.path().display(),
                    engine.name,
                    engine.name,
                    self.directory.path().display(),
                )));
            };
            if let Some(other) = self.settings.value_size.filter(|size| *size != loaded.value_size)
            {
                return Err(Error::Usage(format!(
                    "{} was loaded with --value-size {}, not {other}; leave it away, or load again",
                    engine.name, loaded.value_size
                )));
            }
        }
        let mut turn = 0;
        for _ in 0..self.settings.rounds {
            for workload in prescribed_order(&self.settings.workloads) {
                for engine in rotated(&self.settings.engines, turn) {
                    self.run_engine(engine, workload)?;
                }
                turn += 1;
            }
        }
        Ok(self.report())
    }

    /// Loads and runs, as the module describes.
    ///
    /// # Errors
    /// The first step that fails.
    pub fn compare(mut self) -> Result<Report> {
        let mut turn = 0;
        for _ in 0..self.settings.rounds {
            let mut fresh = false;
            let mut first = true;
            for workload in prescribed_order(&self.settings.workloads) {
                if !fresh {
                    for engine in rotated(&self.settings.engines, turn) {
                        self.load_engine(engine, first)?;
                    }
                    first = false;
                }
                for engine in rotated(&self.settings.engines, turn) {
                    self.run_engine(engine, workload)?;
                }
                fresh = workload.insert_share() == 0.0;
                turn += 1;
            }
        }
        Ok(self.report())
    }

    fn load_engine(&mut self, engine: &'static Engine, keep: bool) -> Result<()> {
        let path = self.directory.reset(engine.name)?;
        let value_size = self.settings.value_size.unwrap_or(VALUE_SIZE_DEFAULT);
        let keys = self.settings.keys;
        let asked = Loaded { records: self.settings.records, value_size, keys };
        let spec = self.spec(engine, path, None, &asked);
        let outcome = self.step(&spec, &format!("{}: load", engine.name))?;
        let records = outcome.records_after;
        self.directory.record(engine.name, Loaded { records, value_size, keys })?;
        if keep {
            let (engine, workload) = (engine.name, "load");
            self.loads.push(Sample { engine, workload, records, value_size, outcome });
        }
        Ok(())
    }

    fn run_engine(&mut self, engine: &'static Engine, workload: &'static Workload) -> Result<()> {
        let loaded = self.directory.loaded(engine.name).cloned();
        let loaded = loaded.expect("callers load an engine before they run it");
        let path = self.directory.engine_path(engine.name);
        let spec = self.spec(engine, path, Some(workload), &loaded);
        let outcome = self.step(&spec, &format!("{}: workload {}", engine.name, workload.name))?;
        let Loaded { records, value_size, .. } = loaded;
        let after = Loaded { records: outcome.records_after, ..loaded };
        self.directory.record(engine.name, after)?;
        let (engine, workload) = (engine.name, workload.name);
        self.samples.push(Sample { engine, workload, records, value_size, outcome });
        Ok(())
    }

    fn spec(
        &self,
        engine: &Engine,
        directory: PathBuf,
        workload: Option<&Workload>,
        data: &Loaded,
    ) -> StepSpec {
        let settings = self.settings;
        StepSpec {
            engine: engine.name.to_owned(),
            directory,
            workload: workload.map(|workload| workload.name.to_owned()),
            distribution: settings.distribution,
            durability: settings.durability,
            cache_bytes: settings.cache_bytes,
            threads: settings.threads,
            records: data.records,
            value_size: data.value_size,
            operations: settings.operations,
            seconds: settings.seconds,
            // A rate belongs to the workload; nobody wants to wait for a paced load.
            target_rate: settings.target_rate.filter(|_| workload.is_some()),
            seed: settings.seed,
            keys: data.keys,
            order: settings.order,
            memtable_bytes: MEMTABLE_BYTES_DEFAULT,
            prepare: false,
            warm: false,
            leave: Leave::Settled,
            control_group: None,
        }
    }

    fn step(&self, spec: &StepSpec, what: &str) -> Result<StepOutcome> {
        self.progress.begin(what, spec.operations_expected());
        worker::run(&self.settings.program, spec, &mut |done| self.progress.advance(done))
    }

    fn report(self) -> Report {
        let settings = self.settings;
        let mut results = Vec::new();
        for workload in &settings.workloads {
            let mut lines: Vec<ResultLine> = settings
                .engines
                .iter()
                .filter_map(|engine| line(settings, &self.samples, engine.name, workload.name))
                .collect();
            relate(&mut lines);
            results.append(&mut lines);
        }
        let engines = settings.engines.iter();
        let mut loads: Vec<ResultLine> =
            engines.filter_map(|engine| line(settings, &self.loads, engine.name, "load")).collect();
        relate(&mut loads);
        Report {
            results,
            loads,
            machine: self.machine,
            rounds: settings.rounds,
            seed: settings.seed,
            seconds: settings.seconds,
            target_rate: settings.target_rate,
            distribution: settings.distribution,
            cache_bytes: settings.cache_bytes,
            keys: settings.keys,
            order: settings.order,
        }
    }
}

/// The line of one engine and workload: the round of median throughput (the lower one of two).
fn line(
    settings: &Settings,
    samples: &[Sample],
    engine: &'static str,
    workload: &'static str,
) -> Option<ResultLine> {
    let of_line = |sample: &&Sample| sample.engine == engine && sample.workload == workload;
    let rounds: Vec<&Sample> = samples.iter().filter(of_line).collect();
    let mut sorted = rounds.clone();
    let throughput = |sample: &&Sample| sample.outcome.throughput_ops_per_sec;
    sorted.sort_by(|left, right| throughput(left).total_cmp(&throughput(right)));
    let median = sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(ResultLine {
        engine,
        workload,
        threads: settings.threads,
        records: median.records,
        value_size: median.value_size,
        durability: settings.durability,
        rustlite_ratio: None,
        throughput_of_rounds: rounds.iter().map(throughput).collect(),
        errors: rounds.iter().map(|sample| sample.outcome.missing + sample.outcome.wrong).sum(),
        outcome: median.outcome.clone(),
    })
}

/// Fills in the ratio to RustLite, if RustLite is among the lines of a workload.
fn relate(lines: &mut [ResultLine]) {
    let reference = lines.iter().find(|line| line.engine == REFERENCE);
    let Some(reference) = reference.map(|line| line.outcome.throughput_ops_per_sec) else { return };
    for line in lines {
        line.rustlite_ratio = Some(reference / line.outcome.throughput_ops_per_sec.max(1e-9));
    }
}

/// The engines, beginning with another one each turn.
#[must_use]
pub fn rotated(engines: &[&'static Engine], turn: usize) -> Vec<&'static Engine> {
    let mut rotated = engines.to_vec();
    let length = rotated.len().max(1);
    rotated.rotate_left(turn % length);
    rotated
}

/// Workloads that don't insert first, then D, then E: so most of them share a load.
fn prescribed_order(workloads: &[&'static Workload]) -> Vec<&'static Workload> {
    let mut ordered = workloads.to_vec();
    ordered.sort_by_key(|workload| (workload.insert_share() > 0.0, workload.name));
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WORKLOADS;

    #[test]
    fn workloads_that_insert_run_last_in_the_prescribed_order() {
        let given: Vec<&Workload> = WORKLOADS.iter().rev().collect();
        let names: String = prescribed_order(&given).iter().map(|workload| workload.name).collect();
        assert_eq!(names, "abcfde");
    }

    #[test]
    fn every_engine_is_first_once_in_as_many_turns() {
        let engines: Vec<&Engine> = crate::adapters::ENGINES.iter().take(3).collect();
        let first: Vec<&str> = (0..3).map(|turn| rotated(&engines, turn)[0].name).collect();
        let names: Vec<&str> = engines.iter().map(|engine| engine.name).collect();
        assert_eq!(first, names);
        assert!(rotated(&[], 5).is_empty());
    }
}
