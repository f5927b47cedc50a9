//! The result as pictures: who was served when, and demand against supply.

use std::fmt::Write as _;

use moirai_scheduler::admission::demand::Point;
use moirai_scheduler::{Amount, Moment, Span};

use crate::report::{Report, Segment};

const WIDTH: u64 = 1000;
/// Room for the half of the last label that stands beyond the axis.
const RIGHT: u64 = 40;
const LEFT: u64 = 130;
const ROW: u64 = 26;
/// Solid: owed. Pale: slack.
const COLOURS: [&str; 6] = ["#3465a4", "#cc0000", "#4e9a06", "#75507b", "#c17d11", "#06989a"];

/// Text for an element of an SVG.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where in tenths of a pixel `part` of the `whole` lies on an axis.
fn scaled(part: u64, whole: u64, width: u64) -> u64 {
    let x = u128::from(part) * u128::from(width) * 10 / u128::from(whole.max(1));
    u64::try_from(x).unwrap_or(u64::MAX)
}

/// Tenths of a pixel as a coordinate.
fn pixel(tenths: u64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn open(svg: &mut String, height: u64) {
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
        LEFT + WIDTH + RIGHT
    );
}

/// An axis in milliseconds (or microseconds, for less than two of them) below row `y`.
fn axis(svg: &mut String, y: u64, from: Moment, span: Span) {
    let (scale, unit) = if span < Span::from_millis(2) { (1_000, "us") } else { (1_000_000, "ms") };
    for tick in 0..=10u64 {
        let x = LEFT + WIDTH * tick / 10;
        let time = (u128::from(from.as_nanos()) * 10 + span.wide() * u128::from(tick)) / 10;
        let tenths = time * 10 / scale;
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"24\" x2=\"{x}\" y2=\"{y}\" stroke=\"#ddd\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}.{} {unit}</text>",
            y + 16,
            tenths / 10,
            tenths % 10
        );
    }
}

/// A Gantt chart of the segments between `from` and `until`, one row for each tenant and resource.
#[must_use]
pub fn gantt(report: &Report, from: Moment, until: Moment) -> String {
    let inside = |segment: &&Segment| segment.end > from && segment.start < until;
    let segments: Vec<&Segment> = report.segments.iter().filter(inside).collect();
    let mut rows: Vec<(usize, usize)> = segments.iter().map(|s| (s.resource, s.tenant)).collect();
    rows.sort_unstable();
    rows.dedup();
    let height = 30 + ROW * u64::try_from(rows.len()).unwrap_or(0);
    let span = until.since(from);
    let x = |at: Moment| scaled(at.since(from).as_nanos(), span.as_nanos(), WIDTH);
    let mut svg = String::new();
    open(&mut svg, height + 24);
    axis(&mut svg, height, from, span);
    let mut y = 30;
    for (row, &(resource, tenant)) in rows.iter().enumerate() {
        let resource_name = report.resources.get(resource).map_or("", |r| &r.name);
        let tenant_name = report.tenants.get(tenant).map_or("", |t| &t.name);
        let label = escaped(&format!("{tenant_name} ({resource_name})"));
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8,
            y + 16
        );
        let colour = COLOURS[row % COLOURS.len()];
        for segment in segments.iter().filter(|s| (s.resource, s.tenant) == (resource, tenant)) {
            let start = x(segment.start);
            let end = x(segment.end.min(until));
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"{colour}\" \
                 fill-opacity=\"{}\"/>",
                pixel(LEFT * 10 + start),
                pixel((end - start).max(1)),
                ROW - 6,
                if segment.guaranteed { "1" } else { "0.35" }
            );
        }
        y += ROW;
    }
    svg.push_str("</svg>\n");
    svg
}

/// Demand (steps) against supply (line): where the steps rise above the line, a set fails.
#[must_use]
pub fn demand_chart(curve: &[Point]) -> String {
    let until = curve.last().map_or(Span::ONE, |point| point.time);
    let most =
        curve.iter().map(|point| point.demand.max(point.supply)).max().unwrap_or(Amount::ONE);
    let (height, bottom) = (360u64, 390u64);
    let x = |time: Span| LEFT * 10 + scaled(time.as_nanos(), until.as_nanos(), WIDTH);
    let y = |amount: Amount| bottom * 10 - scaled(amount.as_nanos(), most.as_nanos(), height);
    let mut svg = String::new();
    open(&mut svg, bottom + 24);
    axis(&mut svg, bottom, Moment::ZERO, until);
    let mut steps = format!("{},{}", pixel(x(Span::ZERO)), pixel(y(Amount::ZERO)));
    let mut line = steps.clone();
    let mut level = Amount::ZERO;
    for point in curve {
        let at = pixel(x(point.time));
        let _ = write!(steps, " {at},{} {at},{}", pixel(y(level)), pixel(y(point.demand)));
        let _ = write!(line, " {at},{}", pixel(y(point.supply)));
        level = point.demand;
        if point.demand > point.supply {
            let _ = writeln!(
                svg,
                "<circle cx=\"{at}\" cy=\"{}\" r=\"4\" fill=\"#cc0000\"/>",
                pixel(y(point.demand))
            );
        }
    }
    let _ = writeln!(
        svg,
        "<polyline points=\"{line}\" fill=\"none\" stroke=\"#4e9a06\" stroke-width=\"2\"/>\n\
         <polyline points=\"{steps}\" fill=\"none\" stroke=\"#3465a4\" stroke-width=\"2\"/>\n\
         <text x=\"{0}\" y=\"44\" fill=\"#4e9a06\">supply</text>\n\
         <text x=\"{0}\" y=\"60\" fill=\"#3465a4\">demand</text>\n</svg>",
        LEFT + 12
    );
    svg
}
