//! The `bench` binary: parses the command line, prints the result, and gives an exit code that
//! scripts can rely on.
//!
//! Exit codes: 0 for success, 1 for a failure of an engine, the machine or a gate, 2 for a request
//! that can't be met.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use rustlite_bench::cli::{Cli, execute};
use rustlite_ycsb::interrupt;

fn main() -> ExitCode {
    let result = execute(&Cli::parse());
    interrupt::wait_if_interrupted();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
