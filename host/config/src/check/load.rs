//! Checks loads: each has the parameters of its kind and no others.

use crate::document::load::{LoadKind, LoadTable, LoadsTable, TIME_MAX};
use crate::problem::Problems;
use crate::units::Time;

/// Most jobs of a burst.
const COUNT_MAX: u32 = 100_000;
/// Parameters of a kind: those it needs, those it takes, in the words of the table.
type Keys = (&'static [&'static str], &'static [&'static str]);

/// What a load of `kind` needs and takes.
fn keys(kind: LoadKind) -> Keys {
    match kind {
        LoadKind::Idle => (&[], &[]),
        LoadKind::Busy | LoadKind::SmallPackets => (&[], &["unit"]),
        LoadKind::Periodic => (&["period", "work"], &["phase", "unit"]),
        LoadKind::Bursty => (&["gap", "count", "work"], &[]),
        LoadKind::OnOff => (&["on", "off"], &["unit"]),
        LoadKind::Single => (&["work"], &["think"]),
        LoadKind::Random => (&["gap", "work"], &[]),
        LoadKind::LatencyThief => (&[], &["work", "pause"]),
        LoadKind::BlockBeforeCharge => (&[], &["work"]),
        LoadKind::Inflate => (&[], &["announced", "unit"]),
        LoadKind::Writes => (&[], &["unit", "count", "flush"]),
        LoadKind::HostStall => (&["gap", "length"], &[]),
    }
}

/// Notes what makes no load; `path` is the place of the table.
pub(super) fn check(loads: &LoadsTable, path: &str, problems: &mut Problems) {
    for (table, key) in [(loads.cpu, "cpu"), (loads.disk, "disk"), (loads.link, "link")] {
        if let Some(table) = table {
            check_one(&table, &format!("{path}.{key}"), problems);
        }
    }
}

/// Every parameter that is a time, with its key.
fn times(table: &LoadTable) -> [(&'static str, Option<Time>); 12] {
    [
        ("period", table.period),
        ("work", table.work),
        ("phase", table.phase),
        ("unit", table.unit),
        ("gap", table.gap),
        ("on", table.on),
        ("off", table.off),
        ("think", table.think),
        ("pause", table.pause),
        ("announced", table.announced),
        ("length", table.length),
        ("flush", table.flush),
    ]
}

/// Notes keys that are missing, that the kind does not have, and values that make no load.
fn check_one(table: &LoadTable, path: &str, problems: &mut Problems) {
    let kind = table.kind.as_str();
    let (needed, taken) = keys(table.kind);
    let count = table.count.map(|count| Time(u64::from(count)));
    for (key, value) in times(table).into_iter().chain([("count", count)]) {
        let at = format!("{path}.{key}");
        match value {
            None if needed.contains(&key) => {
                let help = format!("kind `{kind}` needs {}", needed.join(", "));
                problems.add(path, format!("`{key}` is missing"), &help);
            }
            Some(_) if !needed.contains(&key) && !taken.contains(&key) => {
                let known = [needed, taken].concat();
                let help = match known.as_slice() {
                    [] => "remove it".to_owned(),
                    known => format!("it has {}", known.join(", ")),
                };
                problems.add(at, format!("a load of kind `{kind}` has no `{key}`"), &help);
            }
            Some(Time(0)) if !["phase", "think", "pause", "announced"].contains(&key) => {
                let more = if key == "count" { "8" } else { "\"10ms\"" };
                let help =
                    format!("write for example {more}, or kind = \"idle\" for no load at all");
                problems.add(at, format!("`{key}` is zero"), &help);
            }
            Some(Time(value)) if key == "count" && value > u64::from(COUNT_MAX) => {
                let message = format!("bursts of {value} jobs are more than {COUNT_MAX}");
                problems.add(at, message, "write for example 8: a queue holds no more than that");
            }
            Some(time) if time.0 > TIME_MAX => {
                let message = format!("a `{key}` of {time} is longer than a day");
                problems.add(at, message, "write for example \"10ms\"");
            }
            _ => {}
        }
    }
}
