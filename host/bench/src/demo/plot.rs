//! The picture: how late each packet was, over the time of the run, with and without scheduling.

use moirai_scheduler::Moment;
use std::path::Path;

use plotters::prelude::{
    ChartBuilder, Circle, Color, IntoDrawingArea, IntoLogRange, RGBColor, SVGBackend, WHITE,
};

use super::DemoError;
use crate::recorder::analysis::{LATE, Lateness};

/// Points in one picture; more would only make the file large. The latest packet of each group is
/// drawn, so that no peak is lost.
const POINTS: usize = 4_000;
const KEPT: RGBColor = RGBColor(0x1b, 0x7f, 0x4d);
const RUINED: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const LIMIT: RGBColor = RGBColor(0x55, 0x55, 0x55);

/// Draws both runs into one SVG.
pub(super) fn draw(
    path: &Path,
    with: &[Vec<Lateness>],
    without: &[Vec<Lateness>],
) -> Result<(), DemoError> {
    let failed = |error: String| DemoError::Plot { path: path.to_owned(), error };
    let area = SVGBackend::new(path, (1000, 520)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
    let end = with.iter().chain(without).filter_map(|line| seconds(line).last().copied());
    let end = end.map(|(at, _)| at).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption("Film packets: time behind the RTP clock", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, (0.01f64..2_000.0).log_scale())
        .map_err(|error| failed(error.to_string()))?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("milliseconds late")
        .draw()
        .map_err(|error| failed(error.to_string()))?;
    for (lines, colour, label) in
        [(without, RUINED, "without scheduling"), (with, KEPT, "with scheduling")]
    {
        let points = lines.iter().flat_map(|line| thin(&seconds(line)));
        chart
            .draw_series(points.map(|point| Circle::new(point, 1, colour.filled())))
            .map_err(|error| failed(error.to_string()))?
            .label(label)
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    #[allow(clippy::cast_precision_loss, reason = "display only")]
    let limit = LATE.as_nanos() as f64 / 1e6;
    chart
        .draw_series(plotters::prelude::LineSeries::new([(0.0, limit), (end, limit)], LIMIT))
        .map_err(|error| failed(error.to_string()))?
        .label("late")
        .legend(move |(x, y)| Circle::new((x + 8, y), 2, LIMIT.filled()));
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(LIMIT)
        .draw()
        .map_err(|error| failed(error.to_string()))?;
    area.present().map_err(|error| failed(error.to_string()))
}

/// Seconds since the first packet and milliseconds late, for each packet.
#[allow(clippy::cast_precision_loss, reason = "display only")]
fn seconds(line: &[Lateness]) -> Vec<(f64, f64)> {
    let start = line.first().map_or(Moment::ZERO, |packet| packet.due);
    let point = |packet: &Lateness| {
        let at = packet.due.since(start).as_nanos() as f64 / 1e9;
        (at, (packet.late.as_nanos() as f64 / 1e6).max(0.01))
    };
    line.iter().map(point).collect()
}

/// At most `POINTS` points: of each group of neighbours the latest.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS).max(1);
    let latest = |group: &[(f64, f64)]| group.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(group).filter_map(latest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use moirai_scheduler::Span;

    #[test]
    fn the_picture_keeps_every_peak_and_stays_small() {
        let mut line: Vec<_> = (0..50_000)
            .map(|n| Lateness { due: Moment::from_nanos(n), late: Span::from_millis(1) })
            .collect();
        line[33_333].late = Span::from_millis(90);
        let thinned = thin(&seconds(&line));
        assert!(thinned.len() <= POINTS);
        assert!(thinned.iter().any(|point| (point.1 - 90.0).abs() < 1e-9));
    }

    #[test]
    fn a_picture_is_drawn_even_if_nothing_arrived() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrivals.svg");
        let line = vec![Lateness { due: Moment::from_nanos(1), late: Span::from_millis(2) }];
        draw(&path, &[line], &[]).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        assert!(svg.contains("milliseconds late") && svg.contains("without scheduling"));
    }
}
