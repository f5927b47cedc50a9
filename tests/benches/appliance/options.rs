//! What the command line asks for.

use std::time::Duration;

const USAGE: &str = "usage: bench.sh [--json] [--quick] [--pairs N] [--seconds S] [--only NAME,...]
  names: decision, exec, memory, disk, net, path, scale";

/// The names of the measurements.
const NAMES: [&str; 7] = ["decision", "exec", "memory", "disk", "net", "path", "scale"];

/// How much to measure, and how to say it.
#[derive(Debug)]
pub(crate) struct Options {
    /// Print one JSON object instead of a table.
    pub(crate) json: bool,
    /// Pairs of runs for each comparison.
    pub(crate) pairs: usize,
    /// Length of one run.
    pub(crate) run: Duration,
    /// Starts of a VM for each side.
    pub(crate) starts: usize,
    only: Vec<String>,
}

impl Options {
    /// Reads the words; `--bench` comes from cargo.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let second = Duration::from_secs(1);
        let mut options =
            Self { json: false, pairs: 5, run: second * 4, starts: 20, only: Vec::new() };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word}: no value\n{USAGE}"));
            match word.as_str() {
                "--bench" => {}
                "--json" => options.json = true,
                "--quick" => (options.pairs, options.run, options.starts) = (2, second, 5),
                "--pairs" => options.pairs = number(&value()?)?,
                "--seconds" => options.run = second * u32::try_from(number(&value()?)?).unwrap(),
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                _ => return Err(USAGE.to_owned()),
            }
        }
        match options.only.iter().find(|name| !NAMES.contains(&name.as_str())) {
            Some(name) => Err(format!("there is no measurement {name:?}\n{USAGE}")),
            None => Ok(options),
        }
    }

    /// Whether this measurement was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }
}

fn number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1000).contains(number));
    number.ok_or_else(|| format!("{text:?} is no number from 1 to 1000\n{USAGE}"))
}
