//! Atropos, the default policy: earliest deadline first among the owed, weighted fair slack.
//!
//! The rules for a client with contract `(p, s, D, x)`, deadline `d`, next refill `nr`, rest of the
//! slice `r` (all in integer nanoseconds), at time `t`:
//!
//! 1. **Wake** after a sleep. At or after `d`: if `t >= nr` a slice is released at `t`, else the
//!    rest is forfeit and the client waits until `nr`. Before `d` the rest is cut to the larger of
//!    - `s*(d-t)/D`, what a server of bandwidth `s/D` can still use (the revised wake-up rule of
//!      constant-bandwidth servers; Abeni, Lipari, Parri and Sun 2015), if the bandwidths of all
//!      clients and the blocking fit together (below), and
//!    - `r - slept - B`, or `r0 - (t - released) - B` if that is more: what would be left had the
//!      client burned the resource instead of sleeping, or ever since its slice `r0` was released;
//!      `B` the blocking term ([`Policy::set_blocking`]).
//! 2. **Refill** at `nr`: `r = min(s, r + s)` if `r < 0`, else `s`; `d = start + D`;
//!    `nr = start + p`. Whole periods that passed without a decision are skipped and, if the client
//!    was awake, recorded as stall loss: no burst after a stall of the host.
//! 3. **Pick** the runnable client with the earliest `d` (ties: lower id) until it has used `r` or
//!    the next refill of anybody; else the slack client with the least weighted virtual time.
//! 4. **Charge**: guaranteed service lowers `r`, below zero if the unit was longer (debt); slack
//!    service only advances the virtual time. A unit for a device pays its estimate when it is
//!    handed out, and is settled when it is back (`budget/units.rs`): so a slice is overdrawn by
//!    one unit at most, however deep the device is. A client whose last units are inside keeps its
//!    place until it is known what they cost.
//!
//! Why two bounds. The first is sound only if the set would pass by density,
//! `sum s_i/D_i + (n+1)*B/min D_i <= 1`: exact admission takes denser sets, and in those a sleeper
//! that wakes close to its deadline with a fair rest makes *others* late. The second is sound in
//! every admitted set: had the client burned the resource instead of sleeping, it would have
//! `r - slept` left, and everybody else would be no better off than now; a unit that got in during
//! the sleep costs at most `B` more. It also means that a client that pauses for a moment between
//! two requests loses that moment, not its slice (flaw F2). Proof in docs/design/0002.
//!
//! With [`Ranked::ranks`](crate::Ranked::ranks) a sleeper is ranked with what rule 1 would give it
//! now, so that a kernel that switches to it when it wakes does what rule 3 says. A unit in the
//! device keeps its client from counting as asleep: sleep begins at `block` or when its last unit
//! is back, whichever is later. If it wakes before that, `B` is taken off all the same where
//! another client's unit was handed out in between.
//!
//! 5. **Wake again** within a slice: the wake-up is paid from it ([`Policy::set_wake_cost`]).
//!
//! For owners of a resource with a deep queue: while the device is full there is nothing to pick,
//! so a [`Policy::timeout`] that has passed means nothing until a unit ends.

use crate::budget::Budget;
use crate::contract::Contract;
use crate::policy::{
    Account, ClientId, ClientState, Head, Miss, Pick, Policy, PolicyError, Rank, Service, Ticket,
};
use crate::reserve::Reserve;
use crate::rules::Rules;
use crate::time::{Amount, Moment, Span};

/// The default policy. See the module for its rules.
#[derive(Debug)]
pub struct Atropos(Reserve<Revised>);

/// The rules of the module, and what rule 1 must know of the whole set.
#[derive(Debug)]
pub(crate) struct Revised {
    blocking: Amount,
    /// The set passes by density.
    sparse: bool,
    /// The shortest relative deadline.
    shortest: Span,
}

impl Rules for Revised {
    fn wake(&self, budget: &mut Budget, now: Moment) {
        if now >= budget.refill {
            budget.release_at_wake(now);
        } else if now >= budget.deadline {
            budget.forfeit();
        } else if budget.left > 0 {
            let until = budget.deadline.since(now);
            let since = budget.asleep_since.max(budget.released);
            // While units of its own are inside it does not sleep, but others may have got in.
            let slept = if budget.in_flight > 0 { Span::ZERO } else { now.since(since) };
            let alone = slept.is_zero() && !budget.intruded;
            let blocking = if alone { Amount::ZERO } else { self.blocking };
            let passed = now.since(budget.released);
            let burned = |amount: i64, time: Span| {
                amount.saturating_sub(time.service().saturating_add(blocking).signed())
            };
            let kept = burned(budget.left, slept).max(burned(budget.granted, passed));
            let fair = if self.sparse { fair_rest(budget.contract, until) } else { 0 };
            // With blocking, a short rest of a period is no promise: one unit may outlast it.
            let promised =
                alone || self.blocking.is_zero() || self.sparse && until >= self.shortest;
            budget.cut(fair.max(kept), promised, now);
        }
    }

    fn reckon(&mut self, contracts: &mut dyn Iterator<Item = Contract>) {
        const DIGITS: u32 = 60;
        let mut density = 0u128;
        let mut clients = 1u128;
        self.shortest = Span::MAX;
        for contract in contracts.filter(|contract| contract.slice() > Amount::ZERO) {
            let slice = contract.slice().wide() << DIGITS;
            let own = slice.div_ceil(contract.deadline().wide().max(1));
            density = density.saturating_add(own);
            clients = clients.saturating_add(1);
            self.shortest = self.shortest.min(contract.deadline());
        }
        let blocking = self.blocking.wide().saturating_mul(clients).min(u64::MAX.into());
        let blocking = (blocking << DIGITS).div_ceil(self.shortest.wide().max(1));
        // Equal parts of the whole may be rounded up to a little more than it.
        let rounding = clients;
        self.sparse =
            density.saturating_add(blocking) <= (1u128 << DIGITS).saturating_add(rounding);
    }

    fn set_blocking(&mut self, blocking: Amount) {
        self.blocking = blocking;
    }

    fn charges_at_hand_out(&self) -> bool {
        true
    }
}

/// `s*(d-t)/D`, rounded down.
fn fair_rest(contract: Contract, until: Span) -> i64 {
    let product = contract.slice().wide().saturating_mul(until.wide());
    let fair = product.checked_div(contract.deadline().wide()).unwrap_or(0);
    i64::try_from(fair).unwrap_or(i64::MAX)
}

impl Atropos {
    /// A policy for at most `capacity` clients.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self(Reserve::new(
            Revised { blocking: Amount::ZERO, sparse: true, shortest: Span::MAX },
            capacity,
        ))
    }
}

crate::delegate::delegate_policy!(Atropos);
