//! Atropos, the default policy: earliest deadline first among the owed, weighted fair slack.
//!
//! The rules for a client with contract `(p, s, D, x)`, deadline `d`, next refill `nr`, rest of the
//! slice `r` (all in integer nanoseconds), at time `t`:
//!
//! 1. **Wake** after a sleep. At or after `d`: if `t >= nr` a slice is released at `t`, else the
//!    rest is forfeit and the client waits until `nr`. Before `d`: `r` is cut to `s*(d-t)/D`, what a
//!    server of bandwidth `s/D` can still use (the revised wake-up rule of constant-bandwidth
//!    servers; Abeni, Lipari, Parri and Sun 2015), but never by more than the sleep was long.
//! 2. **Refill** at `nr`: `r = min(s, r + s)` if `r < 0`, else `s`; `d = start + D`;
//!    `nr = start + p`. Whole periods that passed without a decision are skipped and, if the client
//!    was awake, recorded as stall loss: no burst after a stall of the host.
//! 3. **Pick** the runnable client with the earliest `d` (ties: lower id) until it has used `r` or
//!    the next refill of anybody; else the slack client with the least weighted virtual time.
//! 4. **Charge**: guaranteed service lowers `r`, below zero if the unit was longer (debt); slack
//!    service only advances the virtual time.
//!
//! Why the cut is bounded by the sleep (the second half of rule 1): had the client burned the
//! resource instead of sleeping, it would have `r - slept` left, at a time when everybody else is
//! no worse off than now. So that rest is always safe, and a client that pauses for a moment
//! between two requests loses that moment, not its slice (flaw F2). Proof in docs/design/0002.
//!
//! With [`Policy::ranks`] slices are released to sleepers too, at fixed period boundaries, and a
//! sleeper is ranked with what rule 1 would leave it. A unit in service keeps its client from
//! counting as asleep: sleep begins at `block` or at the last charge, whichever is later.
//!
//! For owners of a resource with a deep queue: while the device is full there is nothing to pick,
//! so a [`Policy::timeout`] that has passed means nothing until a unit ends.

use crate::budget::{Budget, signed};
use crate::contract::{Contract, Nanos};
use crate::policy::{Account, ClientId, Head, Pick, Policy, PolicyError, Rank, Service};
use crate::reserve::{Reserve, Rules};

/// The default policy. See the module for its rules.
#[derive(Debug)]
pub struct Atropos(Reserve<Revised>);

/// The rules of the module.
#[derive(Debug)]
pub(crate) struct Revised;

impl Rules for Revised {
    fn wake(&self, budget: &mut Budget, now: Nanos) {
        if now >= budget.refill {
            budget.release_at_wake(now);
        } else if now >= budget.deadline {
            budget.forfeit();
        } else if budget.left > 0 {
            let contract = budget.contract;
            let until = budget.deadline.saturating_sub(now);
            let product = u128::from(contract.slice()).saturating_mul(u128::from(until));
            let fair = product.checked_div(u128::from(contract.deadline())).unwrap_or(0);
            let fair = i64::try_from(fair).unwrap_or(i64::MAX);
            let slept = now.saturating_sub(budget.asleep_since.max(budget.released));
            let kept = budget.left.saturating_sub(signed(slept));
            budget.cut(fair.max(kept));
        }
    }
}

impl Atropos {
    /// A policy for at most `capacity` clients.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self(Reserve::new(Revised, capacity))
    }
}

crate::reserve::delegate_policy!(Atropos);
