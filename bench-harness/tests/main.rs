//! The `bench` binary as people and scripts use it: a whole comparison on tiny data, its report and
//! plots, and requests that must be refused.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(arguments).output().expect("the binary was built for this test")
}

fn read(directory: &Path, name: &str) -> String {
    let path = directory.join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every experiment with the smallest data, with the engines of this build.
#[test]
fn a_comparison_measures_every_experiment_and_writes_report_and_plots() {
    let base = tempfile::tempdir().unwrap();
    let output_directory = base.path().join("results");
    let output = bench(&[
        "compare",
        "--engines",
        "rustlite",
        "--records",
        "2k",
        "--ycsb-records",
        "300",
        "--large-records",
        "3k",
        "--log-mib",
        "1",
        "--seconds",
        "0.2",
        "--rounds",
        "2",
        "--long-rounds",
        "1",
        "--keys",
        "uuid",
        "--output",
        output_directory.to_str().unwrap(),
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text, read(&output_directory, "report.md"));
    for part in ["Machine: ", "F = ", "uuid keys", "| full scan backwards |", "sequential write"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let document: Value = serde_json::from_str(&read(&output_directory, "report.json")).unwrap();
    let lines = document["lines"].as_array().unwrap();
    // Three experiments have two lines each.
    assert_eq!(lines.len(), 33);
    for line in lines {
        let value = line["figures"][0]["median"]["value"].as_f64();
        // It may happen that no transaction fails.
        let may_be_zero = line["target"]["metric"] == "abort_rate";
        assert!(value.is_some_and(|value| value > 0.0 || may_be_zero), "{line}");
    }
    let samples = document["samples"].as_array().unwrap();
    let rounds_of = |experiment: &str| {
        samples.iter().filter(|sample| sample["experiment"] == experiment).count()
    };
    assert_eq!((rounds_of("get"), rounds_of("overwrite")), (2, 1));
    // A killed process's log is recovered: every record of it was found again.
    assert_eq!(rounds_of("recovery"), 1);
    assert!(document["machine"]["durable_overwrite_us"].as_f64().unwrap() > 0.0);
    for plot in ["throughput.svg", "latency.svg", "scaling.svg", "timeline.svg"] {
        let plot = read(&output_directory, plot);
        assert!(plot.starts_with("<svg") && plot.contains("rustlite"), "{plot:.200}");
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn ratios_are_of_the_rounds_and_say_who_is_best() {
    let base = tempfile::tempdir().unwrap();
    let output = bench(&[
        "compare",
        "--engines",
        "rustlite,sqlite",
        "--experiments",
        "get,sync-8",
        "--records",
        "1k",
        "--seconds",
        "0.1",
        "--rounds",
        "3",
        "--output",
        base.path().to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_str(&read(base.path(), "report.json")).unwrap();
    for line in document["lines"].as_array().unwrap() {
        let best = &line["best"];
        assert_eq!(best["peer"]["engine"], "sqlite");
        assert!(line["rocksdb"].is_null(), "no RocksDB took part");
        let ratio = |field: &str| best["ratio"][field].as_f64().unwrap();
        assert!(ratio("low") <= ratio("value") && ratio("value") <= ratio("high"), "{best}");
        assert!(ratio("low") > 0.0);
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    for (arguments, part) in [
        (&["compare", "--experiments", "nothing"][..], "no experiment"),
        (&["compare", "--engines", "oracle"], "no engine"),
        (&["compare", "--engines", "rustlite,rustlite"], "twice"),
        (&["compare", "--records", "0"], "--records"),
        (&["compare", "--seconds", "0"], "--seconds"),
        (&["compare", "--rounds", "2", "--long-rounds", "3"], "--long-rounds"),
        (&["compare", "--value-size", "100000000"], "--value-size"),
    ] {
        let output = bench(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
}

#[test]
fn list_names_experiments_and_engines() {
    let text = String::from_utf8(bench(&["list"]).stdout).unwrap();
    for part in ["load-random", "write-async", "rocksdb-mmap", "lmdb-writemap"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
