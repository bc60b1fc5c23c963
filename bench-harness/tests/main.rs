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
    // Four experiments have two lines each.
    assert_eq!(lines.len(), 35);
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

/// The runs for minutes, for a second each.
#[test]
fn runs_for_minutes_tell_how_they_went_over_time() {
    let base = tempfile::tempdir().unwrap();
    let names = ["steady-overwrite", "steady-delete", "steady-expire", "steady-mixed"];
    let output = bench(&[
        "compare",
        "--engines",
        "rustlite",
        "--experiments",
        &names.join(","),
        "--records",
        "2k",
        "--ycsb-records",
        "500",
        "--steady-seconds",
        "1",
        "--rounds",
        "1",
        "--output",
        base.path().to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = read(base.path(), "report.md");
    let lines =
        report.lines().filter(|line| line.contains("for minutes") && line.contains("| rustlite |"));
    let cells: Vec<Vec<&str>> =
        lines.map(|line| line.split('|').map(str::trim).collect()).collect();
    assert_eq!(cells.len(), names.len(), "{report}");
    for line in cells {
        assert_eq!(line[3], "1", "seconds: {line:?}");
        assert!(line[7].parse::<f64>().unwrap() > 0.0, "last over first minute: {line:?}");
        assert!(line[9].parse::<f64>().unwrap() > 0.0, "longest gap: {line:?}");
    }
    let document: Value = serde_json::from_str(&read(base.path(), "report.json")).unwrap();
    let samples = document["samples"].as_array().unwrap();
    for (name, operation) in [
        ("steady-delete", "turnover"),
        ("steady-expire", "insert_expiring"),
        ("steady-mixed", "turnover"),
    ] {
        let sample = samples.iter().find(|sample| sample["experiment"] == name).unwrap();
        let count = sample["outcome"]["by_operation"][operation]["count"].as_u64();
        assert!(count.is_some_and(|count| count > 0), "{name}: {sample}");
        assert!(sample["outcome"]["disk_bytes_at_work"].as_u64().unwrap() > 0);
    }
    assert!(read(base.path(), "timeline.svg").contains("overwrite for minutes"));
}

/// Where limits are to be had, reads of more than there is memory for give the same answers; where
/// not, it is said why.
#[test]
fn reads_beyond_memory_are_measured_or_refused_with_the_reason() {
    let base = tempfile::tempdir().unwrap();
    let output = bench(&[
        "compare",
        "--engines",
        "rustlite",
        "--experiments",
        "get-2x,multi-get-2x,scan-100-2x,scan-forward-2x",
        "--beyond-records",
        "150k",
        "--seconds",
        "0.3",
        "--rounds",
        "1",
        "--output",
        base.path().to_str().unwrap(),
    ]);
    let message = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("needs root"), "{message}");
        return;
    }
    let document: Value = serde_json::from_str(&read(base.path(), "report.json")).unwrap();
    assert_eq!(document["lines"].as_array().unwrap().len(), 4);
    for sample in document["samples"].as_array().unwrap() {
        let peak = sample["outcome"]["peak_rss_bytes"].as_u64().unwrap();
        let data = sample["live_bytes"].as_f64().unwrap();
        assert!((peak as f64) < data * 0.6, "{peak} of {data} bytes: there was no limit");
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
        (&["compare", "--steady-seconds", "-1"], "--steady-seconds"),
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
    for part in
        ["load-random", "write-async", "steady-mixed", "get-4x", "rocksdb-mmap", "lmdb-writemap"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
