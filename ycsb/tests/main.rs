//! The `ycsb` binary as people and scripts use it: whole comparisons on tiny data, the JSON
//! document's shape, and every kind of request that must be refused with a word about what to do.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at real files that the binary leaves"
)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn ycsb(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ycsb"));
    command.args(arguments).output().expect("the binary was built for this test")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(arguments: &[&str]) -> Value {
    let output = ycsb(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    let text = stdout(&output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Asserts that the request is refused with exit code 2 and a message with all the given parts.
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = ycsb(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(stdout(&output).is_empty(), "{arguments:?}");
    for part in parts {
        assert!(message.contains(part), "{arguments:?}: {part:?} is not in {message:?}");
    }
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or_else(|| panic!("{field} is no number in {line}"))
}

fn check_line(line: &Value) {
    assert!(number(line, "throughput_ops_per_sec") > 0.0);
    let latency = &line["latency_us"];
    let mut previous = 0.0;
    for percentile in ["p50", "p95", "p99", "p999", "max"] {
        let value = number(latency, percentile);
        assert!(value >= previous, "{percentile} in {latency}");
        previous = value;
    }
    assert!(number(line, "cpu_seconds") > 0.0);
    assert!(number(line, "peak_rss_bytes") > 1e6);
    assert!(line["bytes_written"].is_u64() || line["bytes_written"].is_null());
    assert!(number(line, "disk_bytes") > 0.0);
    assert_eq!(line["errors"], 0);
    assert_eq!(line["threads"], 2);
    assert_eq!(line["value_size"], 100);
    assert_eq!(line["durability"], "buffered");
    assert!(!line["configuration"].as_str().expect("a text").is_empty());
}

#[test]
fn compare_prints_one_document_with_every_workload_and_engine() {
    let document = json(&[
        "compare",
        "--engines",
        "rustlite,sqlite",
        "--workloads",
        "a,b,c,d,e,f",
        "--records",
        "500",
        "--operations",
        "400",
        "--threads",
        "2",
        "--value-size",
        "100",
        "--durability",
        "buffered",
        "--json",
    ]);
    let results = document["results"].as_array().unwrap();
    let mut seen = Vec::new();
    for line in results {
        check_line(line);
        assert_eq!(line["operations"], 400);
        // D runs on what A, B, C and F have left, E on a fresh load: none of them sees another's
        // inserts.
        assert_eq!(line["records"], 500, "{line}");
        let ratio = number(line, "rustlite_ratio");
        assert!(ratio > 0.0 && (line["engine"] != "rustlite" || (ratio - 1.0).abs() < 1e-9));
        seen.push(format!(
            "{}{}",
            line["workload"].as_str().unwrap(),
            &line["engine"].as_str().unwrap()[..1]
        ));
    }
    assert_eq!(seen.join(" "), "ar as br bs cr cs dr ds er es fr fs");
    let loads = document["loads"].as_array().unwrap();
    assert_eq!(loads.len(), 2);
    loads.iter().for_each(check_line);
    let machine = &document["machine"];
    assert!(machine["kernel"].is_string() && machine["file_system"].is_string());
    assert!(number(machine, "durable_overwrite_us") > 0.0);
    // Percentages of the mix, from the document itself.
    let scans = results.iter().find(|line| line["workload"] == "e").unwrap();
    assert!(number(&scans["by_operation"]["scan"], "count") > 350.0);
}

#[test]
fn rounds_are_repeated_and_the_median_one_is_reported() {
    let document = json(&[
        "compare",
        "--engines",
        "rustlite",
        "--workloads",
        "D",
        "--records",
        "200",
        "--operations",
        "200",
        "--durability",
        "buffered",
        "--rounds",
        "3",
        "--json",
    ]);
    let line = &document["results"][0];
    let rounds = line["throughput_of_rounds"].as_array().unwrap();
    let mut rounds: Vec<f64> = rounds.iter().map(|round| round.as_f64().unwrap()).collect();
    assert_eq!(rounds.len(), 3);
    rounds.sort_by(f64::total_cmp);
    assert!((number(line, "throughput_ops_per_sec") - rounds[1]).abs() < 1e-6);
    assert_eq!(line["records"], 200, "a round must not see the inserts of the one before");
}

#[test]
fn table_names_engines_ratio_and_configurations() {
    let output = ycsb(&[
        "compare",
        "--records",
        "300",
        "--operations",
        "300",
        "--workloads",
        "c",
        "--durability",
        "buffered",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        "ops/s",
        "p99.9 us",
        "peak RSS",
        "on disk",
        "RustLite is",
        "WAL, synchronous=OFF",
        "device cache",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(stderr(&output).is_empty(), "no progress bar without a terminal");
}

#[test]
fn load_then_run_use_the_same_directory_and_runs_see_earlier_inserts() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data");
    let dir = dir.to_str().unwrap();
    let loaded = json(&[
        "load",
        "--dir",
        dir,
        "--records",
        "400",
        "--value-size",
        "50",
        "--durability",
        "buffered",
        "--json",
    ]);
    assert_eq!(loaded["loads"][0]["operations"], 400);
    assert_eq!(loaded["results"].as_array().unwrap().len(), 0);
    let run = |workload| {
        json(&[
            "run",
            "--dir",
            dir,
            "--workload",
            workload,
            "--operations",
            "500",
            "--durability",
            "buffered",
            "--json",
        ])
    };
    let first = run("d");
    let line = &first["results"][0];
    assert_eq!((&line["records"], &line["value_size"]), (&Value::from(400), &Value::from(50)));
    let inserted = number(&line["by_operation"]["insert"], "count");
    assert!(inserted > 0.0);
    let second = run("c");
    assert!((number(&second["results"][0], "records") - 400.0 - inserted).abs() < 0.5);
    refused(
        &["run", "--dir", dir, "--engines", "sqlite"],
        &["no complete load of sqlite", "ycsb load"],
    );
    refused(&["run", "--dir", dir, "--value-size", "60"], &["--value-size 50"]);
    refused(&["run", "--dir", dir, "--records", "5"], &["leave --records away"]);
}

#[test]
fn run_without_a_directory_loads_first_and_honours_time_and_rate() {
    let document = json(&[
        "run",
        "--records",
        "200",
        "--workloads",
        "b",
        "--durability",
        "buffered",
        "--seconds",
        "0.5",
        "--target-rate",
        "1000",
        "--json",
    ]);
    let line = &document["results"][0];
    let operations = number(line, "operations");
    assert!(
        (300.0..=510.0).contains(&operations),
        "{operations} in half a second at 1000 a second"
    );
}

#[test]
fn sync_durability_works_end_to_end() {
    let document = json(&[
        "compare",
        "--records",
        "50",
        "--operations",
        "60",
        "--workloads",
        "f",
        "--threads",
        "3",
        "--durability",
        "sync",
        "--json",
    ]);
    for line in document["results"].as_array().unwrap() {
        assert_eq!((&line["durability"], &line["errors"]), (&Value::from("sync"), &Value::from(0)));
    }
}

#[test]
fn foreign_directories_are_refused_and_left_alone() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let dir = base.path().to_str().unwrap();
    refused(&["compare", "--dir", dir], &["not empty", "empty or a new directory"]);
    refused(&["load", "--dir", file.to_str().unwrap()], &["is not a directory"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
    assert!(!Path::new(dir).join("ycsb.json").exists());
}

#[test]
fn bad_arguments_say_what_would_be_right() {
    refused(&["compare", "--records", "0"], &["--records 0", "1 to"]);
    refused(&["compare", "--records", "many"], &["200k"]);
    refused(&["compare", "--operations", "0"], &["--operations 0"]);
    refused(&["compare", "--threads", "0"], &["--threads 0", "1 to 4096"]);
    refused(&["compare", "--threads", "5000"], &["1 to 4096"]);
    refused(&["compare", "--value-size", "0"], &["--value-size 0"]);
    refused(&["compare", "--value-size", "100000000000"], &["--value-size", "67108864"]);
    refused(&["compare", "--rounds", "0"], &["--rounds 0"]);
    refused(&["compare", "--cache-mib", "0"], &["--cache-mib 0"]);
    refused(&["compare", "--seconds", "0"], &["--seconds 0", "above 0"]);
    refused(&["compare", "--seconds", "NaN"], &["--seconds NaN"]);
    refused(&["compare", "--target-rate", "-5"], &["--target-rate"]);
    refused(&["compare", "--workloads", "a,z"], &["no workload \"z\"", "a, b, c, d, e and f"]);
    refused(&["compare", "--workloads", "a,A"], &["names a twice"]);
    refused(&["compare", "--engines", "rustlite,oracle"], &["no engine \"oracle\"", "sqlite"]);
    refused(&["compare", "--engines", "sqlite,sqlite"], &["names sqlite twice"]);
    refused(&["compare", "--durability", "hopeful"], &["sync, buffered"]);
    refused(&["frobnicate"], &["unrecognized subcommand"]);
    refused(&[], &["Usage"]);
}

#[test]
fn unequal_durability_is_refused_by_name() {
    refused(&["compare", "--engines", "rustlite,redb", "--durability", "buffered"], &["redb"]);
}

#[test]
fn an_interrupted_comparison_leaves_nothing_behind() {
    let base = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let entries = || std::fs::read_dir(base.path()).unwrap().count();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ycsb"))
        .args([
            "compare",
            "--workloads",
            "c",
            "--seconds",
            "60",
            "--records",
            "100",
            "--durability",
            "buffered",
        ])
        .env("TMPDIR", base.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let patience = std::time::Duration::from_millis(20);
    let mut waited = 0;
    while entries() == 0 && waited < 500 {
        std::thread::sleep(patience);
        waited += 1;
    }
    assert_eq!(entries(), 1, "the working directory");
    std::thread::sleep(10 * patience);
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(entries(), 0);
}

#[test]
fn list_shows_engines_with_their_features_and_workloads_with_their_mixes() {
    let output = ycsb(&["list"]);
    assert!(output.status.success());
    let text = stdout(&output);
    for part in [
        "rustlite",
        "sqlite",
        "rocksdb-default",
        "lmdb",
        "50 % read, 50 % update",
        "95 % scan, 5 % insert",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn worker_protocol_is_not_for_people() {
    let output = ycsb(&["__worker"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("for `ycsb` itself"), "{}", stderr(&output));
}
