//! What was measured, as a table for people or as one JSON object.
#![allow(clippy::print_stdout, reason = "the report is this program's output")]

use serde_json::{Map, Value, json};

use crate::pair::{Pairs, median, quantile, spread};

/// What a figure should reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Moirai's own figure is at most this.
    AtMost(f64),
    /// Moirai reaches at least this share of the peer.
    Share(f64),
    /// Moirai's own figure is at most this many times the peer's.
    AtMostTimes(f64),
    /// Only reported.
    None,
}

/// One comparison, or one figure of Moirai alone.
#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    peer: &'static str,
    pairs: Pairs,
    goal: Goal,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    notes: Vec<String>,
    facts: Map<String, Value>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { figures: Vec::new(), notes: Vec::new(), facts: Map::new() }
    }

    /// Adds a comparison with `peer`.
    pub(crate) fn compare(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        peer: &'static str,
        pairs: Pairs,
        goal: Goal,
    ) {
        self.figures.push(Figure { name: name.into(), unit, peer, pairs, goal });
    }

    /// Adds figures of Moirai alone.
    pub(crate) fn figure(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        values: Vec<f64>,
        goal: Goal,
    ) {
        self.compare(name, unit, "", Pairs::alone(values), goal);
    }

    /// Adds a sentence below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds something that only the JSON output has.
    pub(crate) fn fact(&mut self, name: &str, value: Value) {
        self.facts.insert(name.to_owned(), value);
    }

    /// Prints everything.
    pub(crate) fn print(&self, as_json: bool) {
        if as_json {
            let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
            println!("{}", json!({"figures": figures, "notes": self.notes, "facts": self.facts}));
            return;
        }
        let head = ["", "Moirai", "peer", "", "ratio", "lowest..highest", "noise", "goal"];
        let rows = self.figures.iter().map(Figure::row);
        let rows: Vec<[String; 8]> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
        for row in &rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
                line += &match column {
                    0 | 3 => format!("{cell:<width$}  "),
                    _ => format!("{cell:>width$}  "),
                };
            }
            println!("{}", line.trim_end());
        }
        println!();
        for note in &self.notes {
            println!("{note}");
        }
    }
}

impl Figure {
    /// Whether the goal was reached; `None` if there is none.
    fn reached(&self) -> Option<bool> {
        match self.goal {
            Goal::AtMost(limit) => Some(median(&self.pairs.ours) <= limit),
            Goal::Share(share) => Some(median(&self.pairs.ratios()) >= share),
            Goal::AtMostTimes(times) => Some(median(&self.pairs.ratios()) <= times),
            Goal::None => None,
        }
    }

    /// How far runs of the same thing lie apart: the worse of the two sides.
    fn noise(&self) -> f64 {
        let theirs = if self.pairs.theirs.is_empty() { 0.0 } else { spread(&self.pairs.theirs) };
        spread(&self.pairs.ours).max(theirs)
    }

    fn row(&self) -> [String; 8] {
        let Self { name, unit, peer, pairs, goal } = self;
        let verdict = match self.reached() {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        let goal = match goal {
            Goal::AtMost(limit) => format!("<= {} {unit}, {verdict}", short(*limit)),
            Goal::Share(share) => format!(">= {share:.2}, {verdict}"),
            Goal::AtMostTimes(times) => format!("<= {times:.2}, {verdict}"),
            Goal::None => String::new(),
        };
        let ours = format!("{} {unit}", short(median(&pairs.ours)));
        let single = pairs.ours.len() < 2;
        let noise = if single { String::new() } else { format!("{:.1}%", self.noise() * 100.0) };
        let ratios = pairs.ratios();
        if ratios.is_empty() {
            let empty = String::new;
            return [name.clone(), ours, empty(), empty(), empty(), empty(), noise, goal];
        }
        [
            name.clone(),
            ours,
            format!("{} {unit}", short(median(&pairs.theirs))),
            (*peer).to_owned(),
            format!("{:.3}", median(&ratios)),
            format!("{:.3}..{:.3}", quantile(&ratios, 0.0), quantile(&ratios, 1.0)),
            noise,
            goal,
        ]
    }

    fn json(&self) -> Value {
        let goal = match self.goal {
            Goal::AtMost(limit) => json!({"at_most": limit}),
            Goal::Share(share) => json!({"at_least_share_of_peer": share}),
            Goal::AtMostTimes(times) => json!({"at_most_times_peer": times}),
            Goal::None => Value::Null,
        };
        let ratios = self.pairs.ratios();
        json!({
            "name": self.name, "unit": self.unit, "peer": self.peer,
            "ours": self.pairs.ours, "theirs": self.pairs.theirs,
            "median": median(&self.pairs.ours),
            "peer_median": (!ratios.is_empty()).then(|| median(&self.pairs.theirs)),
            "ratio": (!ratios.is_empty()).then(|| median(&ratios)),
            "noise": (self.pairs.ours.len() > 1).then(|| self.noise()),
            "goal": goal, "reached": self.reached(),
        })
    }
}

/// Three or four digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
