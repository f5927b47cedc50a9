//! The tests of `tests/lab/main.rs`, one after the other in one machine - or in several: see
//! `restart`.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::args::Tests;
use super::events::Events;
use super::machine::{self, End, Input};
use super::place::{Log, Place, quoted};
use super::programs;
use super::restart::{Decision, Plan};
use crate::run::{Outcome, Tally};

/// Runs the tests that were asked for.
pub(super) fn run(
    place: &Place,
    tests: &Tests,
    limit: Duration,
    log: &mut Log,
) -> io::Result<Tally> {
    let program = programs::build("lab")?;
    let name = tests.name.as_deref().unwrap_or_default();
    let (chosen, left_out) = choose(list(&program)?, name, &tests.skip);
    if chosen.is_empty() {
        let program = program.display();
        let error = format!("no test has {name:?} in its name; `{program} --list` names them all");
        return Err(io::Error::other(error));
    }
    let mut tally = Tally::default();
    for name in left_out {
        let reason = format!("left out by LAB_SKIP; run by `make lab TEST={name}`");
        tally.add(&name, Outcome::Skipped(reason), None);
    }
    let debian = chosen.iter().any(|name| name.starts_with("debian::"));
    // A copy for each test that boots it.
    let disks = if debian { vec![programs::debian(place)?; 2] } else { Vec::new() };
    let of = chosen.len();
    let mut plan = Plan::new(chosen);
    all(&mut plan, &mut tally, |left, tell| {
        if !tell.is_empty() {
            writeln!(log, "{tell}")?;
        }
        let events = place.run.join("events");
        let _ = std::fs::remove_file(&events);
        let command = command(place, tests.limit, of, &program, left)?;
        let copy = |mut pipe| io::copy(&mut pipe, log);
        let (end, copied) = machine::boot(place, &command, &disks, limit, Input::Nothing, copy)?;
        copied?;
        Ok((end, Events::read(&events)))
    })?;
    Ok(tally)
}

/// All tests of the program.
fn list(program: &Path) -> io::Result<Vec<String>> {
    let output = Command::new(program).args(["--list", "--format", "terse"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Those with `name` in their names; of them, those that have a word of `skip` in theirs are left
/// out.
fn choose(all: Vec<String>, name: &str, skip: &str) -> (Vec<String>, Vec<String>) {
    let words: Vec<_> = skip.split_whitespace().collect();
    let asked = all.into_iter().filter(|test| test.contains(name));
    asked.partition(|test| !words.iter().any(|word| test.contains(word)))
}

/// What the machine is to do.
fn command(
    place: &Place,
    limit: u64,
    of: usize,
    program: &Path,
    left: &[String],
) -> io::Result<String> {
    let word = |path: &Path| quoted(&path.to_string_lossy());
    // A copy, because cargo may have replaced ours when it built the test program.
    let ours = place.run.join("lab");
    std::fs::copy("/proc/self/exe", &ours)?;
    let (ours, events) = (word(&ours), word(&place.run.join("events")));
    let (environment, warm, after) = (place.environment(), place.warm(), of - left.len());
    let (program, tests) = (word(program), left.join(" "));
    Ok(format!(
        "{environment}{warm}exec {ours} each --clear /var/tmp --events {events} --limit {limit} \
         --of {of} --after {after} -- {program} {tests}"
    ))
}

/// Runs machines until all tests have an end. `boot` gets the tests that are left and what to tell
/// first.
fn all(
    plan: &mut Plan,
    tally: &mut Tally,
    mut boot: impl FnMut(&[String], &str) -> io::Result<(End, Events)>,
) -> io::Result<()> {
    let mut tell = String::new();
    while !plan.left().is_empty() {
        let (end, events) = boot(plan.left(), &std::mem::take(&mut tell))?;
        let ended = events.ended.cases.len();
        tally.cases.extend(events.ended.cases);
        let (reason, stood_still) = match end {
            End::Command(0 | 101) if ended == plan.left().len() => {
                plan.done();
                continue;
            }
            End::Command(status) => {
                (format!("the machine's command ended with status {status}"), false)
            }
            End::Early { reason, stood_still } => (reason, stood_still),
        };
        match plan.machine_ended(events.begun, ended, stood_still) {
            Decision::OnceMore(test) => {
                tell = format!(
                    "{reason}\n... THE MACHINE STOOD STILL AT {test}; once more in a new one"
                );
            }
            Decision::Failed(test) => {
                tell = format!("{reason}\n... {test} FAILED with its machine");
                tally.add(&test, Outcome::Failed(reason), None);
            }
            Decision::GiveUp => return Err(io::Error::other(reason)),
            Decision::Done => plan.done(),
        }
    }
    if !tell.is_empty() {
        println!("{tell}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_name_chooses_tests_and_words_leave_some_of_them_out() {
        let all = names(&["boot::pvh_pci", "boot::pvh_mmio", "disk::fio", "debian::logs_in"]);
        let (chosen, left_out) = choose(all.clone(), "", "pvh_pci\n    debian::");
        assert_eq!(chosen, ["boot::pvh_mmio", "disk::fio"]);
        assert_eq!(left_out, ["boot::pvh_pci", "debian::logs_in"]);
        assert_eq!(choose(all.clone(), "pvh", "pci").0, ["boot::pvh_mmio"]);
        assert_eq!(choose(all.clone(), "", "").0, all);
        assert!(choose(all, "no such", "").0.is_empty());
    }

    /// A machine that does so many tests, begins another one, and ends.
    fn machine(left: &[String], does: usize, end: End) -> (End, Events) {
        let mut events = Events { begun: (does + 1).min(left.len()), ..Events::default() };
        for name in &left[..does] {
            events.ended.add(name, Outcome::Passed, None);
        }
        (end, events)
    }

    fn early(stood_still: bool) -> End {
        End::Early { reason: "it ended".to_owned(), stood_still }
    }

    #[test]
    fn machines_follow_each_other_until_every_test_has_one_end() {
        let mut plan = Plan::new(names(&["a", "b", "c", "d", "e"]));
        let (mut tally, mut number, mut told) = (Tally::default(), 0, String::new());
        all(&mut plan, &mut tally, |left, tell| {
            number += 1;
            told.push_str(tell);
            Ok(match number {
                1 => machine(left, 1, early(true)), // with b, which is begun once more
                2 => machine(left, 1, early(false)), // with c
                3 => machine(left, 0, early(true)), // with d
                4 => machine(left, 0, early(true)), // with d again
                _ => machine(left, 1, End::Command(0)),
            })
        })
        .unwrap();
        let ends: Vec<_> = tally.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(ends, ["a", "b", "c", "d", "e"]);
        assert_eq!(tally.counts().to_string(), "3 passed, 2 failed, 0 skipped");
        assert!(told.contains("THE MACHINE STOOD STILL AT b; once more"), "{told}");
        assert_eq!(number, 5);
    }

    #[test]
    fn a_command_that_leaves_tests_out_does_not_pass_them() {
        let mut plan = Plan::new(names(&["a", "b"]));
        let mut tally = Tally::default();
        let mut number = 0;
        all(&mut plan, &mut tally, |left, _| {
            number += 1;
            let does = usize::from(number == 1);
            Ok(machine(left, does, End::Command(0)))
        })
        .unwrap();
        assert_eq!(tally.counts().to_string(), "1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_machine_that_does_not_get_to_its_tests_is_an_error() {
        let mut plan = Plan::new(names(&["a"]));
        let boot = |_: &[String], _: &str| Ok((early(false), Events::default()));
        assert_eq!(
            all(&mut plan, &mut Tally::default(), boot).unwrap_err().to_string(),
            "it ended"
        );
    }
}
