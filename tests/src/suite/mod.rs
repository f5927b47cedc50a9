//! `suite`: runs every test there is, one suite after the other, and reports all results.
//!
//! One after the other, because tenants under real-time priorities would disturb each other on two
//! cores. `target/test-logs` keeps what a suite prints; `suite` shows its failures and its
//! progress. The last line is "N passed, M failed, K skipped", and before it stand the skipped
//! tests with their reasons. `MOIRAI_REQUIRE_ROOT` and so on (docs/design/0009-checks.md) name what
//! must run on a machine: there a test that cannot run fails.
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

mod list;
mod show;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::root;
use crate::run::libtest::Reader;
use crate::run::{Ending, Outcome, Tally, bounded, junit};
use list::{SUITES, Suite};
use show::Filter;

/// A suite that cannot run here ends with this status.
const CANNOT: i32 = 77;

/// Runs every test there is
#[derive(Debug, Parser)]
#[command(name = "suite")]
struct Arguments {
    /// Only the suites of these names
    names: Vec<String>,
    /// Writes the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// The program: everything but its name.
#[must_use]
pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("suite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<bool> {
    for name in &arguments.names {
        if !SUITES.iter().any(|suite| suite.name == name) {
            let known: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
            let known = known.join(" ");
            return Err(io::Error::other(format!(
                "there is no suite {name:?}; there are: {known}"
            )));
        }
    }
    let logs = root().join("target/test-logs");
    fs::create_dir_all(&logs)?;
    let mut all = Tally::default();
    for suite in &SUITES {
        if !arguments.names.is_empty() && !arguments.names.iter().any(|name| name == suite.name) {
            continue;
        }
        println!("== {}", suite.name);
        let begin = Instant::now();
        let tally = one(suite, &logs)?;
        println!("== {}: {}, {} s", suite.name, tally.counts(), begin.elapsed().as_secs());
        all.append(suite.name, tally);
    }
    if let Some(path) = &arguments.junit {
        junit::write(path, "moirai", &all)?;
    }
    print!("{}", all.summary());
    Ok(all.success())
}

/// Runs a suite.
fn one(suite: &Suite, logs: &Path) -> io::Result<Tally> {
    let mut command = suite.command();
    command.current_dir(root().join(suite.folder)).stdin(Stdio::null());
    let built = |path| root().join("target").join(path);
    command.env("MOIRAI_TENANT", built("release/moirai-tenant"));
    command.env("MOIRAI_IMAGE", built("release/moirai-image"));
    command.env("MOIRAI_IMAGES", built("images")).env("CARGO_TERM_PROGRESS_WHEN", "never");
    for (key, value) in suite.environment {
        command.env(key, value);
    }
    let log = File::create(logs.join(format!("{}.log", suite.name)))?;
    let limit = Duration::from_secs(suite.limit_s);
    let (ending, read) = bounded::run(&mut command, limit, |pipe| read(pipe, log))?;
    let (text, tally) = read?;
    Ok(judge(suite, ending, &text, tally))
}

/// Reads what a suite prints, and shows and keeps it.
fn read(pipe: io::PipeReader, mut log: File) -> io::Result<(String, Tally)> {
    let (mut pipe, mut reader, mut filter) =
        (BufReader::new(pipe), Reader::default(), Filter::default());
    let (mut line, mut text) = (Vec::new(), String::new());
    while pipe.read_until(b'\n', &mut line)? > 0 {
        log.write_all(&line)?;
        let said = String::from_utf8_lossy(&line);
        let said = said.trim_end_matches(['\n', '\r']);
        reader.line(said);
        if filter.shows(said) {
            println!("{said}");
        }
        text.push_str(said);
        text.push('\n');
        line.clear();
    }
    Ok((text, reader.finish()))
}

/// What became of a suite: what its own summary says, or what Rust's test programs in it said; if
/// there is neither, its end is one test.
fn judge(suite: &Suite, ending: Ending, text: &str, programs: Tally) -> Tally {
    let mut tally = Tally::read(text).unwrap_or(programs);
    let counts = tally.counts();
    let failure = match ending {
        Ending::Exited(status) if status.success() => {
            if counts.passed + counts.failed + counts.skipped == 0 {
                tally.add("all of it", Outcome::Passed, None);
            }
            return tally;
        }
        Ending::Exited(status) if status.code() == Some(CANNOT) => {
            let reason = text.lines().last().unwrap_or_default();
            tally.add("all of it", Outcome::Skipped(reason.to_owned()), None);
            return tally;
        }
        // It says itself who has failed.
        Ending::Exited(_) if counts.failed > 0 => return tally,
        Ending::Exited(status) => format!("it ended with {status}; see target/test-logs"),
        Ending::Stopped => format!("it did not end within {} s", suite.limit_s),
    };
    tally.add("all of it", Outcome::Failed(failure), None);
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A suite that is a shell script.
    fn suite(script: &'static str, limit_s: u64) -> Tally {
        let words: &'static [&'static str] = Box::leak(Box::new(["sh", "-c", script]));
        let suite = Suite { environment: &[("A", "b")], ..list::suite("fake", limit_s, words) };
        let logs = tempfile::tempdir().unwrap();
        one(&suite, logs.path()).unwrap()
    }

    fn counts(script: &'static str) -> String {
        suite(script, 60).counts().to_string()
    }

    #[test]
    fn a_suite_without_tests_that_are_told_is_one_test() {
        assert_eq!(counts(r#"[ "$A" = b ]"#), "1 passed, 0 failed, 0 skipped");
        assert_eq!(counts("exit 3"), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_suite_with_test_programs_has_their_tests() {
        let passed = "echo 'test a ... ok'; echo 'test result: ok. 1 passed; 0 failed'";
        assert_eq!(counts(passed), "1 passed, 0 failed, 0 skipped");
        let ended = "echo 'test a ... ok'; echo 'test result: ok. 1 passed; 0 failed'; exit 101";
        assert_eq!(counts(ended), "1 passed, 1 failed, 0 skipped", "another program did not build");
        let failed =
            "echo 'test a ... FAILED'; echo 'test result: FAILED. 0 passed; 1 failed'; exit 101";
        assert_eq!(counts(failed), "0 passed, 1 failed, 0 skipped", "and is not counted twice");
    }

    #[test]
    fn a_suite_with_a_summary_has_the_names_that_are_in_it() {
        let script = "echo 'skipped a: no disk'; echo 'FAILED b: left'; \
                      echo '3 passed, 1 failed, 1 skipped'; false";
        let tally = suite(script, 60);
        assert_eq!(tally.counts().to_string(), "3 passed, 1 failed, 1 skipped");
        assert!(tally.summary().starts_with("skipped a: no disk\nFAILED b: left\n"), "{tally:?}");
    }

    #[test]
    fn a_suite_that_cannot_run_here_is_skipped_with_its_reason() {
        let tally = suite("echo 'SKIPPED: no QEMU' >&2; exit 77", 60);
        assert_eq!(
            tally.summary(),
            "skipped all of it: SKIPPED: no QEMU\n0 passed, 0 failed, 1 skipped\n"
        );
    }

    #[test]
    fn a_suite_at_its_time_limit_has_failed_and_what_it_had_counts() {
        let script = "echo 'test a ... ok'; echo 'test result: ok. 1 passed; 0 failed'; sleep 600";
        let tally = suite(script, 1);
        assert_eq!(tally.counts().to_string(), "1 passed, 1 failed, 0 skipped");
        assert!(tally.summary().contains("FAILED all of it: it did not end within 1 s\n"));
    }
}
