//! What a unit will cost, learned from what such units have cost.
//!
//! Units are sorted into *classes*: kind and power of two of the size. A class is learned from
//! units that had the device to themselves, because what a unit among others costs cannot be seen.
//!
//! 1. The estimate is the mean plus [`DEVIATIONS`] mean deviations (as a retransmission timer is
//!    set; Jacobson 1988), at most the largest unit.
//! 2. A class that was never measured, or not within [`STALE`], counts as the largest unit. So its
//!    next unit goes to the device alone ([`super::Window`]), and is a measure again.
//! 3. The *weight* is the mean: in what proportion units that share the device pay for it.

use crate::time::{Amount, Moment, Span};

/// How many mean deviations an estimate lies above the mean.
const DEVIATIONS: u64 = 4;
/// A measure is believed for this long, in nanoseconds.
const STALE: Span = Span::from_secs(10);

/// Size classes: up to 2^9 bytes, then one for each power of two, the last one open.
const SMALLEST: u32 = 9;
const SIZES: usize = 20;
const KINDS: usize = 5;

/// What is known of a class before it was measured: this, and a nanosecond for each byte.
const PRIOR_FIXED: Amount = Amount::from_micros(50);

/// What a unit does to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Makes durable what was written before.
    Flush,
    /// Gives a range up.
    Discard,
    /// Writes zeroes without data.
    WriteZeroes,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; KINDS] =
        [Self::Read, Self::Write, Self::Flush, Self::Discard, Self::WriteZeroes];

    const fn place(self) -> usize {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 2,
            Self::Discard => 3,
            Self::WriteZeroes => 4,
        }
    }
}

/// One class: mean and mean deviation in eighths of a nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Class {
    mean: u64,
    deviation: u64,
    measured_at: Option<Moment>,
}

/// The costs of the units of one device.
#[derive(Clone, Debug)]
pub struct CostModel {
    unit_max: Amount,
    classes: [[Class; SIZES]; KINDS],
}

impl CostModel {
    /// Nothing is known; the largest unit costs `unit_max` nanoseconds.
    #[must_use]
    pub const fn new(unit_max: Amount) -> Self {
        let class = Class { mean: 0, deviation: 0, measured_at: None };
        Self { unit_max, classes: [[class; SIZES]; KINDS] }
    }

    /// What a unit of this kind and size is reckoned to cost at most, in nanoseconds.
    #[must_use]
    pub fn estimate(&self, kind: Kind, bytes: u64, now: Moment) -> Amount {
        match self.class(kind, bytes) {
            Some(class) if class.is_fresh(now) => class.upper().min(self.unit_max),
            _ => self.unit_max,
        }
    }

    /// What it costs in the mean, in nanoseconds; never zero.
    #[must_use]
    pub fn weight(&self, kind: Kind, bytes: u64) -> Amount {
        let prior = PRIOR_FIXED.saturating_add(Amount::from_nanos(bytes));
        let class = self.class(kind, bytes).filter(|class| class.measured_at.is_some());
        class.map_or(prior, Class::mean).max(Amount::ONE)
    }

    /// A unit that had the device to itself has cost so much. The owner leaves out those during
    /// which the machine stood still.
    pub fn learn(&mut self, kind: Kind, bytes: u64, cost: Amount, now: Moment) {
        let class = self.classes.get_mut(kind.place()).and_then(|it| it.get_mut(size_class(bytes)));
        if let Some(class) = class {
            class.learn(cost, now);
        }
    }

    fn class(&self, kind: Kind, bytes: u64) -> Option<&Class> {
        self.classes.get(kind.place())?.get(size_class(bytes))
    }
}

impl Class {
    fn is_fresh(&self, now: Moment) -> bool {
        self.measured_at.is_some_and(|at| now.since(at) <= STALE)
    }

    fn mean(&self) -> Amount {
        Amount::from_nanos(self.mean / 8)
    }

    fn upper(&self) -> Amount {
        let eighths = self.mean.saturating_add(self.deviation.saturating_mul(DEVIATIONS));
        Amount::from_nanos(eighths / 8)
    }

    /// Means that move by an eighth, deviations by a quarter, of what is new. The first measure is
    /// taken as it is, with an eighth of it as deviation: the estimate is then half above it.
    fn learn(&mut self, cost: Amount, now: Moment) {
        let cost = cost.as_nanos().saturating_mul(8);
        if self.is_fresh(now) {
            let error = cost.abs_diff(self.mean);
            let step = error / 8;
            self.mean = match cost > self.mean {
                true => self.mean.saturating_add(step),
                false => self.mean.saturating_sub(step),
            };
            let kept = self.deviation.saturating_sub(self.deviation / 4);
            self.deviation = kept.saturating_add(error / 4);
        } else {
            (self.mean, self.deviation) = (cost, cost / 8);
        }
        self.measured_at = Some(now);
    }
}

/// The class of a size: the power of two that is not below it.
fn size_class(bytes: u64) -> usize {
    let power = bytes.max(1).checked_next_power_of_two().map_or(u64::BITS, u64::trailing_zeros);
    let place = usize::try_from(power.saturating_sub(SMALLEST)).unwrap_or(usize::MAX);
    place.min(SIZES.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn a_class_that_is_not_known_costs_the_largest_unit_and_a_stale_one_again() {
        let mut model = CostModel::new(Amount::from_millis(1));
        assert_eq!(model.estimate(Kind::Read, 4 * KIB, Moment::ZERO), Amount::from_millis(1));
        model.learn(Kind::Read, 4 * KIB, Amount::from_micros(72), Moment::from_nanos(5));
        assert_eq!(
            model.estimate(Kind::Read, 4 * KIB, Moment::from_nanos(5)),
            Amount::from_nanos(72_000 + 36_000)
        );
        let stale = Moment::ZERO + STALE;
        assert_eq!(
            model.estimate(Kind::Read, 3 * KIB, stale),
            Amount::from_micros(108),
            "the same class"
        );
        assert_eq!(
            model.estimate(Kind::Write, 4 * KIB, Moment::from_nanos(5)),
            Amount::from_millis(1)
        );
        assert_eq!(
            model.estimate(Kind::Read, 4 * KIB, stale + Span::from_nanos(6)),
            Amount::from_millis(1)
        );
        assert_eq!(
            model.weight(Kind::Read, 4 * KIB),
            Amount::from_micros(72),
            "proportions are still believed"
        );
    }

    #[test]
    fn an_estimate_follows_what_is_measured_and_stays_above_most_of_it() {
        let mut model = CostModel::new(Amount::from_millis(1));
        let costs = [70_000, 75_000, 90_000, 68_000, 72_000, 110_000, 71_000, 74_000];
        for (now, cost) in (0..).zip(costs.iter().cycle().take(800)) {
            model.learn(Kind::Read, 4 * KIB, Amount::from_nanos(*cost), Moment::from_nanos(now));
        }
        let estimate = model.estimate(Kind::Read, 4 * KIB, Moment::from_nanos(800));
        assert!((110_000..160_000).contains(&estimate.as_nanos()), "{estimate}");
        let weight = model.weight(Kind::Read, 4 * KIB);
        assert!((70_000..90_000).contains(&weight.as_nanos()), "{weight}");
    }

    #[test]
    fn no_estimate_is_longer_than_the_largest_unit_or_overflows() {
        let mut model = CostModel::new(Amount::from_millis(1));
        for now in 0..5 {
            model.learn(Kind::Flush, u64::MAX, Amount::MAX, Moment::from_nanos(now));
        }
        assert_eq!(
            model.estimate(Kind::Flush, u64::MAX, Moment::from_nanos(5)),
            Amount::from_millis(1)
        );
    }
}
