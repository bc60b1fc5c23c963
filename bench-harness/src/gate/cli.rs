//! The command line of the gate: `perf-gate`, which `scripts/perf-gate` calls after the benchmarks
//! have run.

use std::path::PathBuf;

use clap::Parser;
use rustlite_ycsb::error::{Error, Result};

use super::baseline::{Baseline, Tools};
use super::compare::{compare, text};
use super::profile::read_all;

/// Compares instruction counts with a baseline.
///
/// Exit codes: 0 if nothing got slower, 1 if something did, 2 for a request that can't be met, 3 if
/// the counts can't be compared because the baseline was made with other tools.
#[derive(Debug, Parser)]
#[command(name = "perf-gate", version, max_term_width = 100)]
pub struct Cli {
    /// Where the benchmarks have left their counts
    #[arg(long, value_name = "DIR")]
    counts: PathBuf,

    /// The baseline
    #[arg(long, value_name = "FILE")]
    baseline: PathBuf,

    /// How many percent more instructions are still the same
    #[arg(long, default_value_t = 2.0, value_name = "PERCENT", allow_negative_numbers = true)]
    tolerance: f64,

    /// Compare only the benchmarks whose names contain this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Make the counts the new baseline
    #[arg(long)]
    update: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing got slower.
    Passed,
    /// Something did, or came, or went.
    Failed,
    /// Other tools: nobody knows.
    NotComparable,
}

impl Outcome {
    /// The exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::NotComparable => 3,
        }
    }
}

/// Carries out the command line; gives the text to print.
///
/// # Errors
/// A request that can't be met.
pub fn execute(cli: &Cli, tools: &Tools) -> Result<(String, Outcome)> {
    if !(0.0..=1000.0).contains(&cli.tolerance) {
        return Err(Error::Usage(format!("--tolerance {}: must be 0 to 1000", cli.tolerance)));
    }
    let wanted = |name: &str| cli.only.as_deref().is_none_or(|only| name.contains(only));
    let mut current = read_all(&cli.counts)?;
    current.retain(|name, _| wanted(name));
    if cli.update {
        if cli.only.is_some() {
            return Err(Error::Usage("--update takes all benchmarks, not --only some".into()));
        }
        let count = current.len();
        Baseline { tools: tools.clone(), benchmarks: current }.write(&cli.baseline)?;
        let text = format!("{} has {count} benchmarks now\n", cli.baseline.display());
        return Ok((text, Outcome::Passed));
    }
    let mut baseline = Baseline::read(&cli.baseline)?;
    baseline.benchmarks.retain(|name, _| wanted(name));
    let differences = baseline.tools.differences(tools);
    let changes = compare(&baseline.benchmarks, &current, cli.tolerance);
    let report = text(&changes, cli.tolerance);
    if differences.is_empty() {
        let failed = changes.iter().any(|change| change.verdict.fails());
        return Ok((report, if failed { Outcome::Failed } else { Outcome::Passed }));
    }
    let text = format!(
        "{report}\nNOT CHECKED. The baseline was made with other tools, so the differences above \
         may be theirs:\n  {}\nTo check here, compare two revisions with the same tools \
         (scripts/perf-gate --against REVISION); to make\nthese tools the right ones, run \
         scripts/perf-gate --update on a revision that is known to be good.\n",
        differences.join("\n  ")
    );
    Ok((text, Outcome::NotComparable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        Tools {
            rustc: "rustc 1".into(),
            rustflags: String::new(),
            valgrind: "valgrind 3".into(),
            libc: "glibc 2".into(),
            features: String::new(),
        }
    }

    struct Fixture {
        base: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            Self { base: tempfile::tempdir().unwrap() }
        }

        fn count(&self, instructions: u64) {
            let directory = self.base.path().join("counts/instructions/reads/get.tables");
            std::fs::create_dir_all(&directory).unwrap();
            let text = format!("fn=get\n0 {instructions}\n");
            std::fs::write(directory.join("callgrind.out"), text).unwrap();
        }

        fn run(&self, tools: &Tools, more: &[&str]) -> Result<(String, Outcome)> {
            let path = |name: &str| self.base.path().join(name).display().to_string();
            let arguments =
                ["perf-gate", "--counts", &path("counts"), "--baseline", &path("baseline.json")];
            execute(&Cli::parse_from(arguments.iter().chain(more)), tools)
        }

        fn outcome(&self, tools: &Tools, more: &[&str]) -> Outcome {
            self.run(tools, more).unwrap().1
        }
    }

    #[test]
    fn a_slowdown_fails_until_the_baseline_is_updated() {
        let fixture = Fixture::new();
        fixture.count(100_000);
        assert!(fixture.run(&tools(), &[]).is_err(), "no baseline yet");
        assert_eq!(fixture.outcome(&tools(), &["--update"]), Outcome::Passed);
        assert_eq!(fixture.outcome(&tools(), &[]), Outcome::Passed);
        fixture.count(105_000);
        let (text, outcome) = fixture.run(&tools(), &[]).unwrap();
        assert_eq!(outcome, Outcome::Failed);
        assert!(text.contains("reads/get.tables") && text.contains("SLOWER"), "{text}");
        assert_eq!(fixture.outcome(&tools(), &["--tolerance", "6"]), Outcome::Passed);
        assert_eq!(fixture.outcome(&tools(), &["--only", "writes"]), Outcome::Passed);
        assert_eq!(fixture.outcome(&tools(), &["--update"]), Outcome::Passed);
        assert_eq!(fixture.outcome(&tools(), &[]), Outcome::Passed);
    }

    #[test]
    fn counts_of_other_tools_neither_pass_nor_fail() {
        let fixture = Fixture::new();
        fixture.count(100_000);
        fixture.outcome(&tools(), &["--update"]);
        fixture.count(150_000);
        let newer = Tools { rustc: "rustc 2".into(), ..tools() };
        let (text, outcome) = fixture.run(&newer, &[]).unwrap();
        assert_eq!((outcome, outcome.exit_code()), (Outcome::NotComparable, 3));
        assert!(text.contains("NOT CHECKED") && text.contains("rustc 1"), "{text}");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let fixture = Fixture::new();
        fixture.count(1);
        assert!(fixture.run(&tools(), &["--tolerance", "-1"]).is_err());
        assert!(fixture.run(&tools(), &["--update", "--only", "get"]).is_err());
    }
}
