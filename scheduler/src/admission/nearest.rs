//! The nearest contract that fits, for every refusal.
//!
//! Demand only grows with the slice and only shrinks with period and deadline, so each of the three
//! is found by bisection. Most contracts that do not fit fail where an earlier one has failed,
//! which is one look; a test that would take long counts as a *no*, so that close to the capacity a
//! little less is offered than could be.

use alloc::vec::Vec;

use super::Violation;
use super::demand::Set;
use super::qpa::SEARCH_WORK_MAX;
use crate::contract::{Contract, Nanos};

/// Slices below this, in nanoseconds, are not worth offering (unless less was asked for).
const SLICE_MIN: Nanos = 1_000;

/// Of the times at which sets have failed, so many of the latest are tried first.
const REMEMBERED: usize = 8;

/// Looks for what would fit instead of a contract that does not.
pub(super) struct Search<'a, F> {
    asked: &'a Contract,
    with: F,
    /// Where sets have failed.
    failed: Vec<Nanos>,
}

impl<'a, F: Fn(Contract) -> Set> Search<'a, F> {
    /// `with`: the set with a contract instead of the one that was `asked` for; `violation`: where
    /// it fails with that one.
    pub(super) fn new(asked: &'a Contract, with: F, violation: Violation) -> Self {
        let mut failed = Vec::new();
        if !violation.undecided {
            failed.push(violation.time);
        }
        Self { asked, with, failed }
    }

    /// See [`super::Refusal::nearest`].
    pub(super) fn nearest(&mut self) -> Option<Contract> {
        let (period, slice, deadline) =
            (self.asked.period(), self.asked.slice(), self.asked.deadline());
        let most = slice.saturating_sub(SLICE_MIN.min(slice));
        let whole = deadline == period;
        self.first(1, most, |cut| (period, slice.saturating_sub(cut), deadline))
            .or_else(|| self.later())
            .or_else(|| {
                let deadline = |period| if whole { period } else { deadline };
                let longer = |period| (period, slice, deadline(period));
                self.first(period, Contract::PERIOD_MAX, longer)
            })
            .or_else(|| self.first(period, Contract::PERIOD_MAX, |period| (period, slice, period)))
    }

    /// See [`super::Refusal::later`].
    pub(super) fn later(&mut self) -> Option<Contract> {
        let (period, slice, deadline) =
            (self.asked.period(), self.asked.slice(), self.asked.deadline());
        let least = deadline.saturating_add(1);
        self.first(least, period, |deadline| (period, slice, deadline))
    }

    /// The contract for the least `x` in `low..=high` that fits, if the one for `high` does: the
    /// larger `x`, the less is asked for.
    fn first(
        &mut self,
        mut low: Nanos,
        mut high: Nanos,
        make: impl Fn(Nanos) -> (Nanos, Nanos, Nanos),
    ) -> Option<Contract> {
        if low > high {
            return None;
        }
        let mut best = self.fitting(make(high))?;
        while low < high {
            let middle = low.midpoint(high);
            match self.fitting(make(middle)) {
                Some(contract) => {
                    best = contract;
                    high = middle;
                }
                None => low = middle.saturating_add(1),
            }
        }
        Some(best)
    }

    fn fitting(&mut self, (period, slice, deadline): (Nanos, Nanos, Nanos)) -> Option<Contract> {
        let contract = Contract::new(period, slice, deadline, self.asked.extra()).ok()?;
        let set = (self.with)(contract);
        if self.failed.iter().rev().take(REMEMBERED).any(|&time| set.fails_at(time)) {
            return None;
        }
        match set.check_within(SEARCH_WORK_MAX) {
            Ok(()) => Some(contract),
            Err(violation) => {
                if !violation.undecided {
                    self.failed.push(violation.time);
                }
                None
            }
        }
    }
}
