//! The rules of the user-safe disk (Barham 1997), with laxity and its flaws.
//!
//! 1. **Wake**: at or after the refill a slice is released; before, the client waits for its next
//!    period, unless rule 2 still holds its place.
//! 2. **Laxity**: a client whose queue runs empty with some slice left keeps its place for `l`. If
//!    it is first in order meanwhile, *nobody* is served and the client pays for the time. After
//!    `l` the rest of its slice is forfeit.
//! 3. **Refill**, **pick**, **charge**, slack: as [`crate::atropos`].
//!
//! Laxity was made for clients with one request at a time, whose next request comes a moment after
//! the last one ended. Flaw F7: while the disk waits, `l` blocks everybody, and admission must know
//! it: a blocking term of `max(C_max, l_max)`.

use crate::budget::Budget;
use crate::contract::Contract;
use crate::policy::{
    Account, ClientId, ClientState, Head, Miss, Pick, Policy, PolicyError, Rank, Service, Ticket,
};
use crate::reserve::Reserve;
use crate::rules::Rules;
use crate::time::{Amount, Moment, Span};

/// The laxity of policies made by name, in nanoseconds.
pub const USD_LAXITY: Span = Span::from_millis(2);

/// The user-safe disk's policy. See the module for its rules.
#[derive(Debug)]
pub struct Usd(Reserve<Lax>);

#[derive(Debug)]
pub(crate) struct Lax {
    laxity: Span,
}

impl Rules for Lax {
    fn wake(&self, budget: &mut Budget, now: Moment) {
        if now >= budget.refill {
            budget.release_at_wake(now);
        } else {
            budget.forfeit();
        }
    }

    fn laxity(&self) -> Span {
        self.laxity
    }
}

impl Usd {
    /// A policy for at most `capacity` clients, each with this `laxity` in nanoseconds.
    #[must_use]
    pub const fn new(capacity: usize, laxity: Span) -> Self {
        Self(Reserve::new(Lax { laxity }, capacity))
    }
}

crate::delegate::delegate_policy!(Usd);
