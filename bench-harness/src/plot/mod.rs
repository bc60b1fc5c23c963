//! The plots of a comparison, as SVG: throughput, latencies, scaling by threads, and operations
//! over time, where a stall shows as a gap.
//!
//! Each file is a grid of panels, one for each experiment, with the same colour for an engine in
//! all of them. What is drawn is the round of median throughput, whole.

mod panel;

use std::path::Path;

use plotters::prelude::*;
use rustlite_ycsb::error::{Error, Result};

use self::panel::{Line, bars, lines};
use crate::experiment::EXPERIMENTS;
use crate::session::{Measured, Sample};
use crate::target::{Metric, TARGETS};

/// Size of a panel.
const PANEL: (u32, u32) = (420, 260);

/// Panels side by side.
const COLUMNS: usize = 3;

/// Percentiles that are drawn, with the positions of their labels.
const PERCENTILES: [&str; 5] = ["p50", "p95", "p99", "p99.9", "max"];

/// Experiments by number of threads.
const SCALINGS: [(&str, &[(&str, f64)]); 2] = [
    (
        "sync commits a second by threads",
        &[("sync-1", 1.0), ("sync-8", 8.0), ("sync-32", 32.0), ("sync-64", 64.0)],
    ),
    ("gets a second by threads", &[("get", 1.0), ("get-2", 2.0)]),
];

/// What a panel shows.
enum Content {
    Bars(Vec<(usize, f64)>),
    Lines { lines: Vec<Line>, is_logarithmic: bool },
}

struct Panel {
    title: String,
    content: Content,
}

/// Draws all plots into `directory`.
///
/// # Errors
/// A file can't be written.
pub fn draw_all(measured: &Measured, directory: &Path) -> Result<()> {
    let plots = [
        ("throughput.svg", throughput(measured)),
        ("latency.svg", latencies(measured)),
        ("scaling.svg", scaling(measured)),
        ("timeline.svg", timelines(measured)),
    ];
    let engines: Vec<&str> = measured.settings.engines.iter().map(|engine| engine.name).collect();
    for (name, panels) in plots {
        if !panels.is_empty() {
            let path = directory.join(name);
            draw(&path, &panels, &engines).map_err(|error| {
                let source = std::io::Error::other(error.to_string());
                Error::io("drawing", &path, source)
            })?;
        }
    }
    Ok(())
}

fn draw(
    path: &Path,
    panels: &[Panel],
    engines: &[&str],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let columns = COLUMNS.min(panels.len());
    let rows = panels.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, PANEL.1 * rows as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (panel, area) in panels.iter().zip(root.split_evenly((rows, columns))) {
        match &panel.content {
            Content::Bars(values) => bars(&area, &panel.title, values, engines)?,
            Content::Lines { lines: content, is_logarithmic } => {
                lines(&area, &panel.title, content, engines, *is_logarithmic)?;
            }
        }
    }
    root.present()?;
    Ok(())
}

/// The sample of median throughput of an engine in an experiment.
fn typical<'a>(measured: &'a Measured, experiment: &str, engine: &str) -> Option<&'a Sample> {
    let own = measured.samples.iter();
    let own = own.filter(|sample| sample.experiment == experiment && sample.engine == engine);
    let mut own: Vec<&Sample> = own.collect();
    let rate = |sample: &&Sample| sample.outcome.throughput_ops_per_sec;
    own.sort_by(|left, right| rate(left).total_cmp(&rate(right)));
    own.get(own.len().saturating_sub(1) / 2).copied()
}

/// Something of each engine's typical sample, with the engine's index.
fn of_engines<T>(
    measured: &Measured,
    experiment: &str,
    value: impl Fn(&Sample) -> Option<T>,
) -> Vec<(usize, T)> {
    let engines = measured.settings.engines.iter().enumerate();
    let value = |(index, engine): (usize, &&rustlite_ycsb::adapters::Engine)| {
        Some((index, value(typical(measured, experiment, engine.name)?)?))
    };
    engines.filter_map(value).collect()
}

fn throughput(measured: &Measured) -> Vec<Panel> {
    let rates = TARGETS.iter().filter(|target| target.metric.more_is_better());
    let panels = rates.map(|target| {
        let values = of_engines(measured, target.experiment, |sample| target.metric.of(sample));
        let title = format!("{} ({})", target.title, target.metric.unit());
        Panel { title, content: Content::Bars(values) }
    });
    panels.filter(has_content).collect()
}

fn latencies(measured: &Measured) -> Vec<Panel> {
    let panels = EXPERIMENTS.iter().map(|experiment| {
        let percentiles = of_engines(measured, experiment.name, |sample| {
            let latency = &sample.outcome.latency_us;
            let values = [latency.p50, latency.p95, latency.p99, latency.p999, latency.max];
            // Openings and scans of everything are single operations: nothing to tell apart.
            (sample.outcome.operations >= 1000).then_some(values)
        });
        let line = |(engine, values): (usize, [f64; PERCENTILES.len()])| Line {
            engine,
            points: values.into_iter().enumerate().map(|(x, y)| (x as f64, y)).collect(),
        };
        Panel {
            title: format!("{}: us at {}", experiment.title, PERCENTILES.join(", ")),
            content: Content::Lines {
                lines: percentiles.into_iter().map(line).collect(),
                is_logarithmic: true,
            },
        }
    });
    panels.filter(has_content).collect()
}

fn scaling(measured: &Measured) -> Vec<Panel> {
    let panels = SCALINGS.iter().map(|(title, experiments)| {
        let line = |(index, engine): (usize, &&rustlite_ycsb::adapters::Engine)| {
            let point = |(experiment, threads): &(&str, f64)| {
                let sample = typical(measured, experiment, engine.name)?;
                Some((*threads, Metric::Throughput.of(sample)?))
            };
            let points: Vec<(f64, f64)> = experiments.iter().filter_map(point).collect();
            (points.len() > 1).then_some(Line { engine: index, points })
        };
        let lines = measured.settings.engines.iter().enumerate().filter_map(line).collect();
        let content = Content::Lines { lines, is_logarithmic: false };
        Panel { title: (*title).to_owned(), content }
    });
    panels.filter(has_content).collect()
}

fn timelines(measured: &Measured) -> Vec<Panel> {
    let writing = EXPERIMENTS.iter().filter(|experiment| experiment.work.writes());
    let panels = writing.map(|experiment| {
        let rates = of_engines(measured, experiment.name, |sample| {
            let timeline = &sample.outcome.timeline;
            let seconds = timeline.interval_ms as f64 / 1000.0;
            // The last interval is mostly cut short.
            let whole = timeline.operations.len().saturating_sub(1);
            let points = timeline.operations.iter().take(whole).enumerate();
            let point =
                |(index, count): (usize, &u64)| (index as f64 * seconds, *count as f64 / seconds);
            let points: Vec<(f64, f64)> = points.map(point).collect();
            (points.len() > 1).then_some(points)
        });
        let line = |(engine, points)| Line { engine, points };
        let lines = rates.into_iter().map(line).collect();
        let title = format!("{}: operations a second over seconds", experiment.title);
        Panel { title, content: Content::Lines { lines, is_logarithmic: false } }
    });
    panels.filter(has_content).collect()
}

fn has_content(panel: &Panel) -> bool {
    match &panel.content {
        Content::Bars(values) => !values.is_empty(),
        Content::Lines { lines, .. } => !lines.is_empty(),
    }
}
