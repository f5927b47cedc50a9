//! The nearest contract that fits, for every refusal.
//!
//! Demand only grows with the slice and only shrinks with period and deadline, so each of the three
//! is found by bisection.

use crate::contract::{Contract, Nanos};

/// Slices below this, in nanoseconds, are not worth offering (unless less was asked for).
const SLICE_MIN: Nanos = 1_000;

/// See [`super::Refusal::nearest`].
pub(super) fn nearest(asked: &Contract, fits: impl Fn(Contract) -> bool) -> Option<Contract> {
    let (period, slice, deadline) = (asked.period(), asked.slice(), asked.deadline());
    let make = |period, slice, deadline| {
        Contract::new(period, slice, deadline, asked.extra()).ok().filter(|c| fits(*c))
    };
    let smaller = |cut: Nanos| make(period, slice.checked_sub(cut)?, deadline);
    let most = slice.saturating_sub(SLICE_MIN.min(slice));
    let later = |deadline: Nanos| make(period, slice, deadline);
    let longer = |period: Nanos| {
        make(period, slice, if deadline == asked.period() { period } else { deadline })
    };
    let relaxed = |period: Nanos| make(period, slice, period);
    first(1, most, smaller)
        .or_else(|| first(deadline, period, later))
        .or_else(|| first(period, Contract::PERIOD_MAX, longer))
        .or_else(|| first(period, Contract::PERIOD_MAX, relaxed))
}

/// The contract for the least `x` in `low..=high` for which there is one, if there is one for
/// `high`: the larger `x`, the less is asked for.
fn first(
    mut low: Nanos,
    mut high: Nanos,
    make: impl Fn(Nanos) -> Option<Contract>,
) -> Option<Contract> {
    if low > high {
        return None;
    }
    let mut best = make(high)?;
    while low < high {
        let middle = low.midpoint(high);
        match make(middle) {
            Some(contract) => {
                best = contract;
                high = middle;
            }
            None => low = middle.saturating_add(1),
        }
    }
    Some(best)
}
