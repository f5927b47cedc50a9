//! Why a contract is not kept, in the words of whoever made it.
//!
//! A contract was admitted for a device as it was declared. It is *not kept* while the device as it
//! is measured would not have admitted it, while a rate is not reached by who wants more than it
//! gets, and for a minute after a miss that nothing excuses.

use std::collections::BTreeSet;

use moirai_scheduler::admission::{Resource, Violation, check};
use moirai_scheduler::{Amount, Contract, Moment};

use crate::DeviceId;
use crate::device::{Body, Device};
use crate::disk::Disk;
use crate::domain::Domain;
use crate::schedule::Owner;
use crate::seams::Seams;

/// Up to so many contracts of a disk are told apart when not all of them fit; each takes one test.
const TOLD_APART: usize = 64;

impl<S: Seams> Domain<S> {
    /// Why the contracts of devices are not kept, of those that are not.
    pub(crate) fn verdicts(&mut self, now: Moment) -> Vec<(DeviceId, String)> {
        let mut verdicts = Vec::new();
        for disk in &mut self.disks {
            let Some(measured) = disk.gauge.excess(now) else { continue };
            let (name, declared) = (&disk.name, disk.gauge.declared());
            let promised = disk.schedule.guarantees();
            let contracts: Vec<_> = promised.map(|(Owner::Device(id), it)| (id, it)).collect();
            verdicts.extend(too_long(name, declared, measured, &contracts));
        }
        let told: BTreeSet<_> = verdicts.iter().map(|(id, _)| *id).collect();
        for device in self.devices.iter().filter(|device| !told.contains(&device.id)) {
            let why = missed(device, now).or_else(|| too_slow(device, &self.disks, now));
            verdicts.extend(why.map(|why| (device.id, why)));
        }
        verdicts
    }
}

/// The contracts that a disk does not admit whose largest unit takes as long as was measured, in
/// the order in which they were admitted.
fn too_long(
    disk: &str,
    declared: Amount,
    measured: Amount,
    contracts: &[(DeviceId, Contract)],
) -> Vec<(DeviceId, String)> {
    let resource = Resource::of_units(measured);
    let all: Vec<_> = contracts.iter().map(|(_, contract)| *contract).collect();
    let Err(violation) = check(&resource, &all) else { return Vec::new() };
    let why = |Violation { time, demand, supply, .. }: Violation| {
        let [time, demand, supply] =
            [time.as_nanos(), demand.as_nanos(), supply.as_nanos()].map(rounded);
        format!(
            "units of {disk} take {}, {} is declared: in {time} up to {demand} are due, but only \
             {supply} can be supplied",
            rounded(measured.as_nanos()),
            exact(declared.as_nanos())
        )
    };
    if contracts.len() > TOLD_APART {
        let why = why(violation);
        return contracts.iter().map(|(id, _)| (*id, why.clone())).collect();
    }
    let mut kept = Vec::new();
    let mut verdicts = Vec::new();
    for (id, contract) in contracts {
        kept.push(*contract);
        if let Err(violation) = check(&resource, &kept) {
            kept.pop();
            verdicts.push((*id, why(violation)));
        }
    }
    verdicts
}

/// A miss within the last minute that nothing excuses.
fn missed<St>(device: &Device<St>, now: Moment) -> Option<String> {
    let late = device.record.recent_miss(now)?;
    Some(format!(
        "in the last minute it was served too late, by up to {}",
        rounded(late.as_nanos())
    ))
}

/// A rate that is not reached although more was wanted.
fn too_slow<St>(device: &Device<St>, disks: &[Disk], now: Moment) -> Option<String> {
    let Body::Blk(blk) = &device.body else { return None };
    let contract = disks.get(blk.disk)?.schedule.contract(blk.client)?;
    let promised = promised_rate(contract, blk.bandwidth?);
    let got = device.record.rate_when_exhausted(now)?;
    // The second in which a period ends is nobody's exactly.
    let reached = u128::from(got) * 100 >= u128::from(promised) * 98;
    (!reached).then(|| {
        let (got, promised) = (megabytes(got), megabytes(promised));
        format!("{promised} are promised, and its slice brings {got}: its requests need more time")
    })
}

/// Bytes per second that a slice brings at this bandwidth.
fn promised_rate(contract: Contract, bandwidth: u64) -> u64 {
    let bytes = u128::from(bandwidth) * contract.slice().wide();
    let rate = bytes.checked_div(contract.period().wide()).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// A time in nanoseconds, as it was declared.
fn exact(time: u64) -> String {
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    let whole = units.iter().find(|(_, scale)| time > 0 && time.is_multiple_of(*scale));
    whole.map_or_else(|| format!("{time}ns"), |(name, scale)| format!("{}{name}", time / scale))
}

/// A time in nanoseconds with two digits, so that a reason does not change at every look.
fn rounded(time: u64) -> String {
    let mut unit = 1;
    while time / unit >= 100 {
        unit *= 10;
    }
    let digits = time.div_ceil(unit).saturating_mul(unit);
    match digits {
        0..10_000 => format!("{digits}ns"),
        10_000..1_000_000 => format!("{}us", digits / 1_000),
        1_000_000..10_000_000 => {
            format!("{}.{}ms", digits / 1_000_000, digits / 100_000 % 10)
        }
        _ => format!("{}ms", digits / 1_000_000),
    }
}

/// Bytes per second with one digit after the point.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB/s", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use moirai_scheduler::Span;

    use super::*;

    const MS: u64 = 1_000_000;

    fn contract(period: u64, slice: u64) -> Contract {
        let period = Span::from_nanos(period);
        Contract::new(period, Amount::from_nanos(slice), period, None).unwrap()
    }

    #[test]
    fn a_contract_that_the_measured_disk_would_not_admit_is_not_kept() {
        let contracts =
            [(DeviceId(1), contract(20 * MS, 6 * MS)), (DeviceId(2), contract(20 * MS, 6 * MS))];
        assert!(
            too_long("ssd", Amount::from_millis(1), Amount::from_millis(2), &contracts).is_empty(),
            "6 + 6 + 3 units of 2"
        );
        let verdicts =
            too_long("ssd", Amount::from_millis(1), Amount::from_micros(3_720), &contracts);
        let [(id, why)] = &verdicts[..] else { panic!("{verdicts:?}") };
        assert_eq!(*id, DeviceId(2), "the one that came first fits");
        assert!(
            why.starts_with(
                "units of ssd take 3.8ms, 1ms is declared: in 20ms up to 24ms are due, but only"
            ),
            "{why}"
        );
    }

    #[test]
    fn times_have_two_digits_and_are_not_rounded_down() {
        let cases = [(0, "0ns"), (99, "99ns"), (71_900, "72us"), (3_710_000, "3.8ms")];
        for (time, text) in
            cases.into_iter().chain([(20_000_000, "20ms"), (1_234_000_000, "1300ms")])
        {
            assert_eq!(rounded(time), text);
        }
    }

    #[test]
    fn a_rate_is_the_part_of_the_bandwidth_that_the_slice_is_of_the_period() {
        assert_eq!(promised_rate(contract(100 * MS, 10 * MS), 200_000_000), 20_000_000);
        assert_eq!(megabytes(12_345_678), "12.3 MB/s");
    }
}
