//! What is told of runs for minutes: whether the last minute is like the first, and what was owed
//! at the end.

use std::fmt::Write as _;

use rustlite_ycsb::timeline::TimelineSummary;

use super::bare;
use crate::experiment::{EXPERIMENTS, Experiment, Work};
use crate::session::{Measured, Sample};

/// What is compared at both ends of a run, in seconds, if the run is long enough; otherwise a
/// quarter of it.
const MINUTE_SECONDS: f64 = 60.0;

const MIB: f64 = (1 << 20) as f64;

/// How the throughput went over time, in operations a second.
#[derive(Debug, PartialEq)]
struct Course {
    /// In the first minute, and in the last.
    first: f64,
    last: f64,
    /// In the interval with the least, and in the median one.
    least: f64,
    median: f64,
    /// Length of these intervals.
    interval_seconds: f64,
}

impl Course {
    /// `None` if the run was too short to tell.
    fn of(timeline: &TimelineSummary) -> Option<Self> {
        let interval_seconds = timeline.interval_ms as f64 / 1000.0;
        // The last interval is mostly cut short.
        let whole = timeline.operations.split_last()?.1;
        let quarter = whole.len() / 4;
        let minute = (MINUTE_SECONDS / interval_seconds) as usize;
        let span = minute.min(quarter);
        let (first, last) = (whole.get(..span)?, whole.get(whole.len() - span..)?);
        let rate = |counts: &[u64]| {
            counts.iter().sum::<u64>() as f64 / (counts.len() as f64 * interval_seconds)
        };
        let mut sorted = whole.to_vec();
        sorted.sort_unstable();
        Some(Self {
            first: (span > 0).then(|| rate(first))?,
            last: rate(last),
            least: *sorted.first()? as f64 / interval_seconds,
            median: *sorted.get(sorted.len() / 2)? as f64 / interval_seconds,
            interval_seconds,
        })
    }
}

/// The table of all runs for minutes, if there are any.
pub(super) fn section(text: &mut String, measured: &Measured) {
    let is_steady = |experiment: &&Experiment| matches!(experiment.work, Work::Steady(..));
    let mut lines = String::new();
    for experiment in EXPERIMENTS.iter().filter(is_steady) {
        for sample in measured.samples.iter().filter(|it| it.experiment == experiment.name) {
            line(&mut lines, experiment, sample);
        }
    }
    if lines.is_empty() {
        return;
    }
    text.push_str(
        "| run for minutes | engine | seconds | ops/s | first minute | last minute | last / first \
         | least, median of intervals | longest gap between writes, ms | p99.9, us \
         | write amplification | space amplification at the end, settled | owed at the end: MiB, s \
         | private memory, peak resident, MiB |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    text.push_str(&lines);
    text.push_str(
        "\nWhat is owed is what an engine still writes, and how long it takes, to flush and compact \
         what it was given. Space amplification\nis the size of the store, log included, over that of \
         the loaded records; runs that insert and delete hold up to a tenth more.\n\n",
    );
}

fn line(text: &mut String, experiment: &Experiment, sample: &Sample) {
    let outcome = &sample.outcome;
    let unknown = || "-".to_owned();
    let [first, last, share, intervals] = Course::of(&outcome.timeline).map_or_else(
        || [(); 4].map(|()| unknown()),
        |course| {
            let Course { first, last, least, median, interval_seconds } = course;
            [
                bare(first),
                bare(last),
                format!("{:.2}", last / first.max(1e-9)),
                format!("{}, {} of {} s", bare(least), bare(median), bare(interval_seconds)),
            ]
        },
    );
    let gap = outcome.timeline.longest_write_gap_us;
    let written = outcome.bytes_written.filter(|_| sample.user_bytes > 0.0);
    let space = |bytes: u64| format!("{:.2}", bytes as f64 / sample.live_bytes.max(1.0));
    let mib = |bytes: Option<u64>| {
        bytes.map_or_else(unknown, |bytes| format!("{:.0}", bytes as f64 / MIB))
    };
    let _ = writeln!(
        text,
        "| {} | {} | {:.0} | {} | {first} | {last} | {share} | {intervals} | {} | {} | {} | {}, {} \
         | {}, {:.1} | {}, {} |",
        experiment.title,
        sample.engine,
        outcome.elapsed_seconds,
        bare(outcome.throughput_ops_per_sec),
        gap.map_or_else(unknown, |us| bare(us / 1000.0)),
        bare(outcome.latency_us.p999),
        written.map_or_else(unknown, |bytes| bare(bytes as f64 / sample.user_bytes)),
        space(outcome.disk_bytes_at_work),
        space(outcome.disk_bytes),
        mib(outcome.settle_bytes_written),
        outcome.settle_seconds,
        mib(outcome.anonymous_rss_bytes),
        mib(outcome.peak_rss_bytes),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(interval_ms: u64, operations: Vec<u64>) -> TimelineSummary {
        TimelineSummary { interval_ms, operations, longest_write_gap_us: None }
    }

    #[test]
    fn the_course_compares_whole_minutes_where_there_are_some() {
        // Ten minutes of seconds: a tenth slower in the end, a stall in between.
        let mut operations = vec![1000; 600];
        operations.extend([900; 60]);
        operations[300] = 5;
        operations.push(1);
        let course = Course::of(&timeline(1000, operations)).unwrap();
        let interval_seconds = 1.0;
        let expected =
            Course { first: 1000.0, last: 900.0, least: 5.0, median: 1000.0, interval_seconds };
        assert_eq!(course, expected);
    }

    #[test]
    fn short_runs_are_compared_by_quarters_and_shortest_ones_not_at_all() {
        let operations = [vec![10; 4], vec![20; 4], vec![40; 4], vec![5; 4], vec![1]].concat();
        let course = Course::of(&timeline(100, operations)).unwrap();
        assert_eq!((course.first, course.last), (100.0, 50.0));
        assert_eq!((course.least, course.median), (50.0, 200.0));
        assert_eq!(Course::of(&timeline(1, vec![3, 3, 3])), None);
        assert_eq!(Course::of(&timeline(1, Vec::new())), None);
    }
}
