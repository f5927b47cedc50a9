//! How much of the loop's time a kind of work may take: a token bucket in nanoseconds.
//!
//! Work is paid for when it is done and measured; whoever has used up its share waits until the
//! time has paid for it. Nothing is counted while nothing is done.

use moirai_scheduler::{Moment, Span};

/// Parts of the whole: a thousandth each.
pub(crate) const WHOLE: u64 = 1000;
/// One piece of work costs no more than this, however long it took: the machine may have stood
/// still meanwhile.
const LONGEST: Span = Span::from_millis(2);
/// And no less.
const SHORTEST: Span = Span::from_nanos(100);

/// A share of the time, and what of it was used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Of a thousand, at least 1.
    share: u64,
    /// So much may be used at once.
    burst: Span,
    /// When all that was used is paid by the share.
    paid_at: Moment,
}

impl Budget {
    /// `share` thousandths of the time, and `burst` of it at once.
    pub(crate) fn new(share: u64, burst: Span) -> Self {
        Self { share: share.clamp(1, WHOLE), burst, paid_at: Moment::ZERO }
    }

    /// Whether there is something left.
    pub(crate) fn has(&self, now: Moment) -> bool {
        self.paid_at.since(now) < self.time_of(self.burst)
    }

    /// When so much can be used at once again; no more than the burst.
    pub(crate) fn refilled_at(&self, amount: Span) -> Moment {
        let used = self.burst.saturating_sub(amount);
        self.paid_at.saturating_sub(self.time_of(used)).saturating_add(Span::from_nanos(1))
    }

    /// So much was used; what of it is charged.
    pub(crate) fn pay(&mut self, now: Moment, cost: Span) -> Span {
        let cost = cost.clamp(SHORTEST, LONGEST);
        self.paid_at = self.paid_at.max(now).saturating_add(self.time_of(cost));
        cost
    }

    /// How long the share takes to bring so much.
    fn time_of(&self, cost: Span) -> Span {
        let time = (cost.wide() * u128::from(WHOLE)).div_ceil(u128::from(self.share));
        Span::from_wide(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    /// What somebody gets in a second who always wants more.
    fn used(share: u64, burst: u64, cost: u64) -> u64 {
        let (burst, cost) = (Span::from_nanos(burst), Span::from_nanos(cost));
        let end = Moment::ZERO.saturating_add(Span::from_nanos(SECOND));
        let (mut budget, mut now, mut used) = (Budget::new(share, burst), Moment::ZERO, Span::ZERO);
        while now < end {
            if budget.has(now) {
                used += budget.pay(now, cost);
                now = now.saturating_add(cost);
            } else {
                assert!(budget.refilled_at(Span::ZERO) > now);
                now = budget.refilled_at(Span::ZERO);
                assert!(budget.has(now), "there is something when it says so");
            }
        }
        used.as_nanos()
    }

    proptest! {
        #[test]
        fn who_always_wants_more_gets_its_share_and_a_burst(
            share in 1_u64..1000,
            burst in 1_000_u64..5_000_000,
            cost in 500_u64..50_000,
        ) {
            let most = SECOND / WHOLE * share + burst + 2 * cost + WHOLE;
            let used = used(share, burst, cost);
            let least = (most * 9 / 10).min(SECOND * 9 / 10);
            prop_assert!((least..=most).contains(&used), "{used} {most}");
        }
    }

    #[test]
    fn a_machine_that_stood_still_costs_nobody_his_budget() {
        let mut budget = Budget::new(100, Span::from_millis(2));
        budget.pay(Moment::ZERO, Span::from_secs(10));
        assert!(
            !budget.has(Moment::ZERO) && budget.has(Moment::from_nanos(1)),
            "it has lost a burst and not more"
        );
    }

    #[test]
    fn who_has_waited_long_has_its_burst_and_not_more() {
        let mut budget = Budget::new(10, Span::from_millis(1));
        let hour = Moment::from_nanos(3_600 * SECOND);
        let times = (0..).take_while(|_| {
            let has = budget.has(hour);
            budget.pay(hour, Span::from_micros(100));
            has
        });
        assert_eq!(times.count(), 10);
    }
}
