//! The table of targets: what each experiment's number should be, against RocksDB, against the best
//! of all peers, and alone.

use serde::Serialize;

use rustlite_ycsb::machine::JOURNAL;

use crate::session::{Measured, Sample};
use crate::statistics::Median;

/// The engine that has targets.
pub const OURS: &str = "rustlite";

/// What the variants of RocksDB begin with.
const ROCKSDB: &str = "rocksdb";

/// Which number of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Operations a second.
    Throughput,
    /// Operations a second, with the time for flushing and compacting afterwards.
    SettledThroughput,
    /// Records found a second.
    RecordsFound,
    /// Bytes sent to storage for each byte of keys and values.
    WriteAmplification,
    /// Latency of all but the slowest thousandth, in microseconds.
    P999,
    /// Longest time without a commit, in microseconds.
    LongestGap,
    /// Time to open, in milliseconds.
    OpenTime,
    /// Attempts of transactions that failed because of others, in percent of all.
    AbortRate,
}

impl Metric {
    /// The number of a sample; `None` where the kernel doesn't tell, or nothing was done.
    #[must_use]
    pub fn of(self, sample: &Sample) -> Option<f64> {
        let outcome = &sample.outcome;
        let rate = |count: u64, seconds: f64| Some(count as f64 / seconds.max(1e-9));
        match self {
            Self::Throughput => Some(outcome.throughput_ops_per_sec),
            Self::SettledThroughput => {
                rate(outcome.operations, outcome.elapsed_seconds + outcome.settle_seconds)
            }
            Self::RecordsFound => rate(outcome.found, outcome.elapsed_seconds),
            Self::WriteAmplification => outcome
                .bytes_written
                .filter(|_| sample.user_bytes > 0.0)
                .map(|bytes| bytes as f64 / sample.user_bytes),
            Self::P999 => Some(outcome.latency_us.p999),
            Self::LongestGap => outcome.timeline.longest_write_gap_us,
            Self::OpenTime => Some(outcome.open_seconds * 1e3),
            Self::AbortRate => {
                let attempts = outcome.operations + outcome.aborts;
                (attempts > 0).then(|| outcome.aborts as f64 * 100.0 / attempts as f64)
            }
        }
    }

    /// Whether a larger number is the better one.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput | Self::SettledThroughput | Self::RecordsFound)
    }

    /// The unit.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Throughput | Self::SettledThroughput => "ops/s",
            Self::RecordsFound => "records/s",
            Self::WriteAmplification => "bytes/byte",
            Self::P999 | Self::LongestGap => "us",
            Self::OpenTime => "ms",
            Self::AbortRate => "%",
        }
    }
}

/// A line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// What is measured, in the words of the table.
    pub title: &'static str,
    /// The experiment.
    pub experiment: &'static str,
    /// The number.
    pub metric: Metric,
    /// How many times better than the best variant of RocksDB.
    pub over_rocksdb: Option<f64>,
    /// How many times better than the best of all peers.
    pub over_best: Option<f64>,
}

const fn target(
    title: &'static str,
    experiment: &'static str,
    metric: Metric,
    over_rocksdb: f64,
    over_best: Option<f64>,
) -> Target {
    Target { title, experiment, metric, over_rocksdb: Some(over_rocksdb), over_best }
}

/// A line that is told without a number that it should reach.
const fn untargeted(title: &'static str, experiment: &'static str, metric: Metric) -> Target {
    Target { title, experiment, metric, over_rocksdb: None, over_best: None }
}

use Metric::{
    AbortRate, LongestGap, OpenTime, P999, RecordsFound, SettledThroughput, Throughput,
    WriteAmplification,
};

/// The targets against peers.
pub const TARGETS: [Target; 43] = [
    target("load in key order, buffered, 1 thread", "load-in-order", Throughput, 3.0, Some(2.0)),
    target(
        "load in random order, buffered, 1 thread, settled",
        "load-random",
        SettledThroughput,
        3.0,
        Some(2.0),
    ),
    target("random get of present keys, 1 thread", "get", Throughput, 4.0, Some(1.6)),
    target("random get of present keys, 2 threads", "get-2", Throughput, 4.0, Some(1.6)),
    target("get of absent keys", "get-absent", Throughput, 2.0, Some(1.5)),
    target("multi_get of 32", "multi-get", RecordsFound, 6.0, Some(2.0)),
    target("seek + scan 100", "scan-100", Throughput, 3.0, Some(1.2)),
    target("full scan", "scan-forward", RecordsFound, 4.0, Some(2.0)),
    target("full scan backwards", "scan-backward", RecordsFound, 4.0, Some(2.0)),
    target("sync commit, 1 client", "sync-1", Throughput, 1.6, Some(1.5)),
    target("sync commit, 8 threads", "sync-8", Throughput, 2.5, Some(2.5)),
    target("sync commit, 32 threads", "sync-32", Throughput, 3.0, Some(3.0)),
    target("sync commit, 64 threads", "sync-64", Throughput, 3.0, Some(3.0)),
    // The peers have no commits in flight: theirs is the figure of one thread that waits for each.
    Target {
        title: "sync commit, 1 thread, 256 in flight (`write_async`)",
        experiment: "write-async",
        metric: Throughput,
        over_rocksdb: None,
        over_best: Some(10.0),
    },
    target(
        "transactions of 2 reads and 2 writes, 8 threads, buffered",
        "transactions",
        Throughput,
        2.0,
        None,
    ),
    target("the same among 100 records, 4 threads", "transactions-hot", Throughput, 1.5, Some(1.5)),
    untargeted("the same: attempts that failed", "transactions-hot", AbortRate),
    // RustLite has 64 commits in flight in one thread; whatever number of threads suits the peer best is
    // among the three.
    target(
        "sync transactions, 64 in flight; peers: 8 threads",
        "transactions-sync-8",
        Throughput,
        3.0,
        None,
    ),
    target("the same; peers: 32 threads", "transactions-sync-32", Throughput, 3.0, None),
    target("the same; peers: 64 threads", "transactions-sync-64", Throughput, 3.0, None),
    target("YCSB A, 1 KB, 2 threads, buffered", "ycsb-a", Throughput, 2.5, Some(1.2)),
    target("YCSB B", "ycsb-b", Throughput, 2.5, Some(1.2)),
    target("YCSB C", "ycsb-c", Throughput, 2.5, Some(1.2)),
    target("YCSB D", "ycsb-d", Throughput, 2.5, Some(1.2)),
    target("YCSB E", "ycsb-e", Throughput, 2.5, Some(1.2)),
    target("YCSB F", "ycsb-f", Throughput, 2.5, Some(1.2)),
    target("YCSB A at sync, 16 threads", "ycsb-a-sync", Throughput, 2.5, Some(2.0)),
    target("overwrite 3 times over", "overwrite", Throughput, 2.0, Some(1.5)),
    target("the same: write amplification", "overwrite", WriteAmplification, 1.0 / 0.7, None),
    target("p99.9 of a put at 80 % of saturation", "put-paced", P999, 5.0, None),
    target("the same: longest gap without a commit", "put-paced", LongestGap, 5.0, None),
    target("p99.9 of a put at 150K a second, the same for all", "put-at-rate", P999, 5.0, None),
    target("the same: longest gap without a commit", "put-at-rate", LongestGap, 5.0, None),
    target("open a cleanly closed database", "open", OpenTime, 2.0, None),
    target("recover the log of a killed process", "recovery", OpenTime, 2.0, None),
    untargeted("get, data 2 times the memory", "get-2x", Throughput),
    untargeted("multi_get of 32, data 2 times the memory", "multi-get-2x", RecordsFound),
    untargeted("seek + scan 100, data 2 times the memory", "scan-100-2x", Throughput),
    untargeted("full scan, data 2 times the memory", "scan-forward-2x", RecordsFound),
    untargeted("get, data 4 times the memory", "get-4x", Throughput),
    untargeted("multi_get of 32, data 4 times the memory", "multi-get-4x", RecordsFound),
    untargeted("seek + scan 100, data 4 times the memory", "scan-100-4x", Throughput),
    untargeted("full scan, data 4 times the memory", "scan-forward-4x", RecordsFound),
];

impl Target {
    /// The target on a file system with a journal, where appending costs several times what
    /// overwriting does: more is wanted of sync commits there.
    #[must_use]
    fn with_journal(mut self) -> Self {
        let wanted = match self.experiment {
            "sync-1" => 3.0,
            "sync-8" | "sync-32" | "sync-64" => 5.0,
            _ => return self,
        };
        (self.over_rocksdb, self.over_best) = (Some(wanted), Some(wanted));
        self
    }
}

/// What RustLite must do alone, on any machine worth the name.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Floor {
    /// What, in the words of the requirements.
    pub title: &'static str,
    /// The experiment that shows it.
    pub experiment: &'static str,
    /// Its number.
    pub metric: Metric,
    /// At least so much.
    pub at_least: f64,
}

const fn floor(
    title: &'static str,
    experiment: &'static str,
    metric: Metric,
    at_least: f64,
) -> Floor {
    Floor { title, experiment, metric, at_least }
}

/// The floor of the requirements.
pub const FLOORS: [Floor; 6] = [
    floor("sequential write", "load-in-order", Throughput, 100e3),
    floor("random write", "load-random", SettledThroughput, 50e3),
    floor("sequential read", "scan-forward", RecordsFound, 200e3),
    floor("random read, cached", "get", Throughput, 150e3),
    floor("transaction commits, durable, in flight", "write-async", Throughput, 50e3),
    floor("transactions of 2 reads and 2 writes", "transactions", Throughput, 50e3),
];

/// One engine's number in one experiment.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Engine by name.
    pub engine: &'static str,
    /// The median of its rounds.
    pub median: Median,
}

/// How RustLite compares with one peer.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The peer's figure.
    pub peer: Figure,
    /// How many times better RustLite is: the median over the rounds, in each of which both were
    /// measured under the same conditions.
    pub ratio: Median,
    /// What it should be.
    pub target: Option<f64>,
}

impl Comparison {
    /// Whether the target is met, if there is one.
    #[must_use]
    pub fn passes(&self) -> Option<bool> {
        self.target.map(|target| self.ratio.value >= target)
    }
}

/// A line of the table, filled in.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// What it is about.
    pub target: Target,
    /// All engines' figures, RustLite's included, best first.
    pub figures: Vec<Figure>,
    /// Against the best variant of RocksDB.
    pub rocksdb: Option<Comparison>,
    /// Against the best of all peers.
    pub best: Option<Comparison>,
}

/// A line of the floor, filled in.
#[derive(Debug, Clone, Serialize)]
pub struct FloorLine {
    /// What it is about.
    pub floor: Floor,
    /// RustLite's number.
    pub median: Median,
    /// Whether it is enough.
    pub passes: bool,
}

/// All lines for which there are samples.
#[must_use]
pub fn lines(measured: &Measured) -> Vec<Line> {
    let on_journal = measured.machine.journal == Some(JOURNAL);
    let targets = TARGETS.iter().cloned();
    let targets = targets.map(|target| if on_journal { target.with_journal() } else { target });
    targets.filter_map(|target| line(&target, &measured.samples)).collect()
}

/// All lines of the floor for which there are samples.
#[must_use]
pub fn floor_lines(measured: &Measured) -> Vec<FloorLine> {
    let line = |floor: &Floor| {
        let rounds = rounds(&measured.samples, floor.experiment, floor.metric, OURS);
        let values: Vec<f64> = rounds.iter().map(|(_, value)| *value).collect();
        let median = Median::of(&values)?;
        Some(FloorLine { floor: *floor, median, passes: median.value >= floor.at_least })
    };
    FLOORS.iter().filter_map(line).collect()
}

/// The rounds of one engine with its number in each.
fn rounds(samples: &[Sample], experiment: &str, metric: Metric, engine: &str) -> Vec<(usize, f64)> {
    let own =
        samples.iter().filter(|sample| sample.experiment == experiment && sample.engine == engine);
    own.filter_map(|sample| metric.of(sample).map(|value| (sample.round, value))).collect()
}

fn line(target: &Target, samples: &[Sample]) -> Option<Line> {
    let Target { experiment, metric, .. } = *target;
    let mut engines: Vec<&'static str> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.experiment == experiment) {
        if !engines.contains(&sample.engine) {
            engines.push(sample.engine);
        }
    }
    let mut figures: Vec<Figure> = engines
        .into_iter()
        .filter_map(|engine| {
            let rounds = rounds(samples, experiment, metric, engine);
            let values: Vec<f64> = rounds.iter().map(|(_, value)| *value).collect();
            Some(Figure { engine, median: Median::of(&values)? })
        })
        .collect();
    figures.sort_by(|left, right| {
        let order = left.median.value.total_cmp(&right.median.value);
        if metric.more_is_better() { order.reverse() } else { order }
    });
    if figures.is_empty() {
        return None;
    }
    let against = |peer: Option<&Figure>, wanted: Option<f64>| {
        let peer = peer?.clone();
        let ratio = ratio(target, samples, peer.engine)?;
        Some(Comparison { peer, ratio, target: wanted })
    };
    let best_rocksdb = figures.iter().find(|figure| figure.engine.starts_with(ROCKSDB));
    let best_peer = figures.iter().find(|figure| figure.engine != OURS);
    Some(Line {
        rocksdb: against(best_rocksdb, target.over_rocksdb),
        best: against(best_peer, target.over_best),
        target: target.clone(),
        figures,
    })
}

/// How many times better RustLite is than `peer`, round by round.
fn ratio(target: &Target, samples: &[Sample], peer: &str) -> Option<Median> {
    // Failing seldom is no merit by itself: who lets nobody work at the same time never fails.
    if target.metric == Metric::AbortRate {
        return None;
    }
    let ours = rounds(samples, target.experiment, target.metric, OURS);
    let theirs = rounds(samples, target.experiment, target.metric, peer);
    let ratios: Vec<f64> = ours
        .iter()
        .filter_map(|(round, our)| {
            let (_, their) = theirs.iter().find(|(other, _)| other == round)?;
            let (over, under) =
                if target.metric.more_is_better() { (our, their) } else { (their, our) };
            Some(over / under.max(1e-9))
        })
        .collect();
    Median::of(&ratios)
}

#[cfg(test)]
mod tests;
