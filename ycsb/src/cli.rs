//! The command line: `ycsb load`, `run`, `compare` and `list`, their options, and the checks that
//! need no engine.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::adapters::{ENGINES, Engine};
use crate::compare::{Report, Session, Settings};
use crate::directory::WorkDirectory;
use crate::error::{Error, Result};
use crate::keys::{KeyShape, LoadOrder};
use crate::progress::Progress;
use crate::report;
use crate::store::Durability;
use crate::worker;
use crate::workload::{Distribution, SINGLES, WORKLOADS, Workload};

/// Most records of a load: record numbers must hash to distinct keys, and nobody has this many.
const RECORDS_MAX: u64 = 100_000_000_000;

/// Most threads.
const THREADS_MAX: usize = 4096;

/// Largest record. Engines allow more, but every thread holds a few of them.
const VALUE_SIZE_MAX: usize = 64 << 20;

/// Largest cache.
const CACHE_MIB_MAX: u64 = 1 << 20;

/// YCSB core workloads A to F on RustLite and other embedded engines, side by side.
#[derive(Debug, Parser)]
#[command(name = "ycsb", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ycsb compare --records 100k --operations 100k --durability buffered
  ycsb compare --engines rustlite,sqlite --workloads a,c --threads 8 --rounds 3 --json
  ycsb load --dir /data/ycsb --records 10m --durability buffered
  ycsb run --dir /data/ycsb --workloads c --durability buffered --seconds 30";

#[derive(Debug, Subcommand)]
enum Command {
    /// Load records into engines, and keep them in --dir for `run`
    Load(Common),
    /// Run workloads on what `load` has left in --dir; without --dir, load first
    Run(Common),
    /// Load and run several engines in turns, and print one table
    Compare(Common),
    /// List the engines and workloads of this build
    List,
    #[command(name = worker::SUBCOMMAND, hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct Common {
    /// Engines, separated by commas (see `ycsb list`) [default: rustlite; for compare:
    /// rustlite,sqlite]
    #[arg(long, alias = "engine", value_delimiter = ',', value_name = "NAMES")]
    engines: Vec<String>,

    /// Workloads, separated by commas (see `ycsb list`) [default: a,b,c,d,e,f]
    #[arg(long, alias = "workload", value_delimiter = ',', value_name = "NAMES")]
    workloads: Vec<String>,

    /// Records to load; like all counts, may end in k, m or g [default: 100k]
    #[arg(long, value_parser = parse_count, value_name = "COUNT")]
    records: Option<u64>,

    /// Operations of each run [default: 100k, or no bound with --seconds]
    #[arg(long, value_parser = parse_count, value_name = "COUNT")]
    operations: Option<u64>,

    /// Threads
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    threads: usize,

    /// Size of a record in bytes [default: 1000, YCSB's 10 fields of 100 bytes, as one value]
    #[arg(long, value_name = "BYTES")]
    value_size: Option<usize>,

    /// What every write survives when it returns, on every engine
    #[arg(long, value_enum, default_value_t = Durability::Sync)]
    durability: Durability,

    /// Directory for the data, empty or made by ycsb; kept [default: a temporary one, removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Stop each run after this time
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    seconds: Option<f64>,

    /// Operations per second to aim at, all threads together; latencies then count from the
    /// intended start of an operation, so that a stall shows in all it delayed
    #[arg(long, value_name = "OPS", allow_negative_numbers = true)]
    target_rate: Option<f64>,

    /// Repeat everything and report the median round
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    rounds: usize,

    /// Request distribution, instead of the workload's own
    #[arg(long, value_enum)]
    distribution: Option<Distribution>,

    /// Memory for each engine's own cache, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    cache_mib: u64,

    /// Seed of keys, records and operations
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// What the keys of a load look like
    #[arg(long, value_enum, default_value_t = KeyShape::Ycsb)]
    keys: KeyShape,

    /// In which order a load inserts them
    #[arg(long, value_enum, default_value_t = LoadOrder::Random)]
    order: LoadOrder,

    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// A count such as `200000`, `200_000`, `200k`, `10m` or `1g`.
///
/// # Errors
/// A text that says what a count looks like.
pub fn parse_count(text: &str) -> std::result::Result<u64, String> {
    let lower = text.to_ascii_lowercase().replace('_', "");
    let (digits, factor) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if lower.ends_with('k') => (digits, 1_000),
        Some(digits) if lower.ends_with('m') => (digits, 1_000_000),
        Some(digits) => (digits, 1_000_000_000),
        None => (lower.as_str(), 1),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a count; write for example 200000, 200k or 10m".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too large a count".to_owned())
}

/// Carries out the command line and returns what to print.
///
/// # Errors
/// Whatever went wrong, with an exit code that tells whose turn it is.
pub fn execute(cli: &Cli) -> Result<Output> {
    match &cli.command {
        Command::List => Ok(Output { text: list(), verdict: Ok(()) }),
        Command::Worker => {
            worker::serve(&mut std::io::stdin().lock(), &mut std::io::stdout().lock())?;
            Ok(Output { text: String::new(), verdict: Ok(()) })
        }
        Command::Load(common) => {
            let settings = common.settings(&["rustlite"])?;
            common.measure(&settings, |session, _| session.load())
        }
        Command::Run(common) => {
            let settings = common.settings(&["rustlite"])?;
            if common.dir.is_some() && common.records.is_some() {
                return Err(Error::Usage(
                    "`ycsb run --dir` takes the number of records from what is loaded there; \
                     leave --records away, or use `ycsb load` to load another number"
                        .into(),
                ));
            }
            common.measure(&settings, |session, temporary| match temporary {
                true => session.compare(),
                false => session.run_loaded(),
            })
        }
        Command::Compare(common) => {
            let settings = common.settings(&["rustlite", "sqlite"])?;
            common.measure(&settings, |session, _| session.compare())
        }
    }
}

/// What a command leaves: text for standard output, and whether it counts.
#[derive(Debug)]
pub struct Output {
    /// For standard output.
    pub text: String,
    /// An error to report after the text.
    pub verdict: Result<()>,
}

impl Common {
    fn measure(
        &self,
        settings: &Settings,
        steps: impl FnOnce(Session<'_>, bool) -> Result<Report>,
    ) -> Result<Output> {
        let mut directory = WorkDirectory::open(self.dir.as_deref())?;
        let progress = Progress::new(!self.json);
        let temporary = directory.is_temporary();
        let result = steps(Session::new(settings, &mut directory, &progress), temporary);
        progress.finish();
        let report = result?;
        let text = if self.json { report::json(&report) + "\n" } else { report::text(&report) };
        Ok(Output { text, verdict: report.require_right_answers() })
    }

    /// Checks every option, alone and with the others.
    fn settings(&self, default_engines: &[&str]) -> Result<Settings> {
        let records = self.records.unwrap_or(100_000);
        within("--records", records, 1, RECORDS_MAX)?;
        within("--threads", self.threads as u64, 1, THREADS_MAX as u64)?;
        if let Some(value_size) = self.value_size {
            within("--value-size", value_size as u64, 1, VALUE_SIZE_MAX as u64)?;
        }
        within("--rounds", self.rounds as u64, 1, 1000)?;
        within("--cache-mib", self.cache_mib, 1, CACHE_MIB_MAX)?;
        if let Some(operations) = self.operations {
            within("--operations", operations, 1, u64::MAX >> 1)?;
        }
        positive("--seconds", self.seconds, 1e6)?;
        positive("--target-rate", self.target_rate, 1e9)?;
        let program = std::env::current_exe().map_err(|source| {
            Error::io("finding the path of", std::path::Path::new("ycsb"), source)
        })?;
        Ok(Settings {
            program,
            engines: self.engines(default_engines)?,
            workloads: self.workloads()?,
            records,
            operations: self.operations.or(if self.seconds.is_some() {
                None
            } else {
                Some(100_000)
            }),
            seconds: self.seconds,
            target_rate: self.target_rate,
            threads: self.threads,
            value_size: self.value_size,
            durability: self.durability,
            distribution: self.distribution,
            cache_bytes: self.cache_mib << 20,
            rounds: self.rounds,
            seed: self.seed,
            keys: self.keys,
            order: self.order,
        })
    }

    fn engines(&self, default: &[&str]) -> Result<Vec<&'static Engine>> {
        let names: Vec<&str> = if self.engines.is_empty() {
            default.to_vec()
        } else {
            self.engines.iter().map(|name| name.trim()).collect()
        };
        let engines = names.iter().map(|name| Engine::named(name)).collect::<Result<Vec<_>>>()?;
        for (index, engine) in engines.iter().enumerate() {
            engine.require(self.durability)?;
            engine.opener()?;
            if engines.iter().take(index).any(|other| other.name == engine.name) {
                return Err(Error::Usage(format!(
                    "--engines names {} twice; use --rounds to repeat a measurement",
                    engine.name
                )));
            }
        }
        Ok(engines)
    }

    fn workloads(&self) -> Result<Vec<&'static Workload>> {
        if self.workloads.is_empty() {
            return Ok(WORKLOADS.iter().collect());
        }
        let mut workloads: Vec<&'static Workload> = Vec::new();
        for name in &self.workloads {
            let workload = Workload::named(name.trim())?;
            if workloads.contains(&workload) {
                return Err(Error::Usage(format!(
                    "--workloads names {} twice; use --rounds to repeat a measurement",
                    workload.name
                )));
            }
            workloads.push(workload);
        }
        Ok(workloads)
    }
}

fn within(option: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::Usage(format!("{option} {value} is out of range; it must be {min} to {max}")))
}

fn positive(option: &str, value: Option<f64>, max: f64) -> Result<()> {
    match value {
        Some(value) if !(value > 0.0 && value <= max) => Err(Error::Usage(format!(
            "{option} {value} is out of range; it must be above 0 and at most {max}"
        ))),
        _ => Ok(()),
    }
}

/// The engines and workloads of this build.
fn list() -> String {
    let mut text = String::from("Engines:\n");
    for engine in &ENGINES {
        let state = match engine.opener() {
            Ok(_) => "available".to_owned(),
            Err(_) => format!("not in this build; add --features {}", engine.feature),
        };
        let levels: Vec<&str> = [Durability::Sync, Durability::Buffered]
            .into_iter()
            .filter(|durability| engine.require(*durability).is_ok())
            .map(Durability::name)
            .collect();
        let _ = writeln!(
            text,
            "  {:<16} {} [{}] ({state})",
            engine.name,
            engine.summary,
            levels.join(", "),
        );
    }
    text.push_str("\nWorkloads:\n");
    for workload in WORKLOADS.iter().chain(&SINGLES) {
        let mix: Vec<String> = workload
            .mix
            .iter()
            .map(|(operation, share)| format!("{:.0} % {}", share * 100.0, operation.label()))
            .collect();
        let _ = writeln!(
            text,
            "  {:<14} {:<24} {} ({:?})",
            workload.name,
            workload.title,
            mix.join(", "),
            workload.distribution,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn counts_take_suffixes_and_refuse_nonsense() {
        assert_eq!(parse_count("200000"), Ok(200_000));
        assert_eq!(parse_count("200_000"), Ok(200_000));
        assert_eq!(parse_count("200K"), Ok(200_000));
        assert_eq!(parse_count("10m"), Ok(10_000_000));
        assert_eq!(parse_count("2g"), Ok(2_000_000_000));
        for bad in ["", "k", "-1", "1.5m", "ten", "99999999999999999999", "9999999999999g"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
    }
}
