//! The experiments by name: on which data, which work, with how many threads, at which durability.
//!
//! Experiments on the same data share a load and run in the order of [`EXPERIMENTS`]: those that
//! change the data come after those that only read it.

use rustlite_ycsb::error::{Error, Result};
use rustlite_ycsb::keys::LoadOrder;
use rustlite_ycsb::store::Durability;
use rustlite_ycsb::workload::Workload;

/// What is in the store when an experiment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Small records, loaded in key order.
    SmallInOrder,
    /// Small records, loaded in random order.
    Small,
    /// Nothing.
    Nothing,
    /// YCSB's records of 1 KB.
    Ycsb,
    /// Ten times as many small records.
    Large,
    /// Small records that are still in the log, because the process was killed before a flush.
    InLog,
    /// Records of 1 KB, more than there is memory for.
    BeyondMemory,
}

impl Data {
    /// Everything that is loaded, in the order of the runs.
    pub const ALL: [Self; 7] = [
        Self::SmallInOrder,
        Self::Small,
        Self::Nothing,
        Self::Ycsb,
        Self::Large,
        Self::InLog,
        Self::BeyondMemory,
    ];

    /// In which order it is loaded.
    #[must_use]
    pub fn order(self) -> LoadOrder {
        if self == Self::SmallInOrder { LoadOrder::Key } else { LoadOrder::Random }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// The load of the data itself.
    Load,
    /// A workload of `ycsb`, by name, for a time.
    Run(&'static str, usize, Durability),
    /// A workload with as many operations as this times the records.
    RunTimes(&'static str, u64, usize, Durability),
    /// A workload for many minutes.
    Steady(&'static str, usize),
    /// A workload that only reads, of data that is so many times what memory there is.
    Beyond(&'static str, u64),
    /// A workload of which RustLite keeps many operations in flight in one thread. Its peers can't, and
    /// get so many threads.
    InFlight(&'static str, usize, Durability),
    /// A workload at a share of the rate that the same engine reached at full speed just before.
    Paced(&'static str, f64, usize, Durability),
    /// A workload at so many operations a second, the same for all engines.
    AtRate(&'static str, f64, usize, Durability),
    /// Opening the store.
    Open,
}

impl Work {
    /// The workload, if it is one of `ycsb`.
    #[must_use]
    pub fn workload(self) -> Option<&'static Workload> {
        match self {
            Self::Run(name, ..)
            | Self::Steady(name, ..)
            | Self::Beyond(name, ..)
            | Self::RunTimes(name, ..)
            | Self::InFlight(name, ..)
            | Self::AtRate(name, ..)
            | Self::Paced(name, ..) => Workload::named(name).ok(),
            Self::Load | Self::Open => None,
        }
    }

    /// Whether it writes, so that its durability matters.
    #[must_use]
    pub fn writes(self) -> bool {
        self == Self::Load || self.workload().is_some_and(Workload::writes)
    }

    /// Whether writes come at a rate, so that a pause of the machine delays them.
    #[must_use]
    pub fn is_paced(self) -> bool {
        matches!(self, Self::Paced(..) | Self::AtRate(..))
    }

    /// Durability of its writes.
    #[must_use]
    pub fn durability(self) -> Durability {
        match self {
            Self::Run(_, _, durability)
            | Self::RunTimes(_, _, _, durability)
            | Self::InFlight(_, _, durability)
            | Self::AtRate(_, _, _, durability)
            | Self::Paced(_, _, _, durability) => durability,
            Self::Steady(..) | Self::Beyond(..) | Self::Load | Self::Open => Durability::Buffered,
        }
    }
}

/// One experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// The name on the command line and in results.
    pub name: &'static str,
    /// What it is, in a line.
    pub title: &'static str,
    /// What is in the store.
    pub data: Data,
    /// What is measured.
    pub work: Work,
    /// Whether it takes so long that it gets fewer rounds.
    pub is_long: bool,
    /// The engines, if not all: only some have a log to recover, or transactions.
    pub engines: &'static [&'static str],
}

impl Experiment {
    /// Whether it is left out unless it is asked for by name: it takes long, or more rights than
    /// most have.
    #[must_use]
    pub fn is_only_by_name(&self) -> bool {
        matches!(self.work, Work::Steady(..) | Work::Beyond(..))
    }
}

const fn quick(name: &'static str, title: &'static str, data: Data, work: Work) -> Experiment {
    Experiment { name, title, data, work, is_long: false, engines: &[] }
}

const fn long(
    name: &'static str,
    title: &'static str,
    data: Data,
    work: Work,
    engines: &'static [&'static str],
) -> Experiment {
    Experiment { name, title, data, work, is_long: true, engines }
}

use Data::{BeyondMemory, InLog, Large, Nothing, Small, SmallInOrder, Ycsb};
use Durability::{Buffered, Sync};
use Work::{AtRate, Beyond, InFlight, Load, Open, Paced, Run, RunTimes, Steady};

/// Those that are compared when opening.
const WITH_LOGS: &[&str] = &["rustlite", "rocksdb", "leveldb"];

/// Those of whose transactions `ycsb` knows.
const WITH_TRANSACTIONS: &[&str] = &[
    "rustlite",
    "sqlite",
    "rocksdb",
    "rocksdb-mmap",
    "rocksdb-default",
    "redb",
    "lmdb",
    "lmdb-writemap",
];

const fn transactions(name: &'static str, title: &'static str, work: Work) -> Experiment {
    Experiment { engines: WITH_TRANSACTIONS, ..quick(name, title, Small, work) }
}

const fn beyond(
    name: &'static str,
    title: &'static str,
    workload: &'static str,
    times: u64,
) -> Experiment {
    quick(name, title, BeyondMemory, Beyond(workload, times))
}

/// Those of whose deletes `ycsb` knows.
const WITH_DELETES: &[&str] =
    &["rustlite", "rocksdb", "rocksdb-mmap", "rocksdb-default", "leveldb"];

/// Those with records that expire by themselves.
const WITH_EXPIRY: &[&str] = &["rustlite"];

/// All experiments.
pub const EXPERIMENTS: [Experiment; 43] = [
    quick("load-in-order", "load in key order", SmallInOrder, Load),
    quick("load-random", "load in random order", Small, Load),
    quick("get", "random get of present keys, 1 thread", Small, Run("get", 1, Buffered)),
    quick("get-2", "random get of present keys, 2 threads", Small, Run("get", 2, Buffered)),
    quick("get-absent", "get of absent keys", Small, Run("get-absent", 1, Buffered)),
    quick("multi-get", "multi_get of 32", Small, Run("multi-get", 1, Buffered)),
    quick("scan-100", "seek + scan 100", Small, Run("scan-100", 1, Buffered)),
    quick("scan-forward", "full scan", Small, Run("scan-forward", 1, Buffered)),
    quick("scan-backward", "full scan backwards", Small, Run("scan-backward", 1, Buffered)),
    transactions(
        "transactions",
        "transactions of 2 reads and 2 writes, 8 threads",
        Run("transactions", 8, Buffered),
    ),
    transactions(
        "transactions-hot",
        "the same among 100 records, 4 threads",
        Run("transactions-hot", 4, Buffered),
    ),
    transactions(
        "transactions-sync-8",
        "the same at sync: 64 in flight, peers 8 threads",
        InFlight("transactions-in-flight", 8, Sync),
    ),
    transactions(
        "transactions-sync-32",
        "the same, peers 32 threads",
        InFlight("transactions-in-flight", 32, Sync),
    ),
    transactions(
        "transactions-sync-64",
        "the same, peers 64 threads",
        InFlight("transactions-in-flight", 64, Sync),
    ),
    long(
        "put-paced",
        "overwrite at 80 % of saturation",
        Small,
        Paced("overwrite", 0.8, 1, Buffered),
        &[],
    ),
    long(
        "put-at-rate",
        "overwrite at 150,000 puts a second",
        Small,
        AtRate("overwrite", 150_000.0, 1, Buffered),
        &[],
    ),
    long(
        "overwrite",
        "overwrite everything 3 times",
        Small,
        RunTimes("overwrite", 3, 1, Buffered),
        &[],
    ),
    long("steady-overwrite", "overwrite for minutes", Small, Steady("overwrite", 1), &[]),
    long(
        "steady-delete",
        "scans of 100 among inserts and deletes for minutes, 2 threads",
        Small,
        Steady("scan-deleting", 2),
        WITH_DELETES,
    ),
    long(
        "steady-expire",
        "scans of 100 among records that expire for minutes, 2 threads",
        Small,
        Steady("scan-expiring", 2),
        WITH_EXPIRY,
    ),
    quick("sync-1", "sync commit, 1 client", Nothing, Run("put", 1, Sync)),
    quick("sync-8", "sync commit, 8 threads", Nothing, Run("put", 8, Sync)),
    quick("sync-32", "sync commit, 32 threads", Nothing, Run("put", 32, Sync)),
    quick("sync-64", "sync commit, 64 threads", Nothing, Run("put", 64, Sync)),
    quick(
        "write-async",
        "sync commit, 1 thread, 256 in flight",
        Nothing,
        Run("put-in-flight", 1, Sync),
    ),
    quick("ycsb-c", "YCSB C: reads only", Ycsb, Run("c", 2, Buffered)),
    quick("ycsb-e", "YCSB E: short ranges", Ycsb, Run("e", 2, Buffered)),
    quick("ycsb-b", "YCSB B: read mostly", Ycsb, Run("b", 2, Buffered)),
    quick("ycsb-a", "YCSB A: update heavy", Ycsb, Run("a", 2, Buffered)),
    quick("ycsb-f", "YCSB F: read-modify-write", Ycsb, Run("f", 2, Buffered)),
    quick("ycsb-a-sync", "YCSB A at sync, 16 threads", Ycsb, Run("a", 16, Sync)),
    quick("ycsb-d", "YCSB D: read latest", Ycsb, Run("d", 2, Buffered)),
    long(
        "steady-mixed",
        "reads, updates, inserts and deletes for minutes, 2 threads",
        Ycsb,
        Steady("mixed", 2),
        WITH_DELETES,
    ),
    long("open", "open a cleanly closed database", Large, Open, WITH_LOGS),
    long("recovery", "recover the log of a killed process", InLog, Open, WITH_LOGS),
    beyond("get-2x", "get, data 2 times the memory", "get", 2),
    beyond("multi-get-2x", "multi_get of 32, data 2 times the memory", "multi-get", 2),
    beyond("scan-100-2x", "seek + scan 100, data 2 times the memory", "scan-100", 2),
    beyond("scan-forward-2x", "full scan, data 2 times the memory", "scan-forward", 2),
    beyond("get-4x", "get, data 4 times the memory", "get", 4),
    beyond("multi-get-4x", "multi_get of 32, data 4 times the memory", "multi-get", 4),
    beyond("scan-100-4x", "seek + scan 100, data 4 times the memory", "scan-100", 4),
    beyond("scan-forward-4x", "full scan, data 4 times the memory", "scan-forward", 4),
];

impl Experiment {
    /// The experiment of that name.
    ///
    /// # Errors
    /// [`Error::Usage`], listing the names there are.
    pub fn named(name: &str) -> Result<&'static Self> {
        EXPERIMENTS.iter().find(|experiment| experiment.name == name).ok_or_else(|| {
            let names: Vec<&str> = EXPERIMENTS.iter().map(|experiment| experiment.name).collect();
            Error::Usage(format!("there is no experiment {name:?}; there are {}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustlite_ycsb::adapters::Engine;

    #[test]
    fn experiments_have_names_of_their_own_and_name_workloads_and_engines_that_exist() {
        for (index, experiment) in EXPERIMENTS.iter().enumerate() {
            let before = EXPERIMENTS.iter().take(index);
            assert!(before.clone().all(|other| other.name != experiment.name));
            assert_eq!(Experiment::named(experiment.name).unwrap(), experiment);
            let is_run = !matches!(experiment.work, Load | Open);
            assert_eq!(experiment.work.workload().is_some(), is_run, "{}", experiment.name);
            for engine in experiment.engines {
                Engine::named(engine).unwrap();
            }
        }
        assert_eq!(Experiment::named("nothing").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn small_data_is_read_before_it_is_changed() {
        let mut changed = false;
        for experiment in EXPERIMENTS.iter().filter(|experiment| experiment.data == Small) {
            if let Some(workload) = experiment.work.workload() {
                assert!(workload.writes() || !changed, "{}", experiment.name);
                changed |= workload.writes();
            }
        }
    }
}
