//! Demand against supply as a picture: one chart below the other, as one SVG.

use std::fmt::Write;

use moirai_config::admission::Chart;
use moirai_simulator::gantt::demand_chart;

/// Size of one chart as the simulator draws it, and room for its title.
const CHART_WIDTH: usize = 1150;
const CHART_HEIGHT: usize = 414;
const TITLE_HEIGHT: usize = 30;

pub(super) fn draw(charts: &[Chart]) -> String {
    let step = CHART_HEIGHT + TITLE_HEIGHT;
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {CHART_WIDTH} {}\" \
         font-family=\"sans-serif\" font-size=\"14\">",
        step * charts.len().max(1)
    );
    for (index, Chart { title, curve }) in charts.iter().enumerate() {
        let (top, chart) = (index * step, demand_chart(curve));
        let _ = write!(
            svg,
            "<text x=\"10\" y=\"{}\">{title}</text>\n\
             <svg y=\"{}\" width=\"{CHART_WIDTH}\" height=\"{CHART_HEIGHT}\">\n{chart}</svg>\n",
            top + 20,
            top + TITLE_HEIGHT
        );
    }
    svg.push_str("</svg>\n");
    svg
}
