//! The latency scaling of Xen 2.0's atropos, with its flaws.
//!
//! A contract's deadline `D` is read as the latency hint `l`.
//!
//! 1. **Long unblock**, at or after the deadline: the contract is scaled down to period `l` and
//!    slice `s / (p / l)`, both divisions cutting off; `d = nr = t + l`.
//! 2. **Short unblock**, before the deadline: the client waits for its next period.
//! 3. **Refill** at `d`: period and slice double until the period is the natural one again, which
//!    then holds with its natural slice.
//! 4. **Pick**, **charge**, slack: as [`crate::atropos`].
//!
//! Flaw F3: `p / l` cuts off, so a client with `l` just above `p/2` keeps nearly all of its slice
//! in nearly half its period: its rate doubles. The original also divided by zero for `l > p`; a
//! [`Contract`] has no such deadline. A scaled slice is cut to its period, where the original
//! promised more than the whole resource.

use crate::budget::Budget;
use crate::contract::Contract;
use crate::policy::{
    Account, ClientId, ClientState, Head, Miss, Pick, Policy, PolicyError, Rank, Service, Ticket,
};
use crate::reserve::Reserve;
use crate::rules::Rules;
use crate::time::{Amount, Moment, Span};

/// The policy of Xen 2.0. See the module for its rules.
#[derive(Debug)]
pub struct Xen(Reserve<Scaling>);

#[derive(Debug)]
pub(crate) struct Scaling;

/// `natural` with another period and slice; the natural one if that is no contract.
fn scaled(natural: Contract, period: Span, slice: Amount) -> Contract {
    Contract::new(period, slice.min(period.service()), period, natural.extra()).unwrap_or(natural)
}

impl Rules for Scaling {
    fn wake(&self, budget: &mut Budget, now: Moment) {
        if now < budget.deadline {
            return budget.forfeit();
        }
        let natural = budget.natural;
        let latency = natural.deadline();
        let parts = natural.period().checked_div(latency).unwrap_or(1).max(1);
        let slice = Amount::from_nanos(natural.slice().as_nanos().checked_div(parts).unwrap_or(0));
        budget.next = Some(scaled(natural, latency, slice));
        budget.release_at_wake(now);
    }

    fn refill(&self, budget: &mut Budget, now: Moment) {
        let (natural, current) = (budget.natural, budget.contract);
        let period = current.period().saturating_mul(2);
        budget.next = Some(if period >= natural.period() {
            scaled(natural, natural.period(), natural.slice())
        } else {
            scaled(natural, period, current.slice().saturating_mul(2))
        });
        budget.release_due(now);
    }
}

impl Xen {
    /// A policy for at most `capacity` clients.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self(Reserve::new(Scaling, capacity))
    }
}

crate::delegate::delegate_policy!(Xen);
