//! `[tenant.load]` as the simulator takes it. The configuration has checked it: what is missing
//! here is not needed.

use moirai_config::load::{LoadKind, LoadTable};
use moirai_config::units;
use moirai_simulator::load::{Load, Time};

/// Writes before a flush, if nothing is said.
const WRITES: u32 = 8;

/// What a table says; without one: always more work.
pub(super) fn load(table: Option<LoadTable>) -> Load {
    let Some(table) = table else { return Load::default() };
    let some = |written: Option<units::Time>| written.map(|units::Time(nanos)| Time(nanos));
    let time = |written| some(written).unwrap_or(Time(0));
    let (work, gap, unit) = (time(table.work), time(table.gap), some(table.unit));
    match table.kind {
        LoadKind::Idle => Load::Idle {},
        LoadKind::Busy => Load::Busy { unit },
        LoadKind::Periodic => {
            Load::Periodic { period: time(table.period), work, phase: time(table.phase), unit }
        }
        LoadKind::Bursty => Load::Bursty { gap, count: table.count.unwrap_or(1), work },
        LoadKind::OnOff => Load::OnOff { on: time(table.on), off: time(table.off), unit },
        LoadKind::Single => Load::Single { work, think: time(table.think) },
        LoadKind::Random => Load::Random { gap, work },
        LoadKind::LatencyThief => {
            Load::LatencyThief { work: some(table.work), pause: some(table.pause) }
        }
        LoadKind::BlockBeforeCharge => Load::BlockBeforeCharge { work: some(table.work) },
        LoadKind::Inflate => Load::Inflate { announced: some(table.announced), unit },
        LoadKind::SmallPackets => Load::SmallPackets { unit },
        LoadKind::Writes => {
            let (count, flush) = (table.count.unwrap_or(WRITES), some(table.flush));
            Load::Writes { unit, count, flush }
        }
        LoadKind::HostStall => Load::HostStall { gap, length: time(table.length) },
    }
}

#[cfg(test)]
#[path = "loads_tests.rs"]
mod tests;
