//! `lab`: Linux tenants need a KVM that runs ring 0. `lab` starts a machine that has one
//! (docs/lab.md), runs tests in it and reports their results.
//!
//! | module | what is in it |
//! | --- | --- |
//! | `args` | the command line |
//! | `place` | where things are; the folder of a run |
//! | `machine` | an emulated machine: its start, its end, and how `lab` sees that it stands still |
//! | `programs` | what is built for a run: test programs, Debian's image |
//! | `ordinary` | the tests of `tests/lab/main.rs`, in one machine, or in several |
//! | `restart` | when `lab` starts another machine |
//! | `each` | runs in the machine: test after test, each with a time limit |
//! | `events` | how `each` tells `ordinary` the results |
//! | `counted` | the machines whose clocks count instructions |
//! | `bench` | the same guests under Moirai and QEMU: medians and ratios |
//! | `terminal` | our terminal, for a shell in the machine |
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

mod args;
mod bench;
mod counted;
mod each;
mod events;
mod machine;
mod ordinary;
mod place;
mod programs;
mod restart;
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::run::{Outcome, Tally, junit};
use args::{Arguments, Job, Tests};
use machine::{End, Input};
use place::Place;

/// The program: everything but its name.
#[must_use]
pub fn main() -> ExitCode {
    match run(std::env::args_os().collect()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: Vec<OsString>) -> io::Result<u8> {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(asked) => asked.exit(),
    };
    let seconds = |default| Duration::from_secs(arguments.machine.timeout.unwrap_or(default));
    let place = |keep| Place::new(keep, arguments.machine.clone());
    match arguments.job {
        Job::Test(tests) => test(&place(tests.keep)?, &tests, seconds(1200)),
        Job::Cmd { command } => shell(&place(false)?, &command, seconds(300)),
        Job::Shell => {
            eprintln!("lab: the machine takes some seconds; `exit` ends it");
            shell(&place(false)?, "exec bash -i", seconds(86_400))
        }
        Job::Debian => programs::debian(&place(false)?).map(|_| 0),
        Job::Bench { rounds, kind } => bench::run(&place(false)?, rounds, kind, seconds(3600)),
        Job::Each(each) => each::run(&each),
    }
}

/// A command in the machine: its output and its status are ours.
fn shell(place: &Place, command: &str, limit: Duration) -> io::Result<u8> {
    let raw = terminal::Raw::begin();
    let copy = |mut pipe| io::copy(&mut pipe, &mut io::stdout().lock());
    let (end, copied) = machine::boot(place, command, &[], limit, Input::Ours(&raw), copy)?;
    drop(raw);
    copied?;
    match end {
        End::Command(status) => Ok(status),
        End::Early { reason, .. } => {
            eprintln!("lab: {reason}");
            Ok(125)
        }
    }
}

/// Runs tests and says what became of them.
fn test(place: &Place, tests: &Tests, limit: Duration) -> io::Result<u8> {
    let name = tests.name.as_deref().unwrap_or_default();
    let mut log = place.log("test.log")?;
    // Only by name: a busy nested guest is so slow under counting that this takes longer than all
    // the rest.
    let counted = name.starts_with("counted");
    let ran = if counted {
        counted::run(place, limit, &mut log)
    } else {
        ordinary::run(place, tests, limit, &mut log)
    };
    let tally = ran.unwrap_or_else(|error| {
        let mut tally = Tally::default();
        tally.add(
            if counted { "counted" } else { "lab" },
            Outcome::Failed(error.to_string()),
            None,
        );
        tally
    });
    if let Some(path) = &tests.junit {
        junit::write(path, "lab", &tally)?;
    }
    if tests.keep {
        writeln!(log, "lab: kept {}: the machine's files and its serial log", place.run.display())?;
    }
    write!(log, "{}", tally.summary())?;
    Ok(u8::from(!tally.success()))
}
