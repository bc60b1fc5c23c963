//! Which benchmarks moved, and which functions moved them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::profile::Profile;

/// Most functions named for a benchmark.
const FUNCTIONS_MAX: usize = 8;

/// How one benchmark compares with its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Same,
    /// Fewer instructions, by more than the tolerance: the baseline should be updated, so that the
    /// gain is kept.
    Faster,
    /// More instructions, by more than the tolerance.
    Slower,
    /// Not in the baseline.
    New,
    /// In the baseline only.
    Missing,
}

impl Verdict {
    /// Whether the gate fails.
    #[must_use]
    pub fn fails(self) -> bool {
        matches!(self, Self::Slower | Self::New | Self::Missing)
    }
}

/// One benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Instructions in the baseline.
    pub before: u64,
    /// Instructions now.
    pub after: u64,
    /// Functions that moved, most first, each with its instructions before and now.
    pub functions: Vec<(String, u64, u64)>,
}

impl Change {
    /// Growth in percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        100.0 * (self.after as f64 - self.before as f64) / (self.before as f64).max(1.0)
    }
}

/// Compares everything. `tolerance_percent` is allowed both ways.
#[must_use]
pub fn compare(
    baseline: &BTreeMap<String, Profile>,
    current: &BTreeMap<String, Profile>,
    tolerance_percent: f64,
) -> Vec<Change> {
    let names: BTreeSet<&String> = baseline.keys().chain(current.keys()).collect();
    let nothing = Profile::default();
    names
        .into_iter()
        .map(|name| {
            let (old, new) = (baseline.get(name), current.get(name));
            let (before, after) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
            let mut change = Change {
                name: name.clone(),
                verdict: Verdict::Same,
                before: before.instructions,
                after: after.instructions,
                functions: moved(before, after),
            };
            change.verdict = match (old, new) {
                (None, _) => Verdict::New,
                (_, None) => Verdict::Missing,
                _ if change.percent() > tolerance_percent => Verdict::Slower,
                _ if change.percent() < -tolerance_percent => Verdict::Faster,
                _ => Verdict::Same,
            };
            change
        })
        .collect()
}

fn moved(before: &Profile, after: &Profile) -> Vec<(String, u64, u64)> {
    let names: BTreeSet<&String> = before.functions.keys().chain(after.functions.keys()).collect();
    let cost = |profile: &Profile, name: &String| profile.functions.get(name).copied().unwrap_or(0);
    let mut moved: Vec<(String, u64, u64)> = names
        .into_iter()
        .map(|name| (name.clone(), cost(before, name), cost(after, name)))
        .filter(|(_, old, new)| old != new)
        .collect();
    moved.sort_by_key(|(_, old, new)| std::cmp::Reverse(old.abs_diff(*new)));
    moved.truncate(FUNCTIONS_MAX);
    moved
}

/// The report for people: a line for each benchmark, and the functions of those that moved.
#[must_use]
pub fn text(changes: &[Change], tolerance_percent: f64) -> String {
    let mut text = String::new();
    for change in changes {
        let word = match change.verdict {
            Verdict::Same => "",
            Verdict::Faster => "faster: keep it with scripts/perf-gate --update",
            Verdict::Slower => "SLOWER",
            Verdict::New => "NEW: add it with scripts/perf-gate --update",
            Verdict::Missing => "MISSING: drop it with scripts/perf-gate --update",
        };
        let percent = match change.verdict {
            Verdict::New | Verdict::Missing => String::new(),
            _ => format!("{:+.2} %", change.percent()),
        };
        let line = format!(
            "{:<40} {:>12} -> {:>12} {percent:>9}  {word}",
            change.name, change.before, change.after,
        );
        let _ = writeln!(text, "{}", line.trim_end());
        if matches!(change.verdict, Verdict::Slower | Verdict::Faster) {
            for (name, before, after) in &change.functions {
                let difference = i128::from(*after) - i128::from(*before);
                let _ = writeln!(text, "    {difference:>+12}  {before} -> {after}  {name}");
            }
        }
    }
    let failed = changes.iter().filter(|change| change.verdict.fails()).count();
    let _ = match failed {
        0 => writeln!(
            text,
            "{} benchmarks are within {tolerance_percent} % of the baseline or faster",
            changes.len()
        ),
        failed => writeln!(
            text,
            "{failed} of {} benchmarks failed (tolerance {tolerance_percent} %). If this is meant, \
             run scripts/perf-gate --update and say why in the commit",
            changes.len()
        ),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles(name: &str, functions: &[(&str, u64)]) -> BTreeMap<String, Profile> {
        let instructions = functions.iter().map(|(_, cost)| cost).sum();
        let functions = functions.iter().map(|(name, cost)| ((*name).to_owned(), *cost)).collect();
        BTreeMap::from([(name.to_owned(), Profile { instructions, functions })])
    }

    fn verdict(after: u64) -> Verdict {
        let (old, new) = (profiles("get", &[("f", 10_000)]), profiles("get", &[("f", after)]));
        compare(&old, &new, 2.0)[0].verdict
    }

    #[test]
    fn the_tolerance_is_the_border_both_ways() {
        assert_eq!(verdict(10_000), Verdict::Same);
        assert_eq!(verdict(10_200), Verdict::Same);
        assert_eq!(verdict(10_201), Verdict::Slower);
        assert_eq!(verdict(10_500), Verdict::Slower);
        assert_eq!(verdict(9_800), Verdict::Same);
        assert_eq!(verdict(9_799), Verdict::Faster);
        assert!(Verdict::Slower.fails() && !Verdict::Faster.fails() && !Verdict::Same.fails());
    }

    #[test]
    fn benchmarks_that_come_or_go_fail_until_the_baseline_says_so() {
        let (old, new) = (profiles("old", &[("f", 1)]), profiles("new", &[("f", 1)]));
        let verdicts: Vec<Verdict> =
            compare(&old, &new, 2.0).iter().map(|change| change.verdict).collect();
        assert_eq!(verdicts, [Verdict::New, Verdict::Missing]);
        assert!(verdicts.iter().all(|verdict| verdict.fails()));
    }

    #[test]
    fn the_functions_that_moved_are_named_with_the_largest_first() {
        let old = profiles("get", &[("same", 5000), ("grown", 4000), ("gone", 1000)]);
        let new = profiles("get", &[("same", 5000), ("grown", 4800), ("come", 700)]);
        let changes = compare(&old, &new, 2.0);
        let expected = [("gone", 1000, 0), ("grown", 4000, 4800), ("come", 0, 700)];
        let named: Vec<(&str, u64, u64)> = changes[0]
            .functions
            .iter()
            .map(|(name, before, after)| (name.as_str(), *before, *after))
            .collect();
        assert_eq!(named, expected);
        let text = text(&changes, 2.0);
        for part in ["+5.00 %", "SLOWER", "+800  4000 -> 4800  grown", "1 of 1 benchmarks failed"] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
