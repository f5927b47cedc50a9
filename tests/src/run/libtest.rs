//! Reads what Rust's test programs print, one or several after the other (`cargo test`).
//!
//! A test that cannot run here says `NOT TESTED HERE: reason` and returns, which its program takes
//! for a pass. Here it counts as skipped. `--show-output` makes programs print what passing tests
//! say.

use super::{Outcome, Tally};

/// What a test says that cannot run here.
pub const MARK: &str = "NOT TESTED HERE";

/// Reads line by line.
#[derive(Debug, Default)]
pub struct Reader {
    tally: Tally,
    /// The program whose lines are read: its tests so far, with what they said.
    tests: Vec<(String, Outcome)>,
    /// The test whose output is read.
    speaker: Option<String>,
}

impl Reader {
    /// Reads a line.
    pub fn line(&mut self, line: &str) {
        if let Some(name) = speaker(line) {
            self.speaker = Some(name.to_owned());
        } else if let Some(result) = self.own_result(line) {
            self.result(result);
        } else if self.speaker.is_none()
            && let Some((name, outcome)) = test(line)
        {
            self.tests.push((name.to_owned(), outcome));
        } else {
            self.said(line);
        }
    }

    /// The program's result. A test may show what other programs have printed, and some print less.
    fn own_result<'a>(&self, line: &'a str) -> Option<&'a str> {
        let result = line.strip_prefix("test result: ")?;
        (self.speaker.is_none() || result.contains(" measured; ")).then_some(result)
    }

    /// What was read of all programs. The tests of a program without a result are in it as they
    /// were.
    #[must_use]
    pub fn finish(mut self) -> Tally {
        self.close();
        self.tally
    }

    /// A line that belongs to the output of a test.
    fn said(&mut self, line: &str) {
        let Some(speaker) = &self.speaker else { return };
        let Some((_, outcome)) = self.tests.iter_mut().find(|(name, _)| name == speaker) else {
            // Something wrote into the line that should have had its result.
            let known = mark(line).map(|reason| (speaker.clone(), Outcome::Skipped(reason)));
            self.tests.extend(known);
            return;
        };
        match outcome {
            Outcome::Failed(said) => {
                if !line.is_empty() {
                    said.push_str(line);
                    said.push('\n');
                }
            }
            Outcome::Passed => {
                if let Some(reason) = mark(line) {
                    *outcome = Outcome::Skipped(reason);
                }
            }
            Outcome::Skipped(_) => {}
        }
    }

    /// The numbers of a program decide; the names say whose they are, as far as they are known.
    fn result(&mut self, line: &str) {
        let number = |what| number(line, what);
        let passed = number(" passed") + number(" ignored") + number(" measured");
        let failed = number(" failed");
        let known = |failed| {
            move |(_, outcome): &&(String, Outcome)| matches!(outcome, Outcome::Failed(_)) == failed
        };
        let known_passed = self.tests.iter().filter(known(false)).count();
        let known_failed = self.tests.iter().filter(known(true)).count();
        self.tally.unnamed += passed.saturating_sub(known_passed);
        for _ in known_failed..failed {
            self.tally.add("a test", Outcome::Failed("its name is in the log".to_owned()), None);
        }
        self.close();
    }

    fn close(&mut self) {
        self.speaker = None;
        for (name, outcome) in self.tests.drain(..) {
            self.tally.add(&name, outcome, None);
        }
    }
}

/// `---- NAME stdout ----`
fn speaker(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// `test NAME ... ok`
fn test(line: &str) -> Option<(&str, Outcome)> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match result.split_once(", ").unwrap_or((result, "")) {
        ("ok", "") => Outcome::Passed,
        ("FAILED", "") => Outcome::Failed(String::new()),
        ("ignored", "") => Outcome::Skipped("ignored".to_owned()),
        ("ignored", reason) => Outcome::Skipped(reason.to_owned()),
        _ => return None,
    };
    // A test that has to panic says so after its name.
    Some((name.strip_suffix(" - should panic").unwrap_or(name), outcome))
}

/// The reason of a test that cannot run here.
#[must_use]
pub fn mark(line: &str) -> Option<String> {
    let (_, reason) = line.split_once(MARK)?;
    Some(reason.trim_start_matches(':').trim().to_owned())
}

/// The number in front of a word in `ok. 3 passed; 0 failed; ...`.
fn number(result: &str, word: &str) -> usize {
    let mut parts = result.split([';', '.']);
    let found =
        parts.find_map(|part| part.trim().strip_suffix(word.trim_start())?.trim().parse().ok());
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Tally {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.finish()
    }

    const PROGRAM: &str = "
running 5 tests
test a::passes ... ok
test a::cannot ... ok
test a::panics - should panic ... ok
test b::waits ... ignored, takes an hour
test b::fails ... FAILED

successes:

---- a::cannot stdout ----
NOT TESTED HERE: no loop device

successes:
    a::cannot
    a::passes

failures:

---- b::fails stdout ----

thread 'b::fails' panicked at x.rs:1:1:
left: 1

failures:
    b::fails

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s
";

    #[test]
    fn a_test_that_says_that_it_cannot_run_here_is_skipped_and_not_passed() {
        let tally = read(PROGRAM);
        assert_eq!(tally.counts().to_string(), "2 passed, 1 failed, 2 skipped");
        let summary = tally.summary();
        assert!(summary.contains("skipped a::cannot: no loop device\n"), "{summary}");
        assert!(summary.contains("skipped b::waits: takes an hour\n"), "{summary}");
        assert!(summary.contains("FAILED b::fails: thread 'b::fails' panicked"), "{summary}");
    }

    #[test]
    fn programs_one_after_the_other_are_added_and_their_equal_names_kept_apart() {
        let tally = read(&format!("{PROGRAM}{PROGRAM}"));
        assert_eq!(tally.counts().to_string(), "4 passed, 2 failed, 4 skipped");
    }

    #[test]
    fn a_result_that_others_have_written_into_counts_all_the_same() {
        let text = "test a ... noise of a child\nok\ntest b ... ok\ntest c ... noiseFAILED\n\
                    ---- a stdout ----\nNOT TESTED HERE: no a\n\
                    test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        let tally = read(text);
        assert_eq!(tally.counts().to_string(), "1 passed, 1 failed, 1 skipped");
        assert!(tally.summary().contains("skipped a: no a\n"), "{}", tally.summary());
    }

    #[test]
    fn a_program_that_was_ended_keeps_what_it_had() {
        let tally = read("running 3 tests\ntest a ... ok\ntest b ... ");
        assert_eq!(tally.counts().to_string(), "1 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn what_a_test_shows_of_other_programs_is_nobodys_result() {
        let shown = PROGRAM.replace(
            "NOT TESTED HERE: no loop device",
            "test c::inside ... FAILED\ntest result: FAILED. 0 passed; 1 failed",
        );
        let counts = read(&shown).counts();
        assert_eq!(counts.to_string(), "3 passed, 1 failed, 1 skipped");
    }
}
