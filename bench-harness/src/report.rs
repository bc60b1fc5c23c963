//! What is printed: Markdown for people, JSON for programs.

mod steady;

use std::fmt::Write as _;

use rustlite_ycsb::machine::Machine;
use serde::Serialize;

use crate::pauses::Pauses;
use crate::session::{Measured, Settings};
use crate::statistics::Median;
use crate::target::{Comparison, FloorLine, Line, Metric, OURS, floor_lines, lines};

/// The whole document.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// The table of targets.
    pub lines: Vec<Line>,
    /// The floor.
    pub floor: Vec<FloorLine>,
    /// All that was measured.
    #[serde(flatten)]
    pub measured: &'a Measured,
}

impl<'a> Report<'a> {
    /// The report on what was measured.
    #[must_use]
    pub fn new(measured: &'a Measured) -> Self {
        Self { lines: lines(measured), floor: floor_lines(measured), measured }
    }

    /// The JSON document.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("all keys of the report's maps are strings")
    }

    /// The Markdown document.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        machine(&mut text, &self.measured.machine);
        pauses(&mut text, self.measured.pauses);
        settings(&mut text, &self.measured.settings);
        self.targets(&mut text);
        self.floor(&mut text);
        self.figures(&mut text);
        steady::section(&mut text, self.measured);
        self.memory(&mut text);
        self.configurations(&mut text);
        text
    }

    fn targets(&self, text: &mut String) {
        text.push_str(
            "| work | RustLite | best RocksDB | RustLite over RocksDB | wanted | best peer \
             | RustLite over it | wanted | |\n|---|--:|--:|--:|--:|--:|--:|--:|---|\n",
        );
        for line in &self.lines {
            let metric = line.target.metric;
            let ours = line.figures.iter().find(|figure| figure.engine == OURS);
            let ours = ours.map_or("-".into(), |figure| number(figure.median.value, metric));
            let [rocksdb, over_rocksdb, wanted] = comparison(line.rocksdb.as_ref(), metric);
            let [best, over_best, wanted_best] = comparison(line.best.as_ref(), metric);
            let _ = writeln!(
                text,
                "| {} | {ours} | {rocksdb} | {over_rocksdb} | {wanted} | {best} | {over_best} \
                 | {wanted_best} | {} |",
                line.target.title,
                verdict(line),
            );
        }
        text.push_str(
            "\nRatios above 1 mean that RustLite is better, for times and write amplification too. \
             They are medians over\nthe rounds, in each of which both engines ran right after one \
             another; in brackets, the interval that holds\nthe true median with the probability \
             named above.\n\n",
        );
    }

    fn floor(&self, text: &mut String) {
        if self.floor.is_empty() {
            return;
        }
        text.push_str("| floor | at least | RustLite | |\n|---|--:|--:|---|\n");
        for line in &self.floor {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                line.floor.title,
                number(line.floor.at_least, line.floor.metric),
                number(line.median.value, line.floor.metric),
                if line.passes { "pass" } else { "**FAIL**" },
            );
        }
        text.push('\n');
    }

    fn figures(&self, text: &mut String) {
        let engines: Vec<&str> =
            self.measured.settings.engines.iter().map(|engine| engine.name).collect();
        let _ = writeln!(text, "| all figures | {} |", engines.join(" | "));
        let _ = writeln!(text, "|---|{}", "--:|".repeat(engines.len()));
        for line in &self.lines {
            let _ = write!(text, "| {} |", line.target.title);
            for engine in &engines {
                let figure = line.figures.iter().find(|figure| figure.engine == *engine);
                let cell = figure.map_or("-".into(), |figure| {
                    let Median { value, low, high, rounds, .. } = figure.median;
                    let metric = line.target.metric;
                    if rounds == 1 {
                        return number(value, metric);
                    }
                    format!("{} ({} to {})", number(value, metric), bare(low), bare(high))
                });
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text.push('\n');
    }

    /// Memory without file pages, of the run that took most.
    fn memory(&self, text: &mut String) {
        text.push_str("| engine | largest private memory, MiB | in |\n|---|--:|---|\n");
        for engine in &self.measured.settings.engines {
            let own = self.measured.samples.iter().filter(|sample| sample.engine == engine.name);
            let largest = own
                .filter_map(|sample| Some((sample.outcome.anonymous_rss_bytes?, sample.experiment)))
                .max();
            if let Some((bytes, experiment)) = largest {
                let _ = writeln!(text, "| {} | {} | {experiment} |", engine.name, bytes >> 20);
            }
        }
        text.push('\n');
    }

    fn configurations(&self, text: &mut String) {
        for engine in &self.measured.settings.engines {
            // Sync and buffered differ; the longest list of settings is that of a load.
            let mut seen: Vec<&str> = Vec::new();
            for sample in &self.measured.samples {
                let configuration = sample.outcome.configuration.as_str();
                if sample.engine == engine.name && !seen.contains(&configuration) {
                    seen.push(configuration);
                    let _ = writeln!(text, "- **{}**: {configuration}", engine.name);
                }
            }
        }
        for (reason, experiments) in &self.measured.refusals {
            let _ = writeln!(text, "- not compared in {experiments}: {reason}");
        }
    }

    /// Whether every target and floor with a number is met.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.floor.iter().all(|line| line.passes)
            && self.lines.iter().all(|line| {
                let comparisons = [&line.rocksdb, &line.best].into_iter().flatten();
                comparisons.flat_map(Comparison::passes).all(|passes| passes)
            })
    }
}

fn machine(text: &mut String, machine: &Machine) {
    let unknown = || "unknown".to_owned();
    let gib = |bytes: u64| format!("{:.0} GiB", bytes as f64 / f64::from(1 << 30));
    let _ = writeln!(
        text,
        "Machine: {}, {} cores, {} of memory, Linux {}; {} ({}) on {}, {}, device cache {}, \
         F = {} (one durable 4 KiB overwrite).\n",
        machine.cpu.as_deref().unwrap_or("unknown processor"),
        machine.cores,
        machine.memory_bytes.map_or_else(unknown, gib),
        machine.kernel.as_deref().unwrap_or("unknown"),
        machine.file_system.as_deref().unwrap_or("unknown file system"),
        machine.mount_options.as_deref().unwrap_or("unknown options"),
        machine.device.as_deref().unwrap_or("unknown device"),
        machine.journal.unwrap_or("journal unknown"),
        machine.device_write_cache.as_deref().unwrap_or("unknown"),
        machine.durable_overwrite_us.map_or_else(unknown, |us| format!("{us:.0} us")),
    );
}

fn pauses(text: &mut String, pauses: Option<Pauses>) {
    let Some(Pauses { seconds, alone_us, beside_writer_us }) = pauses else { return };
    let _ = writeln!(
        text,
        "Without any engine, a thread that only reads the clock for {seconds:.0} s is kept waiting for up to {alone_us:.0} us, and for up to \
         {beside_writer_us:.0} us beside one that\nwrites and syncs files.\n",
    );
}

fn settings(text: &mut String, settings: &Settings) {
    let coverage = |rounds: usize| {
        let any = Median::of(&vec![0.0; rounds]);
        any.map_or(0.0, |median| 100.0 * median.coverage)
    };
    let _ = writeln!(
        text,
        "{} records of {} bytes with {} keys, {} of 1000 bytes for YCSB, {} for opening, a log \
         of {} MiB for recovery;\nruns of {} s, {} rounds ({} of those that take long), intervals hold \
         the median with {:.0} % ({:.0} %); caches of {} MiB,\nseed {}.\n",
        settings.records,
        settings.value_size,
        settings.keys.name(),
        settings.ycsb_records,
        settings.large_records,
        settings.log_bytes >> 20,
        settings.seconds,
        settings.rounds,
        settings.long_rounds,
        coverage(settings.rounds),
        coverage(settings.long_rounds),
        settings.cache_bytes >> 20,
        settings.seed,
    );
}

/// Peer, ratio and target in words.
fn comparison(comparison: Option<&Comparison>, metric: Metric) -> [String; 3] {
    let Some(Comparison { peer, ratio, target }) = comparison else {
        return ["-".into(), "-".into(), "-".into()];
    };
    let interval = match ratio.rounds {
        1 => String::new(),
        _ => format!(" ({:.2} to {:.2})", ratio.low, ratio.high),
    };
    [
        format!("{} {}", peer.engine, number(peer.median.value, metric)),
        format!("{:.2}x{interval}", ratio.value),
        target.map_or("-".into(), |target| format!("{}x", bare(target))),
    ]
}

fn verdict(line: &Line) -> &'static str {
    let comparisons = [&line.rocksdb, &line.best].into_iter().flatten();
    let verdicts: Vec<bool> = comparisons.filter_map(Comparison::passes).collect();
    match verdicts.iter().all(|passes| *passes) {
        _ if verdicts.is_empty() => "",
        true => "pass",
        false => "**FAIL**",
    }
}

/// A number with its unit, if that isn't plain from the table.
fn number(value: f64, metric: Metric) -> String {
    match metric {
        Metric::Throughput | Metric::SettledThroughput | Metric::RecordsFound => bare(value),
        _ => format!("{} {}", bare(value), metric.unit()),
    }
}

/// About three digits.
fn bare(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2}M", value / 1e6),
        value if value >= 1e4 => format!("{:.0}K", value / 1e3),
        value if value >= 1e3 => format!("{:.1}K", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
