//! Latencies of one thread or of a whole step, per operation type, in histograms of three
//! significant digits.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::workload::Operation;

/// Longest latency that is told apart from longer ones: one hour, in nanoseconds.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// Percentiles of a set of latencies, in microseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the operations were at least this fast.
    pub p50: f64,
    /// 95 of 100 were.
    pub p95: f64,
    /// 99 of 100 were.
    pub p99: f64,
    /// 999 of 1000 were.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// The average.
    pub mean: f64,
}

/// Count and latencies of one operation type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationSummary {
    /// How many.
    pub count: u64,
    /// How fast.
    pub latency_us: Latency,
}

/// The latencies of a thread or a step.
#[derive(Debug)]
pub struct Measures {
    by_operation: [Option<Histogram<u64>>; Operation::ALL.len()],
}

impl Default for Measures {
    fn default() -> Self {
        Self::new()
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("bounds and digits are in range")
}

impl Measures {
    /// No measures yet. Histograms are made at the first operation of their type, so that unused
    /// ones cost no memory.
    #[must_use]
    pub fn new() -> Self {
        Self { by_operation: [const { None }; Operation::ALL.len()] }
    }

    /// Adds one operation.
    pub fn record(&mut self, operation: Operation, latency_ns: u64) {
        let slot = &mut self.by_operation[operation as usize];
        slot.get_or_insert_with(histogram).saturating_record(latency_ns);
    }

    /// Adds another thread's operations.
    pub fn merge(&mut self, other: &Self) {
        for (slot, theirs) in self.by_operation.iter_mut().zip(&other.by_operation) {
            if let Some(theirs) = theirs {
                let added = slot.get_or_insert_with(histogram).add(theirs);
                added.expect("all histograms have the same bounds");
            }
        }
    }

    /// How many operations were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.by_operation.iter().flatten().map(Histogram::len).sum()
    }

    /// Latencies over all operations.
    #[must_use]
    pub fn overall(&self) -> Latency {
        let mut all = histogram();
        for one in self.by_operation.iter().flatten() {
            all.add(one).expect("all histograms have the same bounds");
        }
        summarize(&all)
    }

    /// Count and latencies per operation type, of those that occurred.
    #[must_use]
    pub fn by_operation(&self) -> BTreeMap<Operation, OperationSummary> {
        let pairs = Operation::ALL.into_iter().zip(&self.by_operation);
        let present = pairs.filter_map(|(operation, slot)| slot.as_ref().map(|h| (operation, h)));
        let summary =
            |h: &Histogram<u64>| OperationSummary { count: h.len(), latency_us: summarize(h) };
        present.map(|(operation, h)| (operation, summary(h))).collect()
    }
}

fn summarize(histogram: &Histogram<u64>) -> Latency {
    // Nanoseconds with three digits of microseconds: more would pretend to a precision that isn't
    // there.
    let micros = |ns: f64| (ns.round()) / 1000.0;
    let at = |quantile| micros(histogram.value_at_quantile(quantile) as f64);
    Latency {
        p50: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: micros(histogram.max() as f64),
        mean: micros(histogram.mean()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth_and_merging_loses_nothing() {
        let (mut left, mut right) = (Measures::new(), Measures::new());
        for number in 1..=10_000u64 {
            let side = if number % 2 == 0 { &mut left } else { &mut right };
            let operation = if number % 10 == 0 { Operation::Update } else { Operation::Read };
            side.record(operation, number * 1000);
        }
        left.merge(&right);
        assert_eq!(left.count(), 10_000);
        let overall = left.overall();
        for (value, expected) in [
            (overall.p50, 5000.0),
            (overall.p95, 9500.0),
            (overall.p99, 9900.0),
            (overall.max, 1e4),
        ] {
            assert!((value - expected).abs() / expected < 0.002, "{value}, not {expected}");
        }
        let by_operation = left.by_operation();
        assert_eq!(by_operation[&Operation::Update].count, 1000);
        assert_eq!(by_operation[&Operation::Read].count, 9000);
        assert!(!by_operation.contains_key(&Operation::Scan));
    }

    #[test]
    fn absurd_latencies_are_kept_at_the_bound() {
        let mut measures = Measures::new();
        measures.record(Operation::Scan, u64::MAX);
        measures.record(Operation::Scan, 0);
        assert_eq!(measures.count(), 2);
    }
}
