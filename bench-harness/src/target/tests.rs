//! Lines of the table from made-up samples.

use rustlite_ycsb::step::StepOutcome;

use super::*;

fn sample(experiment: &'static str, engine: &'static str, round: usize, rate: f64) -> Sample {
    let outcome = StepOutcome {
        throughput_ops_per_sec: rate,
        open_seconds: 1.0 / rate,
        bytes_written: Some(3000),
        ..StepOutcome::default()
    };
    let (saturation_ops_per_sec, user_bytes, live_bytes) = (None, 1000.0, 1000.0);
    Sample { experiment, engine, round, saturation_ops_per_sec, user_bytes, live_bytes, outcome }
}

fn named(title: &str) -> Target {
    TARGETS.iter().find(|target| target.title == title).unwrap().clone()
}

#[test]
fn ratios_pair_the_rounds_and_the_best_variant_counts() {
    let mut samples = Vec::new();
    // The machine is twice as fast in the second round: the ratio of medians would be off.
    for (round, speed) in [(0, 1.0), (1, 2.0), (2, 1.0)] {
        for (engine, rate) in
            [("rustlite", 400.0), ("rocksdb", 90.0), ("rocksdb-mmap", 100.0), ("lmdb", 200.0)]
        {
            samples.push(sample("get", engine, round, rate * speed));
        }
    }
    let line = line(&named("random get of present keys, 1 thread"), &samples).unwrap();
    let rocksdb = line.rocksdb.unwrap();
    assert_eq!((rocksdb.peer.engine, rocksdb.ratio.value), ("rocksdb-mmap", 4.0));
    assert_eq!((rocksdb.ratio.low, rocksdb.ratio.high), (4.0, 4.0));
    assert_eq!(rocksdb.passes(), Some(true), "a target that is just met is met");
    let best = line.best.unwrap();
    assert_eq!((best.peer.engine, best.ratio.value), ("lmdb", 2.0));
    assert_eq!(line.figures[0].engine, "rustlite");
}

#[test]
fn where_less_is_better_ratios_above_one_are_better_too() {
    let samples = [sample("open", "rustlite", 0, 100.0), sample("open", "rocksdb", 0, 60.0)];
    let line = line(&named("open a cleanly closed database"), &samples).unwrap();
    let rocksdb = line.rocksdb.unwrap();
    assert!((rocksdb.ratio.value - 100.0 / 60.0).abs() < 1e-9);
    assert_eq!(rocksdb.passes(), Some(false), "1.67 times is not twice");
    assert_eq!(line.best.unwrap().passes(), None, "there is no target over the best peer");
}

#[test]
fn without_samples_there_is_no_line_and_without_peers_no_ratio() {
    let target = named("get of absent keys");
    assert!(line(&target, &[]).is_none());
    let alone = line(&target, &[sample("get-absent", "rustlite", 0, 5.0)]).unwrap();
    assert!(alone.rocksdb.is_none() && alone.best.is_none());
}

#[test]
fn metrics_are_what_they_say() {
    let sample = Sample {
        outcome: StepOutcome {
            operations: 100,
            found: 3200,
            elapsed_seconds: 2.0,
            settle_seconds: 3.0,
            bytes_written: Some(5000),
            ..StepOutcome::default()
        },
        ..sample("overwrite", "rustlite", 0, 50.0)
    };
    assert_eq!(Metric::SettledThroughput.of(&sample), Some(20.0));
    assert_eq!(Metric::RecordsFound.of(&sample), Some(1600.0));
    assert_eq!(Metric::WriteAmplification.of(&sample), Some(5.0));
    assert_eq!(Metric::LongestGap.of(&sample), None);
}

#[test]
fn attempts_that_fail_are_shown_and_not_compared() {
    let with = |engine, aborts| {
        let mut sample = sample("transactions-hot", engine, 0, 50.0);
        (sample.outcome.operations, sample.outcome.aborts) = (90, aborts);
        sample
    };
    let samples = [with("rustlite", 10), with("lmdb", 0)];
    let line = line(&named("the same: attempts that failed"), &samples).unwrap();
    assert!(line.rocksdb.is_none() && line.best.is_none());
    let rates: Vec<f64> = line.figures.iter().map(|figure| figure.median.value).collect();
    assert_eq!(rates, [0.0, 10.0]);
}

#[test]
fn more_is_wanted_of_sync_commits_on_a_journal() {
    let target =
        |experiment| TARGETS.iter().find(|target| target.experiment == experiment).unwrap().clone();
    assert_eq!(target("sync-1").with_journal().over_best, Some(3.0));
    assert_eq!(target("sync-32").with_journal().over_rocksdb, Some(5.0));
    assert_eq!(target("get").with_journal().over_rocksdb, target("get").over_rocksdb);
}

#[test]
fn every_line_is_of_an_experiment_that_exists() {
    use crate::experiment::Experiment;
    for experiment in TARGETS.iter().map(|target| target.experiment) {
        Experiment::named(experiment).unwrap();
    }
    for experiment in FLOORS.iter().map(|floor| floor.experiment) {
        Experiment::named(experiment).unwrap();
    }
}
