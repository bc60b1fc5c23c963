//! Medians of few rounds, and how sure they are.
//!
//! Rounds are few and their times are not normally distributed (a stall makes one much slower, and
//! nothing makes one much faster), so everything here rests on order alone: the interval between
//! the k-th smallest and the k-th largest of n rounds holds the true median with a probability that
//! only depends on k and n.

use serde::Serialize;

/// The coverage that an interval should have, if there are rounds enough.
const COVERAGE: f64 = 0.95;

/// A median and the interval that holds the true one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Median {
    /// The middle one of the rounds; the mean of both, if their number is even.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Probability with which the true median is inside. Less than 95 % if the rounds are fewer
    /// than six.
    pub coverage: f64,
    /// How many rounds.
    pub rounds: usize,
}

impl Median {
    /// The median of `values`; `None` without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rounds = sorted.len();
        let upper = sorted.get(rounds / 2)?;
        let value = match rounds % 2 {
            0 => f64::midpoint(*upper, sorted[rounds / 2 - 1]),
            _ => *upper,
        };
        // The narrowest interval with the coverage asked for, or else the widest there is.
        let narrowest =
            (0..rounds.div_ceil(2)).rev().find(|cut| coverage(rounds, *cut) >= COVERAGE);
        let cut = narrowest.unwrap_or(0);
        Some(Self {
            value,
            low: sorted[cut],
            high: sorted[rounds - 1 - cut],
            coverage: coverage(rounds, cut),
            rounds,
        })
    }
}

/// Probability that the median of the distribution lies between the `cut`-th smallest and the
/// `cut`-th largest of `rounds` values, counted from zero: that of more than `cut` heads and more
/// than `cut` tails in so many tosses of a coin.
fn coverage(rounds: usize, cut: usize) -> f64 {
    let mut term = 0.5f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX));
    let mut tail = 0.0;
    for heads in 0..=cut {
        tail += term;
        term *= (rounds - heads) as f64 / (heads + 1) as f64;
    }
    (1.0 - 2.0 * tail).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_intervals_of_few_rounds() {
        assert_eq!(Median::of(&[]), None);
        let one = Median::of(&[5.0]).unwrap();
        assert_eq!((one.value, one.low, one.high, one.coverage), (5.0, 5.0, 5.0, 0.0));
        let three = Median::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((three.value, three.low, three.high, three.coverage), (2.0, 1.0, 3.0, 0.75));
        let four = Median::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((four.value, four.coverage), (2.5, 0.875));
        let six = Median::of(&[6.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!((six.low, six.high), (1.0, 6.0));
        assert!(six.coverage > 0.95);
        // Of nine, the second smallest and the second largest are enough: 0.9609 by the tables.
        let nine: Vec<f64> = (1..=9).map(f64::from).collect();
        let nine = Median::of(&nine).unwrap();
        assert_eq!((nine.low, nine.high), (2.0, 8.0));
        assert!((nine.coverage - 0.9609).abs() < 1e-4);
    }

    #[test]
    fn intervals_hold_the_true_median_as_often_as_they_say() {
        let mut rng = rustlite_ycsb::rng::Rng::new(1, 1);
        for rounds in [3, 5, 7, 9] {
            let mut inside = 0;
            let mut promised = 0.0;
            for _ in 0..4000 {
                let values: Vec<f64> = (0..rounds).map(|_| rng.next_f64().powi(3)).collect();
                let median = Median::of(&values).unwrap();
                promised = median.coverage;
                inside += i32::from((median.low..=median.high).contains(&0.125));
            }
            let observed = f64::from(inside) / 4000.0;
            assert!((observed - promised).abs() < 0.02, "{rounds}: {observed}, not {promised}");
        }
    }
}
