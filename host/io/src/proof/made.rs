//! What a world is made of.

use moirai_scheduler::{Amount, Contract, PolicyKind, Span, Weight, policy};

use super::chance::Chance;
use super::clock::MS;
use super::ring::Faults;
use super::wire::Cable;
use crate::DiskSpec;
use crate::disk::Disk;
use crate::link::Link;

/// The one that promises most, twice.
const POLICIES: [PolicyKind; 8] = [
    PolicyKind::Atropos,
    PolicyKind::Atropos,
    PolicyKind::Nemesis,
    PolicyKind::Xen,
    PolicyKind::Usd,
    PolicyKind::Drr,
    PolicyKind::EdfChannel,
    PolicyKind::Fifo,
];
/// Clients of a resource.
const CLIENTS: usize = 64;

/// How often what goes wrong: in a third of all worlds nothing, in others much.
pub(super) fn faults(chance: &mut Chance) -> Faults {
    let much = chance.of(&[0, 2, 50]);
    let mut some = || if chance.permille(600) { much } else { 0 };
    Faults {
        no_slot: some(),
        no_memory: some(),
        error: some(),
        again: some(),
        short: some(),
        deaf: some(),
        submit: some(),
    }
}

/// A disk that takes at most `deepest` units at a time.
pub(super) fn disk(number: u64, deepest: u64, chance: &mut Chance) -> Disk {
    let kind = chance.of(&POLICIES);
    let max_unit = Amount::from_nanos(chance.of(&[MS / 2, 2 * MS, 20 * MS]));
    let spec = DiskSpec {
        name: format!("d{number}"),
        depth: usize::try_from(chance.between(1, deepest)).unwrap(),
        max_unit,
        blocking: chance.of(&[Amount::ZERO, max_unit]),
        policy: kind,
    };
    Disk::new(spec, policy(kind, CLIENTS))
}

pub(super) fn link(number: u64, cable: Cable, chance: &mut Chance) -> Link<Cable> {
    let policy = policy(chance.of(&POLICIES), CLIENTS);
    let rate = chance.of(&[10_000_000, 1_000_000_000]);
    Link::new(format!("l{number}"), rate, 1500, policy, cable)
}

/// A contract, now and then on slack alone. Nobody admits them: what is asked for may be too much.
pub(super) fn contract(chance: &mut Chance) -> Contract {
    let period = chance.of(&[2 * MS, 10 * MS, 50 * MS]);
    let extra = chance.permille(600).then(|| chance.between(1, 10));
    let weight = extra.and_then(|weight| Weight::new(u32::try_from(weight).unwrap()));
    let slice = if weight.is_some() && chance.permille(400) {
        0
    } else {
        chance.between(period / 100, period / 3)
    };
    let deadline = chance.between(slice.max(period / 2), period);
    let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
    Contract::new(period, Amount::from_nanos(slice), deadline, weight).unwrap()
}
