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
use crate::contract::Contract;
use crate::time::{Amount, Span};

/// Slices below this, in nanoseconds, are not worth offering (unless less was asked for).
const SLICE_MIN: Amount = Amount::from_micros(1);

/// Of the times at which sets have failed, so many of the latest are tried first.
const REMEMBERED: usize = 8;

/// Looks for what would fit instead of a contract that does not.
pub(super) struct Search<'a, F> {
    asked: &'a Contract,
    with: F,
    /// Where sets have failed.
    failed: Vec<Span>,
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
        let less = |cut| (period, slice.saturating_sub(Amount::from_nanos(cut)), deadline);
        self.first(1, most.as_nanos(), less)
            .or_else(|| self.later())
            .or_else(|| {
                let deadline = |period| if whole { period } else { deadline };
                let longer = |period| (period, slice, deadline(period));
                self.shortest(period, Contract::PERIOD_MAX, longer)
            })
            .or_else(|| self.shortest(period, Contract::PERIOD_MAX, |it| (it, slice, it)))
    }

    /// See [`super::Refusal::later`].
    pub(super) fn later(&mut self) -> Option<Contract> {
        let (period, slice, deadline) =
            (self.asked.period(), self.asked.slice(), self.asked.deadline());
        let least = deadline.saturating_add(Span::ONE);
        self.shortest(least, period, |deadline| (period, slice, deadline))
    }

    /// The contract for the shortest time in `low..=high` that fits.
    fn shortest(
        &mut self,
        low: Span,
        high: Span,
        make: impl Fn(Span) -> (Span, Amount, Span),
    ) -> Option<Contract> {
        self.first(low.as_nanos(), high.as_nanos(), |it| make(Span::from_nanos(it)))
    }

    /// The contract for the least `x` in `low..=high` that fits, if the one for `high` does: the
    /// larger `x`, the less is asked for.
    fn first(
        &mut self,
        mut low: u64,
        mut high: u64,
        make: impl Fn(u64) -> (Span, Amount, Span),
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

    fn fitting(&mut self, (period, slice, deadline): (Span, Amount, Span)) -> Option<Contract> {
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
