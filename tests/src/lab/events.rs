//! What `each` tells `ordinary` about its tests: a line of JSON for each that begins or ends, in a
//! file that outlives the machine.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::{Case, Outcome, Tally};

/// Notes that a test begins.
pub(super) fn begins(path: &Path, name: &str) -> io::Result<()> {
    append(path, &json!({ "begins": name }))
}

/// Notes how a test ended.
pub(super) fn ends(path: &Path, case: &Case) -> io::Result<()> {
    let (what, said) = match &case.outcome {
        Outcome::Passed => ("passed", ""),
        Outcome::Failed(said) => ("failed", said.as_str()),
        Outcome::Skipped(reason) => ("skipped", reason.as_str()),
    };
    let ms = case.took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    append(path, &json!({ "ends": case.name, "what": what, "said": said, "ms": ms }))
}

fn append(path: &Path, event: &Value) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{event}\n").as_bytes())
}

/// What a machine has done.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// How many tests have begun in it.
    pub(super) begun: usize,
    /// Those that have ended.
    pub(super) ended: Tally,
}

impl Events {
    /// Reads the file; a line that is cut off is as if it were not there.
    pub(super) fn read(path: &Path) -> Self {
        let mut events = Self::default();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            events.begun += usize::from(event["begins"].is_string());
            let Some(name) = event["ends"].as_str() else { continue };
            let said = event["said"].as_str().unwrap_or_default().to_owned();
            let outcome = match event["what"].as_str() {
                Some("passed") => Outcome::Passed,
                Some("skipped") => Outcome::Skipped(said),
                _ => Outcome::Failed(said),
            };
            events.ended.add(name, outcome, event["ms"].as_u64().map(Duration::from_millis));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_also_if_the_machine_ended_in_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let outcomes = [
            Outcome::Passed,
            Outcome::Failed("left: \"1\"\nright: 2".to_owned()),
            Outcome::Skipped("no vsock".to_owned()),
        ];
        let mut tally = Tally::default();
        for (name, outcome) in ["a", "b", "c"].into_iter().zip(outcomes) {
            tally.add(name, outcome, Some(Duration::from_millis(1500)));
            begins(&path, name).unwrap();
            ends(&path, tally.cases.last().unwrap()).unwrap();
        }
        begins(&path, "d").unwrap();
        let cut = std::fs::read_to_string(&path).unwrap() + "{\"ends\":\"d\",\"what";
        std::fs::write(&path, cut).unwrap();
        let events = Events::read(&path);
        assert_eq!((events.begun, events.ended), (4, tally));
    }
}
