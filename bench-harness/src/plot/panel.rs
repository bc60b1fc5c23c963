//! One panel: bars or lines, an engine in the same colour everywhere.

use plotters::coord::Shift;
use plotters::prelude::*;

/// The area that a panel is drawn on.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What drawing gives.
type Drawn = Result<(), Box<dyn std::error::Error>>;

const TITLE: (&str, u32) = ("sans-serif", 13);
const LABEL: (&str, u32) = ("sans-serif", 10);

/// The smallest value of a logarithmic axis.
const LOGARITHMIC_MIN: f64 = 0.1;

/// A line of one engine.
pub(super) struct Line {
    pub(super) engine: usize,
    pub(super) points: Vec<(f64, f64)>,
}

/// RustLite, the first engine, stands out; the others have colours of their own.
fn color(engine: usize) -> RGBColor {
    const COLORS: [RGBColor; 10] = [
        RGBColor(200, 30, 30),
        RGBColor(31, 119, 180),
        RGBColor(44, 160, 44),
        RGBColor(255, 127, 14),
        RGBColor(148, 103, 189),
        RGBColor(140, 86, 75),
        RGBColor(227, 119, 194),
        RGBColor(100, 100, 100),
        RGBColor(188, 189, 34),
        RGBColor(23, 190, 207),
    ];
    COLORS[engine % COLORS.len()]
}

/// A number on an axis or beside a bar.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e3 => format!("{:.0}K", value / 1e3),
        value if value >= 10.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

/// A bar for each engine, with its name and its number.
pub(super) fn bars(
    area: &Area<'_>,
    title: &str,
    values: &[(usize, f64)],
    engines: &[&str],
) -> Drawn {
    let largest = values.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let count = values.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(8)
        .build_cartesian_2d(0.0..1.6 * largest, 0.0..count)?;
    for (position, (engine, value)) in values.iter().enumerate() {
        let top = count - position as f64;
        let bar = [(0.0, top - 0.85), (*value, top - 0.15)];
        chart.draw_series([Rectangle::new(bar, color(*engine).filled())])?;
        let name = engines.get(*engine).copied().unwrap_or_default();
        let text = format!("{name} {}", short(*value));
        chart.draw_series([Text::new(text, (value + 0.02 * largest, top - 0.3), LABEL)])?;
    }
    Ok(())
}

/// A line for each engine, with a legend.
pub(super) fn lines(
    area: &Area<'_>,
    title: &str,
    lines: &[Line],
    engines: &[&str],
    is_logarithmic: bool,
) -> Drawn {
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max);
    let top = points().map(|point| point.1).fold(LOGARITHMIC_MIN, f64::max) * 1.1;
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, TITLE).margin(8).x_label_area_size(18).y_label_area_size(38);
    // The two kinds of axis are two types of chart; what is drawn on them is the same.
    macro_rules! draw {
        ($chart:expr) => {{
            let mut chart = $chart;
            chart
                .configure_mesh()
                .label_style(LABEL)
                .light_line_style(WHITE)
                .x_labels(6)
                .y_labels(6)
                .y_label_formatter(&|value| short(*value))
                .draw()?;
            for line in lines {
                let style = color(line.engine).stroke_width(if line.engine == 0 { 2 } else { 1 });
                let name = engines.get(line.engine).copied().unwrap_or_default();
                let points = line.points.iter().map(|(x, y)| (*x, y.max(0.0)));
                chart
                    .draw_series(LineSeries::new(points, style))?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], style));
            }
            chart
                .configure_series_labels()
                .label_font(LABEL)
                .background_style(WHITE.mix(0.7))
                .position(SeriesLabelPosition::UpperLeft)
                .draw()?;
        }};
    }
    if is_logarithmic {
        draw!(builder.build_cartesian_2d(0.0..right, (LOGARITHMIC_MIN..top).log_scale())?);
    } else {
        draw!(builder.build_cartesian_2d(0.0..right, 0.0..top)?);
    }
    Ok(())
}
