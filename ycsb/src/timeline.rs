//! When operations were done: throughput over time, and the longest time without a write.
//!
//! Percentiles hide a stall that hits few operations; a line over time and the longest gap show it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Width of a bucket. The longest gap is exact if it is longer than two of them.
const BUCKET: Duration = Duration::from_millis(1);

/// Most points of a summary: what a plot can show.
const POINTS_MAX: usize = 400;

/// The operations of one bucket.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    operations: u32,
    /// Nanoseconds from the bucket's begin to the first and the last write in it, if any.
    writes: Option<(u32, u32)>,
}

/// The operations of a thread or a step, by time.
#[derive(Debug, Default)]
pub struct Timeline {
    buckets: Vec<Bucket>,
}

/// What a report keeps of a timeline.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TimelineSummary {
    /// Milliseconds that each point covers.
    pub interval_ms: u64,
    /// Operations done in each interval, from the first operation on. The last interval may be cut
    /// short.
    pub operations: Vec<u64>,
    /// Longest time between two writes of all threads, in microseconds; `None` with fewer than two.
    /// Gaps below a millisecond are all told as at most that.
    pub longest_write_gap_us: Option<f64>,
}

impl Timeline {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An operation was done, so long after the run began.
    pub fn record(&mut self, at: Duration, is_write: bool) {
        let index = (at.as_secs() * 1000 + u64::from(at.subsec_millis())) as usize;
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, Bucket::default());
        }
        let bucket = &mut self.buckets[index];
        bucket.operations += 1;
        if is_write {
            let offset = at.subsec_nanos() % 1_000_000;
            let first = bucket.writes.map_or(offset, |(first, _)| first.min(offset));
            let last = bucket.writes.map_or(offset, |(_, last)| last.max(offset));
            bucket.writes = Some((first, last));
        }
    }

    /// Adds another thread's operations.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), Bucket::default());
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            mine.operations += theirs.operations;
            mine.writes = match (mine.writes, theirs.writes) {
                (Some((first, last)), Some((other_first, other_last))) => {
                    Some((first.min(other_first), last.max(other_last)))
                }
                (mine, theirs) => mine.or(theirs),
            };
        }
    }

    /// The longest time between two writes.
    fn longest_write_gap(&self) -> Option<Duration> {
        let mut longest = None;
        let mut previous: Option<Duration> = None;
        for (index, bucket) in self.buckets.iter().enumerate() {
            let Some((first, last)) = bucket.writes else { continue };
            let begin = BUCKET * u32::try_from(index).unwrap_or(u32::MAX);
            if let Some(previous) = previous {
                let gap = begin + Duration::from_nanos(first.into()) - previous;
                longest = longest.max(Some(gap));
            } else if last > first {
                longest = Some(Duration::from_nanos((last - first).into()));
            }
            previous = Some(begin + Duration::from_nanos(last.into()));
        }
        longest
    }

    /// The summary: at most a few hundred points.
    #[must_use]
    pub fn summary(&self) -> TimelineSummary {
        let begin = self.buckets.iter().position(|bucket| bucket.operations > 0);
        let buckets = self.buckets.get(begin.unwrap_or(0)..).unwrap_or_default();
        let interval = buckets.len().div_ceil(POINTS_MAX).max(1);
        let total =
            |chunk: &[Bucket]| chunk.iter().map(|bucket| u64::from(bucket.operations)).sum();
        TimelineSummary {
            interval_ms: interval as u64,
            operations: buckets.chunks(interval).map(total).collect(),
            longest_write_gap_us: self.longest_write_gap().map(|gap| gap.as_secs_f64() * 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn longest_gap_is_that_of_all_threads_together() {
        let (mut left, mut right) = (Timeline::new(), Timeline::new());
        for at in [1000, 2000, 52_000] {
            left.record(us(at), true);
        }
        for at in [1500, 22_000, 51_500] {
            right.record(us(at), true);
        }
        // Reads close no gap.
        right.record(us(30_000), false);
        left.merge(&right);
        let summary = left.summary();
        assert_eq!(summary.longest_write_gap_us, Some(29_500.0));
        assert_eq!(summary.operations.iter().sum::<u64>(), 7);
    }

    #[test]
    fn points_cover_all_operations_and_are_not_too_many() {
        let mut timeline = Timeline::new();
        for at in 0..100_000u64 {
            timeline.record(Duration::from_millis(500) + us(at * 100), false);
        }
        let summary = timeline.summary();
        assert!(summary.operations.len() <= POINTS_MAX);
        assert_eq!(summary.interval_ms, 25);
        assert!(summary.operations.iter().all(|count| *count == 250), "leading silence is cut");
        assert_eq!(summary.longest_write_gap_us, None);
        assert_eq!(Timeline::new().summary().operations.len(), 0);
    }
}
