//! `pulse` is a periodic task that measures its own jobs: the oracle of the CPU's promises. Words:
//! `period_us=20000 work_us=600 deadline_us=` (the period) `phase_us=0 seconds=0`.
//!
//! Its `k`-th job is released at `phase + k * period` of the host's time stamp counter, so several
//! of them keep their phases to each other. It sleeps until then (one wake-up a period), burns
//! `work_us` of CPU time and notes when it started and ended. It looks at the clock all the time,
//! and does not count what passes between two looks that are far apart: then somebody else had the
//! core. (A number of rounds measured at the start would be too much work when the core has become
//! slower.)
#![no_std]
#![no_main]

use moirai_sdk::{App, AppError, Lateness, Periodic, machine, now};

moirai_sdk::main!("pulse", run, ["period_us", "work_us", "deadline_us", "phase_us", "seconds"]);

const US: u64 = 1_000;
/// An hour.
const US_MAX: u64 = 3_600_000_000;
/// Two looks at the clock while nobody else has the core are not further apart than this.
const APART_NS: u64 = 8_000;
/// What a report may take of a job's time, so that a report costs no wake-up of its own.
const WRITE_NS: u64 = 100_000;

fn run(app: &mut App) -> Result<(), AppError> {
    let args = app.args();
    let period = args.number("period_us", 20_000, (100, US_MAX))?;
    let work = args.number("work_us", 600, (1, period))? * US;
    let deadline = args.number("deadline_us", period, (1, US_MAX))? * US;
    let phase = args.number("phase_us", 0, (0, US_MAX))? * US;
    let seconds = args.number("seconds", 0, (0, US_MAX))?;
    let task = Periodic { period: period * US, phase, deadline };
    app.ready(|fields| fields.number("period_us", period).number("work_us", work / US));
    let end = if seconds == 0 { u64::MAX } else { now().saturating_add(seconds * 1_000_000_000) };
    // The start and its console output are over when the third period begins.
    let mut release = task.release_after(machine() + 2 * task.period);
    let mut seen = Lateness::default();
    while app.running() && now() < end {
        app.sleep(now().saturating_add(release.saturating_sub(machine())));
        let start = machine();
        if start < release {
            continue;
        }
        burn(work);
        task.note(&mut seen, release, start, machine());
        release = task.next(release);
        if app.report_due() {
            report(app, "report", &seen);
        }
        app.write(WRITE_NS);
    }
    report(app, "total", &seen);
    Ok(())
}

/// The sums since the start.
fn report(app: &App, event: &str, seen: &Lateness) {
    app.report(event, |fields| {
        fields
            .number("jobs", seen.jobs)
            .number("late", seen.late)
            .number("worst_us", seen.worst / US)
            .number("start_worst_us", seen.start_worst / US)
    });
}

/// Works for so many nanoseconds in which it has the core.
fn burn(work: u64) {
    let mut done = 0;
    let mut last = machine();
    while done < work {
        let now = machine();
        let apart = now - last;
        done += if apart < APART_NS { apart } else { 0 };
        last = now;
    }
}
