//! What tells one policy with budgets from another. *When* a budget changes is in
//! [`crate::reserve`].

use crate::budget::Budget;
use crate::contract::Contract;
use crate::time::{Amount, Moment, Span};

/// How a policy changes the budget of one client.
pub(crate) trait Rules: Send {
    /// The client, asleep until now, has work again. `awake` is already set.
    fn wake(&self, budget: &mut Budget, now: Moment);

    /// The next slice is due.
    fn refill(&self, budget: &mut Budget, now: Moment) {
        budget.release_due(now);
    }

    /// The contracts are these from now on.
    fn reckon(&mut self, contracts: &mut dyn Iterator<Item = Contract>) {
        let _ = contracts;
    }

    /// The blocking term of the resource.
    fn set_blocking(&mut self, blocking: Amount) {
        let _ = blocking;
    }

    /// How long a client without work keeps its place, in nanoseconds.
    fn laxity(&self) -> Span {
        Span::ZERO
    }

    /// Whether units are paid for when the device gets them, not when they are back.
    fn charges_at_hand_out(&self) -> bool {
        false
    }

    /// What a sleeper would have if it woke at `now`.
    fn woken(&self, budget: &Budget, now: Moment) -> Budget {
        let mut woken = budget.clone();
        self.wake(&mut woken, now);
        woken
    }
}
