//! The order in which clients are owed time where a kernel does the switching and tells nobody.
//!
//! | client | deadline | budget |
//! | --- | --- | --- |
//! | awake | `d` | `r` |
//! | asleep, its refill has passed | `now + D`: it floats | the slice less debt |
//! | asleep, before its refill | `d`, until that has passed | what a wake-up would leave |
//!
//! So a sleeper that wakes between two calls stands where its wake-up puts it. Deadlines that float
//! fall behind fixed ones as time goes on: the order has to be made anew when the first of them
//! does, when a sleeper gains or loses its place, and not before. Sleepers behind everybody else
//! change nothing, however many they are.
//!
//! Owns the order of the latest call of [`crate::Ranked::ranks`] and the time for which it holds.

use alloc::vec::Vec;

use crate::budget::Budget;
use crate::policy::{ClientId, Head, Rank};
use crate::time::{Amount, Moment, Span};

/// The ranked clients of one resource.
#[derive(Debug)]
pub(crate) struct Ranks {
    ranks: Vec<Rank>,
    change: Option<Moment>,
    /// The owner asks for ranks.
    asked: bool,
}

impl Ranks {
    pub(crate) const fn new() -> Self {
        Self { ranks: Vec::new(), change: None, asked: false }
    }

    /// Makes room for `clients`. The only call that allocates.
    pub(crate) fn grow(&mut self, clients: usize) {
        self.ranks.reserve(clients.saturating_sub(self.ranks.len()));
    }

    /// When the order changes although nobody wakes, sleeps or is charged; refills of those awake
    /// not counted.
    pub(crate) const fn change(&self) -> Option<Moment> {
        self.change
    }

    /// Since when a client is awake of which the owner learns it now.
    pub(crate) fn woke(&self, head: Head, asleep_since: Moment, now: Moment) -> Moment {
        if self.asked && !head.arrival.is_zero() {
            head.arrival.max(asleep_since).min(now)
        } else {
            now
        }
    }

    /// An order is made anew.
    pub(crate) fn begin(&mut self) {
        self.ranks.clear();
        self.change = None;
        self.asked = true;
    }

    /// A client with work.
    pub(crate) fn awake(&mut self, client: ClientId, budget: &Budget) {
        self.push(client, budget.deadline, budget.left, false);
    }

    /// A client without work, and what it would have if it woke at `now`.
    pub(crate) fn asleep(
        &mut self,
        client: ClientId,
        budget: &Budget,
        woken: &Budget,
        now: Moment,
    ) {
        let floats = woken.account.refills != budget.account.refills;
        self.push(client, woken.deadline, woken.left, floats);
        if !floats {
            if woken.left > 0 {
                self.expect(woken.deadline, now);
            }
            self.expect(budget.refill, now);
        } else if budget.left < 0 {
            // Every period that is slept through repays a slice of debt.
            let period = budget.contract.period();
            let passed = now.since(budget.refill).checked_div(period).unwrap_or(0);
            let next = period.saturating_mul(passed.saturating_add(1));
            self.expect(budget.refill.saturating_add(next), now);
        }
    }

    /// Sorts the ranks and finds the first floating deadline that will fall behind a fixed one.
    pub(crate) fn sort(&mut self, now: Moment) {
        self.ranks.sort_unstable_by_key(|rank| (rank.deadline, rank.client));
        let mut fixed = None;
        let mut first: Option<Moment> = None;
        for rank in self.ranks.iter().rev() {
            if !rank.floats {
                fixed = Some(rank.deadline);
            } else if let Some(fixed) = fixed {
                // A nanosecond later it is behind, whatever the ids.
                let apart = fixed.since(rank.deadline).saturating_add(Span::ONE);
                let at = now.saturating_add(apart);
                first = Some(first.map_or(at, |first| first.min(at)));
            }
        }
        if let Some(first) = first {
            self.expect(first, now);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Rank> + '_ {
        self.ranks.iter().copied()
    }

    fn push(&mut self, client: ClientId, deadline: Moment, left: i64, floats: bool) {
        let budget = Amount::from_signed(left);
        if !budget.is_zero() {
            self.ranks.push(Rank { client, deadline, budget, floats });
        }
    }

    fn expect(&mut self, at: Moment, now: Moment) {
        // The end of time is never reached.
        if at > now && at < Moment::MAX {
            self.change = Some(self.change.map_or(at, |first| first.min(at)));
        }
    }
}
