//! `moirai demo` and `moirai receive`.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::args::{DemoArgs, ReceiveArgs};
use super::{Failure, Status, print, print_json, report};
use moirai_bench::demo;
use moirai_bench::recorder::{Analysis, Capture, Stalls, analyse};

pub(super) fn demo(args: &DemoArgs) -> Result<Status, Failure> {
    let shown = demo::run(&demo::DemoArgs {
        seconds: args.seconds,
        film: args.film.clone(),
        svg: args.svg.clone(),
        // On standard error, and only if that is a terminal.
        progress: true,
    });
    let shown = shown.map_err(|error| Failure::new(Status::Failed, error))?;
    if args.report.json {
        print_json(&shown)?
    } else {
        print(shown.table())?
    };
    Ok(if shown.kept { Status::Done } else { Status::Failed })
}

pub(super) fn receive(args: &ReceiveArgs) -> Result<Status, Failure> {
    let capture =
        Capture::start(args.address).map_err(|error| Failure::new(Status::Failed, error))?;
    std::thread::sleep(Duration::from_secs(u64::from(args.seconds)));
    report(&Received(analyse(&capture.finish(), &Stalls::default())), args.report.json)
}

/// What was received.
#[derive(Serialize)]
#[serde(transparent)]
struct Received(Analysis);

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Analysis { packets, lost, late, late_p99_us, late_max_us, jitter_us, .. } = self.0;
        writeln!(f, "packets {packets}, lost {lost}, late {late}")?;
        writeln!(f, "lateness p99 {late_p99_us} us, max {late_max_us} us; jitter {jitter_us} us")
    }
}
