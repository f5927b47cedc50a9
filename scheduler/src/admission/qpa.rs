//! QPA, the exact test in few looks (Zhang and Burns 2009).
//!
//! Because `g` never decreases, `g(t) < t` settles all deadlines in `[g(t), t)` at once; so the
//! test walks down from the bound in steps of `t = g(t)`. Close to the capacity a step is only as
//! long as the supply is ahead of the demand, and there are as many as that goes into the bound:
//! [`WORK_MAX`] is far beyond what sets of a thousand tenants need in practice.

use super::Violation;
use super::bound::Bound;
use super::demand::{Look, Set};
use crate::time::Span;

/// Most work (tasks looked at) of one test: some 30 ms.
pub const WORK_MAX: u64 = 20_000_000;
/// The same for each of the many tests of a search for what would fit. There giving up is no harm:
/// a little less is offered.
pub(super) const SEARCH_WORK_MAX: u64 = 30_000;
/// No time beyond is doubled.
const LATE: Span = Span::from_nanos(u64::MAX / 4);

impl Set {
    /// Whether the set fits.
    ///
    /// # Errors
    /// A deadline at which it does not, or (`undecided`) the one down to which it does when the
    /// test gave up.
    pub fn check(&self) -> Result<(), Violation> {
        self.check_within(WORK_MAX)
    }

    pub(super) fn check_within(&self, work_max: u64) -> Result<(), Violation> {
        let Some(first) = self.tasks.first().map(|task| task.deadline) else { return Ok(()) };
        if self.density_fits() {
            return Ok(());
        }
        let until = match self.bound() {
            Bound::Until(until) => until,
            Bound::Overloaded => return Err(self.overload()),
        };
        let Some(mut time) = self.last_deadline(until) else { return Ok(()) };
        let mut work = 0u64;
        while time >= first {
            let look = self.look(time);
            work = work.saturating_add(look.work);
            time = match self.step(time, look) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(()),
                Err(violation) => return Err(violation),
            };
            if work > work_max && time >= first {
                return Err(self.violation(self.last_deadline(time).unwrap_or(time), true));
            }
        }
        Ok(())
    }

    /// The next time to look at; `None` if there is none.
    fn step(&self, time: Span, Look { needed, last, .. }: Look) -> Result<Option<Span>, Violation> {
        if needed < time {
            return Ok(Some(needed));
        }
        // Between deadlines only interrupts add to the demand, and nothing is due.
        match last {
            Some(deadline) if deadline < time => Ok(Some(deadline)),
            Some(deadline) if needed > deadline => Err(self.violation(deadline, false)),
            Some(deadline) => Ok(self.last_deadline(deadline.saturating_sub(Span::ONE))),
            None => Ok(None),
        }
    }

    /// Whether it is known to fail at `time`: a look at where a set like it has failed.
    pub(super) fn fails_at(&self, time: Span) -> bool {
        let Look { needed, last, .. } = self.look(time);
        last == Some(time) && needed > time
    }

    /// A time at which an overloaded set is seen to fail: demand outgrows any supply, so doubling
    /// finds one.
    fn overload(&self) -> Violation {
        let mut time =
            self.tasks.iter().map(|task| task.deadline).max().unwrap_or(Span::ONE).max(Span::ONE);
        while let Some(deadline) = self.last_deadline(time) {
            if self.look(deadline).needed > deadline || time > LATE {
                return self.violation(deadline, false);
            }
            time = time.saturating_mul(2);
        }
        self.violation(time, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Overhead, Resource};
    use crate::contract::Contract;
    use crate::time::Amount;

    /// A hundred periods without a common factor, so that the hyperperiod helps nobody, and a
    /// utilisation of 99.99%: tens of seconds of deadlines, 5 ms of them settled by each step.
    fn hundred(slices_ppm: u64) -> Set {
        let is_prime = |n: &u64| (2..4_000).all(|factor| !n.is_multiple_of(factor));
        let prime = |k: u64| (10_000_001 + 53_000 * k..).find(is_prime).unwrap();
        let contracts = (0..100).map(|k| {
            let period = prime(k);
            let slice = Amount::from_nanos(period * slices_ppm / 1_000_000);
            let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(period / 10 * 9));
            Contract::new(period, slice, deadline, None).unwrap()
        });
        Set::new(
            &Resource { capacity_ppm: 1_000_000, blocking: Amount::ZERO, overhead: Overhead::NONE },
            contracts,
        )
    }

    #[test]
    fn a_hundred_tenants_close_to_the_capacity_are_decided() {
        assert_eq!(hundred(9_999).check(), Ok(()));
        assert!(hundred(10_001).check().is_err_and(|violation| !violation.undecided));
    }

    #[test]
    fn a_test_that_gives_up_says_so_and_how_near_it_came() {
        let violation = hundred(9_999).check_within(10_000).unwrap_err();
        assert!(violation.undecided && violation.demand < violation.supply, "{violation:?}");
        let later = hundred(9_999).check_within(20_000).unwrap_err();
        assert!(later.time < violation.time, "all beyond is settled");
        assert!(alloc::format!("{violation}").contains("gave up"), "{violation}");
    }
}
