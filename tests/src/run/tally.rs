//! Passed, failed, skipped. The summary is written for people, and `suite` reads it back from the
//! programs that it started: so the last summary names what any of them has skipped or failed.

use std::fmt::Write as _;
use std::time::Duration;

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed; the text says how, if that is known.
    Failed(String),
    /// It did not run, or not all of it, for this reason.
    Skipped(String),
}

/// A test that was to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// As its program calls it.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took, if that is known.
    pub took: Option<Duration>,
}

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In the order in which they ended.
    pub cases: Vec<Case>,
    /// Passed without being known by name.
    pub unnamed: usize,
}

/// Numbers of a summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Counts {
    /// Reads a line of the form that `Display` writes; nothing may stand beside it.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let mut counts = [0; 3];
        let mut parts = line.trim_end().split(", ");
        for (count, word) in counts.iter_mut().zip([" passed", " failed", " skipped"]) {
            *count = parts.next()?.strip_suffix(word)?.parse().ok()?;
        }
        let [passed, failed, skipped] = counts;
        parts.next().is_none().then_some(Self { passed, failed, skipped })
    }
}

impl Tally {
    /// Adds a test.
    pub fn add(&mut self, name: &str, outcome: Outcome, took: Option<Duration>) {
        self.cases.push(Case { name: name.to_owned(), outcome, took });
    }

    /// Adds what another one has, under a name in front of its names.
    pub fn append(&mut self, prefix: &str, other: Self) {
        self.unnamed += other.unnamed;
        for case in other.cases {
            self.cases.push(Case { name: format!("{prefix}: {}", case.name), ..case });
        }
    }

    /// How many of each kind.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { passed: self.unnamed, ..Counts::default() };
        for case in &self.cases {
            match case.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::Skipped(_) => counts.skipped += 1,
            }
        }
        counts
    }

    /// Whether this is a success: nothing failed, and something ran.
    #[must_use]
    pub fn success(&self) -> bool {
        let counts = self.counts();
        counts.failed == 0 && counts.passed > 0
    }

    /// Who was skipped and who failed, a line each; the last line has the numbers.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for case in &self.cases {
            if let Outcome::Skipped(reason) = &case.outcome {
                let _ = writeln!(text, "skipped {}: {}", case.name, one_line(reason));
            }
        }
        for case in &self.cases {
            if let Outcome::Failed(reason) = &case.outcome {
                let _ = writeln!(text, "FAILED {}: {}", case.name, one_line(reason));
            }
        }
        let _ = writeln!(text, "{}", self.counts());
        text
    }

    /// Reads the summary that ends an output; none if it has no such end.
    #[must_use]
    pub fn read(output: &str) -> Option<Self> {
        let mut lines = output.lines().rev().skip_while(|line| line.is_empty());
        let counts = Counts::read(lines.next()?)?;
        let mut cases = Vec::new();
        for line in lines {
            let (make, rest): (fn(String) -> Outcome, _) =
                if let Some(rest) = line.strip_prefix("skipped ") {
                    (Outcome::Skipped, rest)
                } else if let Some(rest) = line.strip_prefix("FAILED ") {
                    (Outcome::Failed, rest)
                } else {
                    break;
                };
            let (name, reason) = rest.split_once(": ").unwrap_or((rest, ""));
            let (name, outcome) = (name.to_owned(), make(reason.to_owned()));
            cases.push(Case { name, outcome, took: None });
        }
        cases.reverse();
        let tally = Self { cases, unnamed: counts.passed };
        (tally.counts() == counts).then_some(tally)
    }
}

fn one_line(reason: &str) -> String {
    let line =
        reason.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given");
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Tally {
        let mut tally = Tally { unnamed: 2, ..Tally::default() };
        tally.add("a::b", Outcome::Skipped("no loop device: none".to_owned()), None);
        tally.add("c", Outcome::Failed("left: 1\nright: 2".to_owned()), None);
        tally.add("d", Outcome::Passed, Some(Duration::from_secs(1)));
        tally
    }

    #[test]
    fn the_summary_names_who_was_skipped_and_who_failed_and_ends_with_the_numbers() {
        let expected = "skipped a::b: no loop device: none\nFAILED c: left: 1\n\
                        3 passed, 1 failed, 1 skipped\n";
        assert_eq!(example().summary(), expected);
    }

    #[test]
    fn a_summary_is_read_as_it_was_written() {
        let output = format!("noise\nskipped by others\nmore noise\n{}\n", example().summary());
        let read = Tally::read(&output).unwrap();
        assert_eq!(read.counts(), example().counts());
        assert_eq!(read.summary(), example().summary());
        let mut outer = Tally::default();
        outer.append("lab", read);
        assert!(
            outer.summary().starts_with("skipped lab: a::b: no loop device: none\nFAILED lab: c: ")
        );
    }

    #[test]
    fn what_is_no_summary_is_not_read_as_one() {
        let broken = [
            "",
            "ok",
            "3 passed, 1 failed",
            "3 passed, 1 failed, 1 skipped, 0 ignored",
            "3 passed, 1 failed, x skipped",
            "1 failed, 3 passed, 0 skipped",
            // Numbers that the names do not bear out.
            "3 passed, 1 failed, 0 skipped",
        ];
        for output in broken {
            assert_eq!(Tally::read(output), None, "{output:?}");
        }
    }

    #[test]
    fn a_run_in_which_nothing_ran_is_no_success() {
        let mut tally = Tally::default();
        assert!(!tally.success());
        tally.add("a", Outcome::Skipped("left out".to_owned()), None);
        assert!(!tally.success());
        tally.add("b", Outcome::Passed, None);
        assert!(tally.success());
        tally.add("c", Outcome::Failed(String::new()), None);
        assert!(!tally.success());
    }
}
