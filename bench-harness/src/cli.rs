//! The command line: `bench compare` and `bench list`, their options, and the checks that need no
//! engine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rustlite_ycsb::adapters::{ENGINES, Engine};
use rustlite_ycsb::cli::parse_count;
use rustlite_ycsb::directory::WorkDirectory;
use rustlite_ycsb::error::{Error, Result};
use rustlite_ycsb::keys::KeyShape;
use rustlite_ycsb::progress::Progress;
use rustlite_ycsb::worker;

use crate::build_time::Program;
use crate::experiment::EXPERIMENTS;
use crate::plot::draw_all;
use crate::report::Report;
use crate::session::{Settings, experiments_named, measure};

/// Largest number of records, of rounds, and largest record that make sense here.
const RECORDS_MAX: u64 = 1_000_000_000;
const ROUNDS_MAX: usize = 100;
const VALUE_SIZE_MAX: usize = 1 << 20;

/// RustLite against its peers, and the gate against slowdowns.
#[derive(Debug, Parser)]
#[command(name = "bench", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bench list
  bench compare --experiments get,scan-100 --engines rustlite,rocksdb,lmdb --rounds 5
  bench compare --keys long-prefix --value-size 1000 --seed 7 --output results/long-keys";

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure experiments with several engines in turns, and print one table of ratios
    Compare(Box<Compare>),
    /// Time from-scratch builds of programs that embed an engine
    BuildTime {
        /// Engines, separated by commas
        #[arg(
            long,
            value_delimiter = ',',
            value_name = "NAMES",
            default_value = "rustlite,rocksdb"
        )]
        engines: Vec<String>,
    },
    /// List the experiments, and the engines of this build
    List,
    #[command(name = worker::SUBCOMMAND, hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct Compare {
    /// Experiments, separated by commas (see `bench list`) [default: all but those for minutes and
    /// those with limited memory, which needs root]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    experiments: Vec<String>,

    /// Engines, separated by commas (see `bench list`) [default: all of this build]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    engines: Vec<String>,

    /// Small records; like all counts, may end in k, m or g
    #[arg(long, value_parser = parse_count, default_value = "1m", value_name = "COUNT")]
    records: u64,

    /// Records of 1000 bytes for the YCSB workloads
    #[arg(long, value_parser = parse_count, default_value = "1m", value_name = "COUNT")]
    ycsb_records: u64,

    /// Records of the database that is opened
    #[arg(long, value_parser = parse_count, default_value = "10m", value_name = "COUNT")]
    large_records: u64,

    /// Records of 1000 bytes that are 2 or 4 times the memory of their experiments
    #[arg(long, value_parser = parse_count, default_value = "500k", value_name = "COUNT")]
    beyond_records: u64,

    /// Size of the log that is recovered, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    log_mib: u64,

    /// Size of a small record in bytes
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    value_size: usize,

    /// What keys look like
    #[arg(long, value_enum, default_value_t = KeyShape::Ycsb)]
    keys: KeyShape,

    /// How long each run takes
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", allow_negative_numbers = true)]
    seconds: f64,

    /// How long each run for minutes takes
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS", allow_negative_numbers = true)]
    steady_seconds: f64,

    /// Rounds, of which the median is reported
    #[arg(long, default_value_t = 5, value_name = "COUNT")]
    rounds: usize,

    /// Rounds of the experiments that take long [default: as --rounds]
    #[arg(long, value_name = "COUNT")]
    long_rounds: Option<usize>,

    /// Memory for each engine's own cache, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    cache_mib: u64,

    /// Seed of keys, records and operations
    #[arg(long, default_value_t = 42)]
    seed: u64,

    /// Directory for the data, empty or made by ycsb; kept [default: a temporary one, removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Directory for the report (Markdown and JSON) and the plots
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Fail if a target of the table is missed
    #[arg(long)]
    enforce: bool,
}

/// Carries out the command line.
///
/// # Errors
/// Whatever went wrong, with an exit code that tells whose turn it is.
pub fn execute(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::List => print!("{}", list()),
        Command::Worker => {
            worker::serve(&mut std::io::stdin().lock(), &mut std::io::stdout().lock())?;
        }
        Command::Compare(compare) => return compare.execute(),
        Command::BuildTime { engines } => build_times(engines)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Compare {
    fn execute(&self) -> Result<ExitCode> {
        let settings = self.settings()?;
        if let Some(output) = &self.output {
            std::fs::create_dir_all(output)
                .map_err(|source| Error::io("making the directory", output, source))?;
        }
        let mut directory = WorkDirectory::open(self.dir.as_deref())?;
        let progress = Progress::new(true);
        let measured = measure(&settings, &mut directory, &progress);
        progress.finish();
        let measured = measured?;
        let report = Report::new(&measured);
        let markdown = report.markdown();
        print!("{markdown}");
        if let Some(output) = &self.output {
            write(&output.join("report.md"), &markdown)?;
            write(&output.join("report.json"), &report.json())?;
            draw_all(&measured, output)?;
        }
        Ok(if self.enforce && !report.passes() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn settings(&self) -> Result<Settings> {
        within("--records", self.records, 1, RECORDS_MAX)?;
        within("--ycsb-records", self.ycsb_records, 1, RECORDS_MAX)?;
        within("--large-records", self.large_records, 1, RECORDS_MAX)?;
        within("--beyond-records", self.beyond_records, 1, RECORDS_MAX)?;
        within("--log-mib", self.log_mib, 1, 1024)?;
        within("--value-size", self.value_size as u64, 1, VALUE_SIZE_MAX as u64)?;
        within("--rounds", self.rounds as u64, 1, ROUNDS_MAX as u64)?;
        let long_rounds = self.long_rounds.unwrap_or(self.rounds);
        within("--long-rounds", long_rounds as u64, 0, self.rounds as u64)?;
        within("--cache-mib", self.cache_mib, 1, 1 << 20)?;
        duration("--seconds", self.seconds, 3600.0)?;
        duration("--steady-seconds", self.steady_seconds, 86_400.0)?;
        let program = std::env::current_exe()
            .map_err(|source| Error::io("finding the path of", Path::new("bench"), source))?;
        Ok(Settings {
            program,
            engines: self.engines()?,
            experiments: experiments_named(&self.experiments)?,
            records: self.records,
            ycsb_records: self.ycsb_records,
            large_records: self.large_records,
            beyond_records: self.beyond_records,
            log_bytes: self.log_mib << 20,
            value_size: self.value_size,
            keys: self.keys,
            seconds: self.seconds,
            steady_seconds: self.steady_seconds,
            rounds: self.rounds,
            long_rounds,
            cache_bytes: self.cache_mib << 20,
            seed: self.seed,
        })
    }

    fn engines(&self) -> Result<Vec<&'static Engine>> {
        if self.engines.is_empty() {
            return Ok(ENGINES.iter().filter(|engine| engine.opener().is_ok()).collect());
        }
        let mut engines: Vec<&'static Engine> = Vec::new();
        for name in &self.engines {
            let engine = Engine::named(name.trim())?;
            engine.opener()?;
            if engines.iter().any(|other| other.name == engine.name) {
                return Err(Error::Usage(format!("--engines names {} twice", engine.name)));
            }
            engines.push(engine);
        }
        Ok(engines)
    }
}

/// Builds one program after the other and prints the seconds, and how many times longer than the
/// first each took.
fn build_times(engines: &[String]) -> Result<()> {
    let programs = engines.iter().map(|name| Program::of(name)).collect::<Result<Vec<_>>>()?;
    let mut first = None;
    println!("| from-scratch release build | seconds | times the first |\n|---|--:|--:|");
    for program in programs {
        let directory = tempfile::tempdir()
            .map_err(|source| Error::io("making a directory in", &std::env::temp_dir(), source))?;
        let seconds = program.build(directory.path())?;
        let first = *first.get_or_insert(seconds);
        println!("| {} | {seconds:.1} | {:.1}x |", program.engine, seconds / first);
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|source| Error::io("writing", path, source))
}

fn within(option: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::Usage(format!("{option} {value} is out of range; it must be {min} to {max}")))
}

fn duration(option: &str, seconds: f64, max: f64) -> Result<()> {
    if seconds > 0.0 && seconds <= max {
        return Ok(());
    }
    Err(Error::Usage(format!("{option} {seconds}: must be above 0 and at most {max}")))
}

fn list() -> String {
    let mut text = String::from("Experiments:\n");
    for experiment in &EXPERIMENTS {
        let _ = writeln!(text, "  {:<16} {}", experiment.name, experiment.title);
    }
    text.push_str("\nEngines:\n");
    for engine in &ENGINES {
        let state = match engine.opener() {
            Ok(_) => "available".to_owned(),
            Err(_) => format!("not in this build; add --features {}", engine.feature),
        };
        let _ = writeln!(text, "  {:<16} {} ({state})", engine.name, engine.summary);
    }
    text
}
