//! The classic rules of the Nemesis CPU scheduler, with its flaws.
//!
//! The papers (003; Leslie et al. 1996; Roscoe 1995) used them, and our proof shows what is wrong
//! with them. A contract's deadline `D` is read as the latency hint `l`; there is no other use of
//! it.
//!
//! 1. **Long unblock**, at or after the deadline: `d = nr = t + l`, `r = s`.
//! 2. **Short unblock**, before the deadline: the client waits for its next period.
//! 3. **Refill** at `d`: `r = s` (less debt), `d = nr = start + p`.
//! 4. **Pick**, **charge**, slack: as [`crate::atropos`].
//!
//! Flaws: rule 1 gives `s` for every `l` to a client that runs `s` and then sleeps past `d` (F1);
//! rule 2 takes the slice of a client that pauses for a moment (F2).

use crate::budget::Budget;
use crate::contract::Contract;
use crate::policy::{
    Account, ClientId, ClientState, Head, Miss, Pick, Policy, PolicyError, Rank, Service, Ticket,
};
use crate::reserve::Reserve;
use crate::rules::Rules;
use crate::time::{Amount, Moment};

/// The classic Nemesis policy. See the module for its rules.
#[derive(Debug)]
pub struct Nemesis(Reserve<LongShort>);

#[derive(Debug)]
pub(crate) struct LongShort;

impl Rules for LongShort {
    fn wake(&self, budget: &mut Budget, now: Moment) {
        if now >= budget.deadline {
            budget.release_at_wake(now);
            budget.refill = budget.deadline;
        } else {
            budget.forfeit();
        }
    }

    fn refill(&self, budget: &mut Budget, now: Moment) {
        budget.release_due(now);
        budget.deadline = budget.deadline.max(budget.refill);
    }
}

impl Nemesis {
    /// A policy for at most `capacity` clients.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self(Reserve::new(LongShort, capacity))
    }
}

crate::delegate::delegate_policy!(Nemesis);
