//! Every example runs and succeeds.

use std::path::PathBuf;
use std::process::Command;

/// Cargo builds examples before it runs tests, and puts them beside the directory of the test binaries.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built; run `cargo build --examples` first", path.display());
    let mut command = Command::new(path);
    command.env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let heard = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {heard}\n{told}");
    heard
}

#[test]
fn quickstart_runs() {
    assert!(run(example("quickstart")).contains("Grace"));
}

#[test]
fn snapshots_runs() {
    assert!(run(example("snapshots")).contains("total 300"));
}

#[test]
fn keyspaces_runs() {
    assert!(run(example("keyspaces")).contains("ada@example.org"));
}

#[test]
fn a_small_soak_finds_what_its_model_expects() {
    let mut command = example("soak");
    command.arg("50000");
    let heard = run(command);
    assert!(heard.contains("everything as expected"), "{heard}");
}
