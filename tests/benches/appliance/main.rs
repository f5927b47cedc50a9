//! `make bench`: whole runs of the appliance, each beside what the machine itself can do.
//!
//! Every comparison is a series of pairs: Moirai, peer, Moirai, peer, ... so that a change of the
//! machine's load meets both. The report has the median of the pairs' ratios with its lowest and
//! highest, and how far runs of the same thing lie apart: a difference smaller than that is none.
//! Nothing here passes or fails. `pair.rs` holds the arithmetic, `server.rs` the host service under
//! test, the other modules one measurement each.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a benchmark stops where it expects")]

mod children;
mod decision;
mod disk;
mod exec;
mod load;
mod memory;
mod net;
mod noise;
mod options;
mod pair;
mod path;
mod report;
mod scale;
mod server;

use std::process::ExitCode;

use options::Options;
use report::Report;

/// Adds its figures to the report.
type Measurement = fn(&mut Report, &Options);

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::new();
    noise::measure(&mut report, "before", &options);
    let parts: [(&str, Measurement); 7] = [
        ("decision", decision::measure),
        ("exec", exec::measure),
        ("memory", memory::measure),
        ("disk", disk::measure),
        ("net", net::measure),
        ("path", path::measure),
        ("scale", scale::measure),
    ];
    for (name, measure) in parts {
        if options.wants(name) {
            eprintln!("measuring: {name}");
            measure(&mut report, &options);
        }
    }
    noise::measure(&mut report, "after", &options);
    report.print(options.json);
    ExitCode::SUCCESS
}
