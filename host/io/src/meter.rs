//! What disk requests cost: the time of the disk, shared by the units that were in it.
//!
//! A disk with several units inside serves them at the same time; which one it worked on at a
//! moment cannot be seen. So every nanosecond in which the disk was busy is charged once, to those
//! inside in proportion to what each of them costs when it is alone (its *weight*, from the disk's
//! model): the charges add up to the busy time, whatever the depth, a tenant that keeps the disk
//! full pays for it, and a small read pays for a small read, whatever large ones are beside it.
//!
//! Two other rules divide the same time, and both err where units of different sizes meet (the test
//! `beside_large_units_a_small_one_is_charged_about_what_it_costs_alone` prints all three): *equal
//! parts* charge a read of 4 KiB as much per nanosecond as the read of 1 MiB beside it, and *the
//! time since the previous completion* charges whoever ends first for what the disk did for those
//! that have not ended.

use moirai_scheduler::{Amount, Moment, Span};

/// Names a unit in the disk. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnitId(u64);

/// A unit that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its share of the busy time.
    pub(crate) share: Amount,
    /// When it went to the disk.
    pub(crate) begun: Moment,
    /// Nothing else was in the disk from its begin to its end.
    pub(crate) alone: bool,
}

#[derive(Debug)]
struct Unit {
    id: UnitId,
    weight: Amount,
    share: Amount,
    begun: Moment,
    alone: bool,
}

/// The units inside one disk, and the time up to which it has been divided among them.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    units: Vec<Unit>,
    next: u64,
    settled: Moment,
    /// Nanoseconds that did not divide evenly; divided with the next step.
    remainder: Amount,
    busy: Span,
}

impl Meter {
    pub(crate) fn with_depth(depth: usize) -> Self {
        Self { units: Vec::with_capacity(depth), ..Self::default() }
    }

    /// Units inside.
    pub(crate) fn in_flight(&self) -> usize {
        self.units.len()
    }

    /// Time in which at least one unit was inside.
    pub(crate) fn busy(&self) -> Span {
        self.busy
    }

    /// A unit goes to the disk.
    pub(crate) fn begin(&mut self, weight: Amount, now: Moment) -> UnitId {
        self.settle(now);
        let alone = self.units.is_empty();
        self.units.iter_mut().for_each(|unit| unit.alone = false);
        let id = UnitId(self.next);
        self.next = self.next.wrapping_add(1);
        let (weight, begun) = (weight.max(Amount::ONE), self.settled);
        self.units.push(Unit { id, weight, share: Amount::ZERO, begun, alone });
        id
    }

    /// A unit came back. `None` if it is not inside.
    pub(crate) fn end(&mut self, id: UnitId, now: Moment) -> Option<Ended> {
        self.settle(now);
        let place = self.units.iter().position(|unit| unit.id == id)?;
        let mut unit = self.units.swap_remove(place);
        if self.units.is_empty() {
            unit.share += std::mem::take(&mut self.remainder);
        }
        Some(Ended { share: unit.share, begun: unit.begun, alone: unit.alone })
    }

    /// Divides the time up to `now`.
    fn settle(&mut self, now: Moment) {
        let elapsed = now.since(self.settled);
        self.settled = self.settled.max(now);
        if self.units.is_empty() || elapsed.is_zero() {
            return;
        }
        self.busy += elapsed;
        let due = elapsed.service() + self.remainder;
        let total: u128 = self.units.iter().map(|unit| unit.weight.wide()).sum();
        let mut rest = due;
        for unit in &mut self.units {
            let share = due.wide() * unit.weight.wide() / total;
            // Not more than `due`.
            let share = Amount::from_wide(share);
            unit.share += share;
            rest -= share;
        }
        self.remainder = rest;
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
