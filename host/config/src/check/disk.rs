//! Checks disks: what they are said to take for a request, and to deliver.

use super::names::group;
use super::path;
use crate::document::DiskTable;
use crate::model::Disk;
use crate::problem::Problems;
use crate::units::Time;
use moirai_scheduler::Amount;

const DEFAULT_DEPTH: u32 = 4;
const MAX_DEPTH: u32 = 1024;
const DEFAULT_MAX_UNIT: Amount = Amount::from_millis(1);
/// No device that keeps promises about time takes a minute for one request.
const MAX_UNIT_MAX: u64 = 60_000_000_000;

/// The disk of `table`, whose place is `at`.
pub(super) fn check(table: &DiskTable, at: &str, problems: &mut Problems) -> Disk {
    path::check(&table.path, &format!("{at}.path"), "/srv/volumes", problems);
    let depth = table.depth.unwrap_or(DEFAULT_DEPTH);
    if !(1..=MAX_DEPTH).contains(&depth) {
        let help = "write for example 4: how many requests the device gets at a time";
        problems.add(format!("{at}.depth"), format!("a depth of {depth} is not 1 to 1024"), help);
    }
    let bandwidth = table.bandwidth.and_then(|rate| {
        let bytes = rate.bits_per_second().map(|bits| bits / 8).filter(|bytes| *bytes > 0);
        if bytes.is_none() {
            let message = format!("{rate} is not what a disk delivers");
            problems.add(format!("{at}.bandwidth"), message, "write for example \"400MB/s\"");
        }
        bytes
    });
    Disk {
        name: table.name.clone(),
        path: table.path.clone(),
        depth,
        max_unit: check_max_unit(table, at, problems),
        bandwidth,
        policy: table.policy.unwrap_or_default().0,
        group: group(table.group.as_ref(), at, problems),
    }
}

fn check_max_unit(table: &DiskTable, at: &str, problems: &mut Problems) -> Amount {
    let Some(Time(unit)) = table.max_unit else { return DEFAULT_MAX_UNIT };
    if !(1..=MAX_UNIT_MAX).contains(&unit) {
        let message =
            format!("a `max_unit` of {} is not 1ns to {}", Time(unit), Time(MAX_UNIT_MAX));
        problems.add(
            format!("{at}.max_unit"),
            message,
            "write for example \"1ms\"; `moirai probe disk` measures what it takes",
        );
    }
    Time(unit.clamp(1, MAX_UNIT_MAX)).work()
}
