//! The `ycsb` binary: parses the command line, prints the result, and gives an exit code that
//! scripts can rely on.
//!
//! Exit codes: 0 for success, 1 for a failure of an engine or the machine, 2 for a request that
//! can't be met.
#![deny(unsafe_code)]

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use rustlite_ycsb::cli::{Cli, execute};
use rustlite_ycsb::{Error, Result, interrupt};

fn main() -> ExitCode {
    let result = run();
    interrupt::wait_if_interrupted();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ycsb: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run() -> Result<()> {
    let output = execute(&Cli::parse())?;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(output.text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever read the output has seen enough, as in `ycsb list | head -1`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => return Err(Error::io("writing to", "standard output".as_ref(), error)),
        Ok(()) => {}
    }
    output.verdict
}
