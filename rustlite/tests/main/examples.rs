//! Every example runs and succeeds.

use std::path::Path;
use std::process::Command;

/// Cargo builds examples before it runs all tests, and puts them beside the directory of the test binaries. When it runs only
/// this binary, they may have to be built here.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let path = profile.join("examples").join(name);
    if !path.exists() {
        build(name, profile);
    }
    let mut command = Command::new(path);
    command.env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn build(name: &str, profile: &Path) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--example", name]);
    command.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    command.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        command.arg("--release");
    }
    assert!(command.status().unwrap().success(), "{command:?}");
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
    let heard = run(example("snapshots"));
    assert!(heard.contains("total 300") && heard.contains("alice had 120"), "{heard}");
}

#[test]
fn transactions_runs() {
    let heard = run(example("transactions"));
    assert!(heard.contains("there are 1000 coins"), "{heard}");
    assert!(heard.contains("RepeatableRead: nobody is on call"), "{heard}");
    assert!(heard.contains("Serializable: refused: key \"on call: "), "{heard}");
}

#[test]
fn indexes_runs() {
    let heard = run(example("indexes"));
    assert!(heard.contains("in London: Ada, Alan"), "{heard}");
    assert!(heard.contains("refused: index \"by email\" is unique"), "{heard}");
    assert!(heard.contains("speaks French: Ada, Emilie"), "{heard}");
    assert!(heard.contains("10 entries agree with their rows"), "{heard}");
}

#[test]
fn index_cost_runs() {
    let mut command = example("index_cost");
    command.arg("5000");
    let heard = run(command);
    assert!(heard.contains("equality, 1 for each index key, compacted"), "{heard}");
    assert!(heard.contains("update of the indexed bytes"), "{heard}");
}

#[test]
fn keyspaces_runs() {
    assert!(run(example("keyspaces")).contains("ada@example.org"));
}

#[test]
fn ttl_runs() {
    let heard = run(example("ttl"));
    assert!(heard.contains("at first: ada, grace, root\nlater: ada, root"), "{heard}");
}

#[test]
fn merge_runs() {
    let heard = run(example("merge"));
    assert!(heard.contains("/ was seen 50 times\n/about was seen 7 times"), "{heard}");
    assert!(heard.contains("today: [12, 25]"), "{heard}");
}

#[test]
fn backup_runs() {
    let heard = run(example("backup"));
    assert!(heard.contains("generation 1 has 1000 orders"), "{heard}");
    assert!(heard.contains("restored 1000 orders"), "{heard}");
}

#[test]
fn bulk_ingest_runs() {
    assert!(run(example("bulk_ingest")).contains("readings: 200000"));
}

#[test]
fn a_small_soak_finds_what_its_model_expects() {
    let mut command = example("soak");
    command.arg("50000");
    let heard = run(command);
    assert!(heard.contains("everything as expected"), "{heard}");
}
