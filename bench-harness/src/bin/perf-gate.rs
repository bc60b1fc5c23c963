//! The gate against slowdowns; see `scripts/perf-gate`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use rustlite_bench::gate::baseline::Tools;
use rustlite_bench::gate::cli::{Cli, execute};

fn main() -> ExitCode {
    let result = Tools::here().and_then(|tools| execute(&Cli::parse(), &tools));
    match result {
        Ok((text, outcome)) => {
            print!("{text}");
            ExitCode::from(outcome.exit_code())
        }
        Err(error) => {
            eprintln!("perf-gate: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
