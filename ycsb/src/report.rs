//! Turns a [`Report`] into a table for people or one JSON document for programs.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::compare::{Report, ResultLine};
use crate::machine::Machine;

/// The JSON document, on one line.
#[must_use]
pub fn json(report: &Report) -> String {
    serde_json::to_string(report).expect("all keys of the report's maps are strings")
}

/// The table, with the machine above it and the configurations below.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    describe_machine(&mut text, &report.machine);
    if let Some(line) = report.results.first().or(report.loads.first()) {
        let rounds = if report.rounds == 1 {
            String::new()
        } else {
            format!(", median of {} rounds", report.rounds)
        };
        let rate = report.target_rate.map_or(String::new(), |rate| {
            format!(", at {rate} operations a second (latencies from the intended start)")
        });
        let chosen = report.distribution.map_or(String::new(), |distribution| {
            format!(", {distribution:?} requests instead of each workload's own").to_lowercase()
        });
        let _ = writeln!(
            text,
            "{} durability, {} keys, {} bytes a record, threads: {}{chosen}{rate}{rounds}",
            line.durability.name(),
            report.keys.name(),
            line.value_size,
            line.threads,
        );
    }
    let _ = writeln!(text, "{}", table(report));
    footer(&mut text, report);
    text
}

fn describe_machine(text: &mut String, machine: &Machine) {
    let unknown = || "unknown".to_owned();
    let _ = writeln!(
        text,
        "{}, {} cores, {} of memory, Linux {}",
        machine.cpu.as_deref().unwrap_or("unknown processor"),
        machine.cores,
        machine.memory_bytes.map_or_else(unknown, bytes),
        machine.kernel.as_deref().unwrap_or("unknown"),
    );
    let _ = writeln!(
        text,
        "{} on {}, device cache: {}, one durable 4 KiB overwrite: {}",
        machine.file_system.as_deref().unwrap_or("unknown file system"),
        machine.device.as_deref().unwrap_or("unknown device"),
        machine.device_write_cache.as_deref().unwrap_or("unknown"),
        machine.durable_overwrite_us.map_or_else(unknown, |us| format!("{} us", micros(us))),
    );
}

const HEADER: [&str; 12] = [
    "workload",
    "engine",
    "ops/s",
    "p50 us",
    "p95 us",
    "p99 us",
    "p99.9 us",
    "CPU s",
    "peak RSS",
    "written",
    "on disk",
    "RustLite is",
];

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED);
    let right_from = 2;
    table.set_header(HEADER.iter().enumerate().map(|(column, name)| {
        let side = if column < right_from { CellAlignment::Left } else { CellAlignment::Right };
        Cell::new(name).set_alignment(side)
    }));
    let mut previous = "";
    for line in report.loads.iter().chain(&report.results) {
        let name = if line.workload == previous { "" } else { line.workload };
        previous = line.workload;
        let mut cells = vec![Cell::new(name), Cell::new(line.engine)];
        let numbers = numbers(line).into_iter();
        cells.extend(numbers.map(|number| Cell::new(number).set_alignment(CellAlignment::Right)));
        table.add_row(cells);
    }
    table
}

fn numbers(line: &ResultLine) -> [String; 10] {
    let outcome = &line.outcome;
    let latency = &outcome.latency_us;
    let unknown = || "-".to_owned();
    [
        grouped(outcome.throughput_ops_per_sec.round() as u64),
        micros(latency.p50),
        micros(latency.p95),
        micros(latency.p99),
        micros(latency.p999),
        format!("{:.2}", outcome.cpu_seconds),
        outcome.peak_rss_bytes.map_or_else(unknown, bytes),
        outcome.bytes_written.map_or_else(unknown, bytes),
        bytes(outcome.disk_bytes),
        ratio(line),
    ]
}

/// How RustLite compares with the engine of this line, in words that leave no doubt about the
/// direction.
fn ratio(line: &ResultLine) -> String {
    match line.rustlite_ratio {
        _ if line.engine == "rustlite" => "-".into(),
        None => "-".into(),
        Some(ratio) if ratio >= 1.0 => format!("{ratio:.2}x as fast"),
        Some(ratio) => format!("{ratio:.2}x (slower)"),
    }
}

fn footer(text: &mut String, report: &Report) {
    let _ = writeln!(
        text,
        "RustLite is: RustLite's ops/s divided by this engine's. CPU, memory and bytes written are \
         those of\nthe whole step in a process of its own, with the flushing, compacting and \
         checkpointing after the\nlast operation, which ops/s leaves out."
    );
    let mut named: Vec<&str> = Vec::new();
    for line in report.results.iter().chain(&report.loads) {
        if !named.contains(&line.engine) {
            named.push(line.engine);
            let _ = writeln!(text, "{}: {}", line.engine, line.outcome.configuration);
        }
    }
}

/// Microseconds with about three significant digits.
fn micros(us: f64) -> String {
    match us {
        us if us < 10.0 => format!("{us:.2}"),
        us if us < 100.0 => format!("{us:.1}"),
        us => grouped(us.round() as u64),
    }
}

/// Bytes in binary units with about three significant digits.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A number with a comma between each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(300 << 20), "300 MiB");
        assert_eq!(bytes(u64::MAX), "16777216 TiB");
        assert_eq!(micros(0.456), "0.46");
        assert_eq!(micros(45.67), "45.7");
        assert_eq!(micros(12345.6), "12,346");
    }
}
