//! Runs a step in a child process, so that peak memory, CPU time and bytes written belong to that
//! step and engine alone.
//!
//! ```text
//! parent                                   child: `ycsb __worker`
//!   one JSON line: StepSpec    -- stdin -->
//!                              <-- stdout -- JSON lines: {"progress": n} ... then {"outcome":
//!                              {...}} or {"failed": "..."}
//! ```
//!
//! A child that is to leave its store as a crash would waits to be killed after its outcome.
//!
//! A child whose parent is gone notices at its next progress line and stops.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::step::{Leave, StepOutcome, StepSpec, execute};

/// The hidden subcommand that makes a process a worker.
pub const SUBCOMMAND: &str = "__worker";

/// A line from the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// Operations done so far.
    Progress(u64),
    /// The end: it worked.
    Outcome(Box<StepOutcome>),
    /// The end: it didn't.
    Failed(String),
}

/// The child's side: reads the step from `input`, carries it out, reports to `output`.
///
/// # Errors
/// The input is no step, or the output is closed. An engine's error is reported to the parent and
/// is none here.
pub fn serve(input: &mut dyn BufRead, output: &mut dyn Write) -> Result<()> {
    let mut line = String::new();
    let stdio =
        |source| Error::io("talking to the parent on", Path::new("standard streams"), source);
    input.read_line(&mut line).map_err(stdio)?;
    let spec: StepSpec = serde_json::from_str(&line).map_err(|error| {
        Error::Usage(format!("{SUBCOMMAND} is for `ycsb` itself; this is no step: {error}"))
    })?;
    let mut heard = true;
    let result = execute(&spec, &mut |done| {
        heard &= send(output, &Message::Progress(done)).is_ok();
        heard
    });
    let last = match result {
        Ok(outcome) => Message::Outcome(Box::new(outcome)),
        Err(error) => Message::Failed(error.to_string()),
    };
    let sent = send(output, &last);
    if spec.leave == Leave::Killed {
        // The parent kills this process once it has read the outcome; if it is gone, nothing is
        // left to wait for.
        while sent.is_ok() {
            std::thread::park();
        }
    }
    match sent {
        // The parent was interrupted and has said so, or nobody is left to tell.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent.map_err(stdio),
    }
}

fn send(output: &mut dyn Write, message: &Message) -> std::io::Result<()> {
    serde_json::to_writer(&mut *output, message)?;
    output.write_all(b"\n")?;
    output.flush()
}

/// Ends the child when the parent gives up on it early.
struct Reaper(Child);

impl Drop for Reaper {
    fn drop(&mut self) {
        // Both fail only if the child has been waited for already, which is the usual case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The parent's side: runs the step in a new process of `program`, which is the `ycsb` binary.
///
/// # Errors
/// The process can't be started, ends without an outcome, or reports an engine's error.
pub fn run(program: &Path, spec: &StepSpec, progress: &mut dyn FnMut(u64)) -> Result<StepOutcome> {
    let child = Command::new(program)
        .arg(SUBCOMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Error::io("starting a worker process of", program, source))?;
    let mut child = Reaper(child);
    let mut input = child.0.stdin.take().expect("stdin is piped");
    let output = child.0.stdout.take().expect("stdout is piped");
    let request =
        serde_json::to_string(spec).expect("a step has no map with keys that are no strings");
    // If the child is gone already, its exit status below says more than the broken pipe.
    let _ = writeln!(input, "{request}");
    drop(input);
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|source| Error::io("reading from a worker of", program, source))?;
        match serde_json::from_str(&line) {
            Ok(Message::Progress(done)) => progress(done),
            Ok(Message::Outcome(outcome)) => return Ok(*outcome),
            Ok(Message::Failed(text)) => return Err(Error::Worker(text)),
            Err(_) => {
                let text = format!("{}: unexpected output of the worker: {line}", spec.engine);
                return Err(Error::Worker(text));
            }
        }
    }
    let status = child.0.wait();
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    let step =
        spec.workload.as_deref().map_or("the load".into(), |name| format!("workload {name}"));
    Err(Error::Worker(format!(
        "{}: the worker process for {step} ended without a result ({status})",
        spec.engine
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_on_stdin_is_a_usage_error() {
        let error = serve(&mut &b"hello\n"[..], &mut Vec::new()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("no step"), "{error}");
    }

    #[test]
    fn a_worker_that_dies_is_reported_with_its_status() {
        let spec = StepSpec {
            engine: "rustlite".into(),
            directory: "/nonexistent".into(),
            workload: Some("a".into()),
            distribution: None,
            durability: crate::store::Durability::Sync,
            cache_bytes: 1 << 20,
            threads: 1,
            records: 1,
            value_size: 1,
            operations: Some(1),
            seconds: None,
            target_rate: None,
            seed: 1,
            keys: crate::keys::KeyShape::Ycsb,
            order: crate::keys::LoadOrder::Random,
            memtable_bytes: 1 << 20,
            prepare: false,
            warm: false,
            leave: Leave::Settled,
            control_group: None,
        };
        let error = run(Path::new("/bin/false"), &spec, &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("workload a ended without a result (exit status: 1)"), "{error}");
        let error = run(Path::new("/nonexistent/ycsb"), &spec, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("starting a worker process"), "{error}");
    }
}
