//! `moirai simulate`: a configuration in virtual time, reported as a table or as JSON, drawn and
//! traced on request. Starts nothing and needs no privilege.

use std::fmt;
use std::io::Write as _;

use moirai_scheduler::{Moment, Span};
use moirai_simulator::gantt::gantt;
use moirai_simulator::report::Usage;
use moirai_simulator::trace::perfetto;
use moirai_simulator::{Report, Scenario, run_policy};

use super::args::SimulateArgs;
use super::scenario::{blocking, scenario};
use super::{Failure, Status, print, write_file};
use moirai_config::units::Time;
use moirai_config::{self as config, admission};

/// Stretches of service that are kept of every resource, for a picture and for a trace.
const DRAWN: usize = 20_000;
const TRACED: usize = 200_000;
/// A picture shows this many of the longest periods.
const PERIODS_DRAWN: u64 = 4;

pub(super) fn run(args: &SimulateArgs) -> Result<Status, Failure> {
    let config = moirai_config::load(&args.file).map_err(|bad| Failure::bad(&bad))?;
    warn_of_refusals(&config);
    let mut scenario = scenario(&config);
    if let Some(policy) = args.policy {
        scenario = scenario.with_policy(policy);
    }
    scenario.segments = match (&args.trace, &args.svg) {
        (Some(_), _) => TRACED,
        (None, Some(_)) => DRAWN,
        (None, None) => 0,
    };
    let duration = Span::from_secs(args.seconds);
    let report = run_policy(&scenario, duration, args.seed, &mut |resource, clients| {
        let mut policy = moirai_scheduler::policy(resource.policy, clients);
        policy.set_blocking(blocking(resource));
        policy.set_wake_cost(resource.switch.service().saturating_mul(2));
        policy
    })
    .map_err(|error| Failure::new(Status::Bad, error))?;
    if let Some(path) = &args.svg {
        write_file(path, &gantt(&report, Moment::ZERO, drawn(&scenario, duration)))?;
    }
    if let Some(path) = &args.trace {
        write_file(path, &perfetto(&report))?;
        note_cut(&scenario, &report);
    }
    if args.json {
        print(report.to_json() + "\n")
    } else {
        print(Table { report: &report, duration: duration.as_nanos() })
    }
}

/// A set that is not admitted is simulated all the same: what it would miss is worth knowing.
fn warn_of_refusals(config: &config::Config) {
    for tenant in admission::plan::plan(config).tenants {
        for refusal in tenant.refusals {
            // Nobody reads standard error if this fails.
            let _ = writeln!(
                std::io::stderr(),
                "moirai: {} would not be admitted: {refusal}",
                tenant.name
            );
        }
    }
}

/// Until when a picture goes that shows single slices.
fn drawn(scenario: &Scenario, duration: Span) -> Moment {
    let uses = scenario.tenants.iter().flat_map(|tenant| &tenant.uses);
    let longest = uses.map(|used| used.contract.period()).max().unwrap_or(Span::from_secs(1));
    Moment::ZERO + longest.saturating_mul(PERIODS_DRAWN).min(duration)
}

/// Says where a trace ends before the simulation does.
fn note_cut(scenario: &Scenario, report: &Report) {
    for (index, resource) in report.resources.iter().enumerate() {
        let of_resource = || report.segments.iter().filter(|segment| segment.resource == index);
        if of_resource().count() >= scenario.segments {
            let end = Time(of_resource().map(|segment| segment.end.as_nanos()).max().unwrap_or(0));
            // Nobody reads standard error if this fails.
            let _ = writeln!(
                std::io::stderr(),
                "moirai: the trace of {} ends at {end}, after {} stretches of service",
                resource.name,
                scenario.segments
            );
        }
    }
}

/// The report for people. Shares are of the time simulated.
struct Table<'a> {
    report: &'a Report,
    duration: u64,
}

const COLUMNS: usize = 11;
const HEADS: [&str; COLUMNS] = [
    "TENANT",
    "OF",
    "GUARANTEED",
    "EXTRA",
    "MISSES",
    "IN STALL",
    "UNDONE",
    "LATE ms",
    "BLACKOUT ms",
    "WAKE p99 ms",
    "STALLED ms",
];
const RESOURCE_HEADS: [&str; 6] =
    ["RESOURCE", "USED", "IDLE", "SWITCHES", "DECISIONS", "FAIRNESS OF SLACK"];
/// Names are set to the left, numbers to the right.
const WIDTHS: [usize; COLUMNS] = [20, 11, 11, 9, 9, 9, 9, 12, 12, 12, 11];
const NAMES: usize = 1;

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, &HEADS.map(str::to_owned))?;
        for tenant in &self.report.tenants {
            let kinds = [("cpu", &tenant.cpu), ("disk", &tenant.disk), ("link", &tenant.link)];
            for (kind, usage) in kinds {
                if let Some(usage) = usage {
                    row(f, &self.cells(&tenant.name, kind, usage))?;
                }
            }
        }
        writeln!(f)?;
        row(f, &RESOURCE_HEADS.map(str::to_owned))?;
        for resource in &self.report.resources {
            let used = u128::from(resource.utilisation_ppm) * u128::from(self.duration) / 1_000_000;
            let cells = [
                resource.name.clone(),
                self.percent(u64::try_from(used).unwrap_or(u64::MAX)),
                self.percent(resource.idle_ns),
                self.percent(resource.overhead_ns),
                resource.decisions.to_string(),
                format!("{:.4}", resource.jain),
            ];
            row(f, &cells)?;
        }
        Ok(())
    }
}

impl Table<'_> {
    fn cells(&self, tenant: &str, kind: &str, usage: &Usage) -> [String; COLUMNS] {
        [
            tenant.to_owned(),
            kind.to_owned(),
            self.percent(usage.guaranteed_ns),
            self.percent(usage.extra_ns),
            usage.misses.to_string(),
            usage.misses_in_stall.to_string(),
            usage.undone.to_string(),
            millis(usage.max_lateness_ns),
            millis(usage.max_blackout_ns),
            millis(usage.wake_p99_ns),
            millis(usage.stall_loss_ns),
        ]
    }

    fn percent(&self, nanos: u64) -> String {
        let hundredths = u128::from(nanos) * 10_000 / u128::from(self.duration.max(1));
        format!("{}.{:02}%", hundredths / 100, hundredths % 100)
    }
}

/// Milliseconds to the microsecond.
fn millis(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000_000, nanos / 1_000 % 1_000)
}

fn row(f: &mut fmt::Formatter<'_>, cells: &[String]) -> fmt::Result {
    for (index, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let gap = if index == 0 { "" } else { " " };
        if index < NAMES {
            write!(f, "{gap}{cell:<width$}")?;
        } else {
            write!(f, "{gap}{cell:>width$}")?;
        }
    }
    writeln!(f)
}
