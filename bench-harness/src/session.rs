//! The order of a comparison: rounds of all experiments, engines taking turns.
//!
//! In every round, for each kind of data: every engine is loaded afresh, then the experiments on
//! that data follow one another, and in each the engines take turns, another one first each time.
//! So a drift of the machine hits all engines alike, and the numbers of one round can be compared
//! with each other. Every step is a process of its own (`rustlite_ycsb::worker`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustlite_ycsb::adapters::Engine;
use rustlite_ycsb::compare::rotated;
use rustlite_ycsb::directory::WorkDirectory;
use rustlite_ycsb::error::{Error, Result};
use rustlite_ycsb::keys::KeyShape;
use rustlite_ycsb::machine::Machine;
use rustlite_ycsb::memory_limit::{self, MemoryLimit};
use rustlite_ycsb::progress::Progress;
use rustlite_ycsb::step::{Leave, MEMTABLE_BYTES_DEFAULT, StepOutcome, StepSpec};
use rustlite_ycsb::store::Durability;
use rustlite_ycsb::worker;
use serde::Serialize;

use crate::experiment::{Data, EXPERIMENTS, Experiment, Work};
use crate::pauses::Pauses;
use crate::target::OURS;

/// Size of YCSB's records.
const YCSB_VALUE_SIZE: usize = 1000;

/// Of memory that is limited, the part that an engine's own cache gets: the reciprocal. The rest is
/// for its other needs and for the page cache.
const CACHE_SHARE: u64 = 4;

/// Memtables that hold a whole log, for the recovery of one.
const LOG_MEMTABLE_BYTES: u64 = 1 << 30;

/// Bytes that a record takes in a log beside key and value, roughly.
const LOG_OVERHEAD: u64 = 16;

/// Everything asked for, validated.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// The binary that can be a worker process.
    #[serde(skip)]
    pub program: PathBuf,
    /// The engines, in the order of the report.
    #[serde(skip)]
    pub engines: Vec<&'static Engine>,
    /// The experiments.
    #[serde(skip)]
    pub experiments: Vec<&'static Experiment>,
    /// Small records.
    pub records: u64,
    /// Records of 1 KB.
    pub ycsb_records: u64,
    /// Records of the database that is opened.
    pub large_records: u64,
    /// Records of 1 KB that are more than memory.
    pub beyond_records: u64,
    /// Size of the log that is recovered.
    pub log_bytes: u64,
    /// Size of a small record.
    pub value_size: usize,
    /// What keys look like.
    pub keys: KeyShape,
    /// How long each run takes.
    pub seconds: f64,
    /// How long a run for minutes takes.
    pub steady_seconds: f64,
    /// Rounds.
    pub rounds: usize,
    /// Rounds of experiments that take long.
    pub long_rounds: usize,
    /// Memory for each engine's cache.
    pub cache_bytes: u64,
    /// Seed of everything random.
    pub seed: u64,
}

/// What one engine did in one round of an experiment.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Experiment by name.
    pub experiment: &'static str,
    /// Engine by name.
    pub engine: &'static str,
    /// From zero on.
    pub round: usize,
    /// The rate at full speed, of which a paced run did a share.
    pub saturation_ops_per_sec: Option<f64>,
    /// Bytes that its writes brought: keys and values.
    pub user_bytes: f64,
    /// Bytes of the records that are in the store: keys and values.
    pub live_bytes: f64,
    /// What was measured.
    pub outcome: StepOutcome,
}

/// How long each look at the machine's own pauses takes: as long as a paced run of a second.
const PAUSES_TIME: Duration = Duration::from_secs(3);

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Where.
    pub machine: Machine,
    /// What a paced writer waits for there without an engine, if one was measured.
    pub pauses: Option<Pauses>,
    /// How.
    pub settings: Settings,
    /// In the order of time.
    pub samples: Vec<Sample>,
    /// Engines that an experiment was not done with, and why.
    pub refusals: BTreeMap<String, String>,
}

/// A comparison on its way.
pub struct Session<'a> {
    settings: &'a Settings,
    directory: &'a mut WorkDirectory,
    progress: &'a Progress,
    /// Records that each engine holds, of the data loaded last.
    records: BTreeMap<&'static str, u64>,
    turn: usize,
    round: usize,
    samples: Vec<Sample>,
    refusals: BTreeMap<String, String>,
}

/// Does everything that is asked for.
///
/// # Errors
/// The first step that fails; or [`Error::WrongAnswers`].
pub fn measure(
    settings: &Settings,
    directory: &mut WorkDirectory,
    progress: &Progress,
) -> Result<Measured> {
    progress.begin("looking at the machine", None);
    // First, while the device is idle.
    let machine = Machine::describe(directory.path());
    let any_paced = settings.experiments.iter().any(|experiment| experiment.work.is_paced());
    let pauses = any_paced.then(|| Pauses::measure(directory.path(), PAUSES_TIME)).flatten();
    let mut session = Session {
        settings,
        directory,
        progress,
        records: BTreeMap::new(),
        turn: 0,
        round: 0,
        samples: Vec::new(),
        refusals: BTreeMap::new(),
    };
    for round in 0..settings.rounds {
        session.round = round;
        for data in Data::ALL {
            session.experiments_on(data)?;
        }
    }
    let Session { samples, refusals, .. } = session;
    Ok(Measured { machine, pauses, settings: settings.clone(), samples, refusals })
}

impl Session<'_> {
    fn experiments_on(&mut self, data: Data) -> Result<()> {
        let wanted = |experiment: &&&'static Experiment| {
            let rounds =
                if experiment.is_long { self.settings.long_rounds } else { self.settings.rounds };
            experiment.data == data && self.round < rounds
        };
        let experiments: Vec<&'static Experiment> =
            self.settings.experiments.iter().filter(wanted).copied().collect();
        if experiments.is_empty() {
            return Ok(());
        }
        let concerned: Vec<&'static Engine> = self
            .settings
            .engines
            .iter()
            .copied()
            .filter(|engine| experiments.iter().any(|experiment| takes_part(experiment, engine)))
            .collect();
        if data != Data::Nothing {
            for engine in rotated(&concerned, self.turn) {
                self.load(engine, data, &experiments)?;
            }
            self.turn += 1;
        }
        for experiment in experiments {
            for engine in rotated(&concerned, self.turn) {
                if takes_part(experiment, engine) && self.has_durability(experiment, engine) {
                    self.run(engine, experiment)?;
                }
            }
            self.turn += 1;
        }
        // The next data would only compete with these files for memory.
        for engine in concerned {
            self.directory.reset(engine.name)?;
        }
        Ok(())
    }

    /// Notes why not, if not.
    fn has_durability(&mut self, experiment: &Experiment, engine: &Engine) -> bool {
        match engine.require(experiment.work.durability()) {
            Err(refusal) if experiment.work.writes() => {
                let experiments = self.refusals.entry(refusal.to_string()).or_default();
                if !experiments.split(", ").any(|name| name == experiment.name) {
                    let comma = if experiments.is_empty() { "" } else { ", " };
                    experiments.push_str(&format!("{comma}{}", experiment.name));
                }
                false
            }
            _ => true,
        }
    }

    fn load(
        &mut self,
        engine: &'static Engine,
        data: Data,
        experiments: &[&'static Experiment],
    ) -> Result<()> {
        let directory = self.directory.reset(engine.name)?;
        let measured = experiments
            .iter()
            .find(|experiment| experiment.work == Work::Load)
            .filter(|_| engine.require(Durability::Buffered).is_ok());
        let spec = StepSpec {
            records: self.records_of(data),
            order: data.order(),
            prepare: measured.is_none(),
            leave: if data == Data::InLog { Leave::Killed } else { Leave::Settled },
            ..self.spec(engine, directory, data)
        };
        let outcome = self.step(&spec, &format!("{}: load", engine.name))?;
        self.records.insert(engine.name, outcome.records_after);
        if let Some(experiment) = measured {
            self.keep(engine, experiment, None, outcome);
        }
        Ok(())
    }

    fn records_of(&self, data: Data) -> u64 {
        let settings = self.settings;
        match data {
            Data::SmallInOrder | Data::Small => settings.records,
            Data::Nothing => 0,
            Data::Ycsb => settings.ycsb_records,
            Data::Large => settings.large_records,
            Data::InLog => settings.log_bytes / (self.record_bytes(data) as u64 + LOG_OVERHEAD),
            Data::BeyondMemory => settings.beyond_records,
        }
    }

    fn value_size(&self, data: Data) -> usize {
        let is_large = matches!(data, Data::Ycsb | Data::BeyondMemory);
        if is_large { YCSB_VALUE_SIZE } else { self.settings.value_size }
    }

    /// Average size of a key and its value.
    fn record_bytes(&self, data: Data) -> f64 {
        const KEYS: u64 = 1000;
        let mut key = Vec::new();
        let mut total = 0;
        for record in 0..KEYS {
            self.settings.keys.write(&mut key, record);
            total += key.len();
        }
        total as f64 / KEYS as f64 + self.value_size(data) as f64
    }

    fn run(&mut self, engine: &'static Engine, experiment: &'static Experiment) -> Result<()> {
        if experiment.data == Data::Nothing {
            self.directory.reset(engine.name)?;
            self.records.insert(engine.name, 0);
        }
        let path = self.directory.engine_path(engine.name);
        let records = self.records.get(engine.name).copied().unwrap_or(0);
        let base = StepSpec {
            records,
            warm: !matches!(experiment.data, Data::Nothing | Data::InLog | Data::Large),
            durability: experiment.work.durability(),
            ..self.spec(engine, path, experiment.data)
        };
        let seconds = Some(self.settings.seconds);
        let named = |name: &str, threads| StepSpec {
            workload: Some(name.to_owned()),
            threads,
            seconds,
            ..base.clone()
        };
        let spec = match experiment.work {
            Work::Load => return Ok(()),
            Work::Run(workload, threads, _) => named(workload, threads),
            Work::Steady(workload, threads) => {
                StepSpec { seconds: Some(self.settings.steady_seconds), ..named(workload, threads) }
            }
            Work::Beyond(workload, times) => {
                return self.run_beyond_memory(engine, experiment, times, named(workload, 1));
            }
            Work::InFlight(workload, peers_threads, _) => {
                named(workload, if engine.name == OURS { 1 } else { peers_threads })
            }
            Work::RunTimes(workload, times, threads, _) => StepSpec {
                operations: Some(times * records),
                seconds: None,
                ..named(workload, threads)
            },
            // One read proves that the store is open.
            Work::Open => StepSpec { operations: Some(1), seconds: None, ..named("get", 1) },
            Work::Paced(workload, share, threads, _) => {
                return self.run_paced(engine, experiment, share, paced(named(workload, threads)));
            }
            Work::AtRate(workload, rate, threads, _) => {
                StepSpec { target_rate: Some(rate), ..paced(named(workload, threads)) }
            }
        };
        let outcome = self.step(&spec, &format!("{}: {}", engine.name, experiment.name))?;
        self.records.insert(engine.name, outcome.records_after);
        self.keep(engine, experiment, None, outcome);
        Ok(())
    }

    fn run_beyond_memory(
        &mut self,
        engine: &'static Engine,
        experiment: &'static Experiment,
        times: u64,
        spec: StepSpec,
    ) -> Result<()> {
        let data = spec.records as f64 * self.record_bytes(experiment.data);
        let memory = data as u64 / times;
        let limit = MemoryLimit::new(memory)?;
        memory_limit::evict(&spec.directory)?;
        let spec = StepSpec {
            cache_bytes: memory / CACHE_SHARE,
            control_group: Some(limit.group().to_path_buf()),
            ..spec
        };
        let outcome = self.step(&spec, &format!("{}: {}", engine.name, experiment.name))?;
        self.keep(engine, experiment, None, outcome);
        Ok(())
    }

    fn run_paced(
        &mut self,
        engine: &'static Engine,
        experiment: &'static Experiment,
        share: f64,
        spec: StepSpec,
    ) -> Result<()> {
        let what = format!("{}: {}, at full speed", engine.name, experiment.name);
        let saturation = self.step(&spec, &what)?.throughput_ops_per_sec;
        let paced = StepSpec { target_rate: Some(share * saturation), ..spec };
        let outcome = self.step(&paced, &format!("{}: {}", engine.name, experiment.name))?;
        self.keep(engine, experiment, Some(saturation), outcome);
        Ok(())
    }

    fn spec(&self, engine: &Engine, directory: PathBuf, data: Data) -> StepSpec {
        let settings = self.settings;
        let in_log = data == Data::InLog;
        StepSpec {
            engine: engine.name.to_owned(),
            directory,
            workload: None,
            distribution: None,
            durability: Durability::Buffered,
            cache_bytes: settings.cache_bytes,
            threads: 1,
            records: 0,
            value_size: self.value_size(data),
            operations: None,
            seconds: None,
            target_rate: None,
            seed: settings.seed,
            keys: settings.keys,
            order: data.order(),
            memtable_bytes: if in_log { LOG_MEMTABLE_BYTES } else { MEMTABLE_BYTES_DEFAULT },
            prepare: false,
            warm: false,
            leave: Leave::Settled,
            control_group: None,
        }
    }

    fn step(&self, spec: &StepSpec, what: &str) -> Result<StepOutcome> {
        self.progress.begin(what, spec.operations_expected());
        let advance = &mut |done| self.progress.advance(done);
        let outcome = worker::run(&self.settings.program, spec, advance)?;
        if outcome.missing + outcome.wrong > 0 {
            return Err(Error::WrongAnswers(format!(
                "{what}: {} records were missing and {} wrong, so nothing here would count",
                outcome.missing, outcome.wrong
            )));
        }
        Ok(outcome)
    }

    fn keep(
        &mut self,
        engine: &'static Engine,
        experiment: &'static Experiment,
        saturation_ops_per_sec: Option<f64>,
        outcome: StepOutcome,
    ) {
        let by_operation = outcome.by_operation.iter();
        let written: u64 =
            by_operation.map(|(kind, summary)| summary.count * kind.records_written()).sum();
        self.samples.push(Sample {
            experiment: experiment.name,
            engine: engine.name,
            round: self.round,
            saturation_ops_per_sec,
            user_bytes: written as f64 * self.record_bytes(experiment.data),
            live_bytes: outcome.records_after as f64 * self.record_bytes(experiment.data),
            outcome,
        });
    }
}

/// Long enough for memtables to fill and compactions to begin: the steady state is what counts.
fn paced(spec: StepSpec) -> StepSpec {
    StepSpec { seconds: spec.seconds.map(|seconds| 3.0 * seconds), ..spec }
}

fn takes_part(experiment: &Experiment, engine: &Engine) -> bool {
    experiment.engines.is_empty() || experiment.engines.contains(&engine.name)
}

/// The experiments of `names`, or all but those that are only done when asked for, in their own
/// order.
///
/// # Errors
/// [`Error::Usage`] for a name that there isn't.
pub fn experiments_named(names: &[String]) -> Result<Vec<&'static Experiment>> {
    for name in names {
        Experiment::named(name)?;
    }
    let chosen = |experiment: &&'static Experiment| {
        names.iter().any(|name| name == experiment.name)
            || (names.is_empty() && !experiment.is_only_by_name())
    };
    Ok(EXPERIMENTS.iter().filter(chosen).collect())
}
