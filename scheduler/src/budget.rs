//! What is owed to one client: the runtime state of a contract.
//!
//! Owns deadline, next refill and what is left of the slice of *one* client, and its account. The
//! rules that change them differ between policies (`atropos`, `nemesis`, ...) and stand there; here
//! is what they share: how a slice is released, how service is booked, when a deadline was missed.
//! [`crate::reserve`] keeps many budgets in order.

use crate::contract::{Contract, Nanos};
use crate::policy::{Account, Service};

/// A client without work that the resource waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Not longer than this.
    pub(crate) until: Nanos,
    /// It was first in order, and nobody else was served, from then on.
    pub(crate) since: Option<Nanos>,
}

/// Runtime state of a contract. All times absolute, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub(crate) contract: Contract,
    /// What was promised; `contract` differs from it where a policy scales.
    pub(crate) natural: Contract,
    /// Takes effect when the next slice is released.
    pub(crate) next: Option<Contract>,
    /// `d`: the current slice is due then. Never decreases.
    pub(crate) deadline: Nanos,
    /// `nr`: the next slice is released then.
    pub(crate) refill: Nanos,
    /// When the current slice was released.
    pub(crate) released: Nanos,
    /// What the current slice had at its release: the slice less debt.
    pub(crate) granted: i64,
    /// `r`: what is left of the slice; negative: debt.
    pub(crate) left: i64,
    /// The client has work.
    pub(crate) awake: bool,
    /// Since when it has none and nothing of it is being served.
    pub(crate) asleep_since: Nanos,
    /// While it has none: until when it keeps its place all the same (laxity), and since when the
    /// resource waits for it.
    pub(crate) held: Option<Held>,
    /// Whether the current slice can no longer be missed: it was given, missed, or given up.
    judged: bool,
    /// A slice that was not used up when the next one was released: its deadline and the rest.
    /// Service that is still being given may show that it was not late.
    doubt: Option<(Nanos, i64)>,
    pub(crate) account: Account,
}

/// Nanoseconds as a signed amount; no contract is long enough to be cut.
pub(crate) fn signed(time: Nanos) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

impl Budget {
    pub(crate) fn new(contract: Contract, now: Nanos) -> Self {
        Self {
            contract,
            natural: contract,
            next: None,
            deadline: 0,
            refill: 0,
            released: now,
            granted: 0,
            left: 0,
            awake: false,
            asleep_since: now,
            held: None,
            judged: true,
            doubt: None,
            account: Account::default(),
        }
    }

    /// Whether the client is owed service now.
    pub(crate) fn runnable(&self) -> bool {
        (self.awake || self.held.is_some()) && self.left > 0
    }

    /// Whether no slice was released yet.
    pub(crate) fn fresh(&self) -> bool {
        self.account.refills == 0
    }

    /// Gives the client another contract: at the next release, or at once if the old one owes
    /// nothing and so has no release.
    pub(crate) fn change(&mut self, contract: Contract) {
        self.natural = contract;
        if self.contract.slice() == 0 {
            self.contract = contract;
        } else {
            self.next = Some(contract);
        }
    }

    /// Releases a slice at `start`. `skipped` whole periods before it passed without a release;
    /// each would have repaid a slice of debt, none is made up for.
    pub(crate) fn release(&mut self, start: Nanos, skipped: u64) {
        if self.awake && !self.judged && self.left > 0 {
            self.settle_doubt(false);
            self.doubt = Some((self.deadline, self.left));
        }
        if let Some(next) = self.next.take() {
            self.contract = next;
        }
        let slice = i128::from(self.contract.slice());
        let debt = i128::from(self.left.min(0));
        let released = slice.saturating_mul(i128::from(skipped).saturating_add(1));
        let left = debt.saturating_add(released).min(slice);
        if self.awake {
            let lost = released.saturating_sub(left.saturating_sub(debt));
            let lost = Nanos::try_from(lost).unwrap_or(Nanos::MAX);
            self.account.stall_loss = self.account.stall_loss.saturating_add(lost);
        }
        // Within i64: between a debt that was an i64 and a slice of at most an hour.
        self.left = i64::try_from(left).unwrap_or(i64::MIN);
        self.granted = self.left;
        self.judged = self.left <= 0;
        self.released = start;
        self.deadline = self.deadline.max(start.saturating_add(self.contract.deadline()));
        self.refill = start.saturating_add(self.contract.period());
        self.account.refills = self.account.refills.saturating_add(1);
    }

    /// Releases the slice whose time has come by `now`, at the last period boundary that passed.
    pub(crate) fn release_due(&mut self, now: Nanos) {
        if self.fresh() {
            return self.release(now, 0);
        }
        let late = now.saturating_sub(self.refill);
        let period = self.next.unwrap_or(self.contract).period();
        let skipped = late.checked_div(period).unwrap_or(0);
        let start = self.refill.saturating_add(skipped.saturating_mul(period));
        self.release(start, skipped);
    }

    /// Books service that was given until `now`.
    pub(crate) fn book(&mut self, service: Service, cost: Nanos, now: Nanos) {
        if !self.awake {
            self.asleep_since = self.asleep_since.max(now);
        }
        let account = match service {
            Service::Guaranteed => &mut self.account.guaranteed,
            Service::Extra => &mut self.account.extra,
        };
        *account = account.saturating_add(cost);
    }

    /// Takes `cost` out of the slice and judges deadlines that have passed by `now`.
    pub(crate) fn spend(&mut self, cost: Nanos, now: Nanos) {
        // What was given before an instant, if service went on without a break until `now`.
        let before = |deadline: Nanos| signed(cost.saturating_sub(now.saturating_sub(deadline)));
        if let Some((deadline, left)) = self.doubt {
            self.settle_doubt(before(deadline) >= left);
        }
        if self.awake && !self.judged && now > self.deadline {
            self.judged = true;
            if before(self.deadline) < self.left {
                self.account.misses = self.account.misses.saturating_add(1);
            }
        }
        self.left = self.left.saturating_sub(signed(cost));
        self.judged |= self.left <= 0;
    }

    /// Releases a slice at a wake-up at or after the refill. Periods slept through repaid debt.
    pub(crate) fn release_at_wake(&mut self, now: Nanos) {
        if self.left < 0 {
            let late = now.saturating_sub(self.refill);
            let slept = late.checked_div(self.contract.period()).unwrap_or(0);
            let repaid = u128::from(self.contract.slice()).saturating_mul(u128::from(slept));
            let repaid = i64::try_from(repaid).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(repaid).min(0);
        }
        // Whatever was left before the sleep was given up, not missed.
        self.judged = true;
        self.release(now, 0);
    }

    /// Lowers the rest of the slice to `left`; a client that slept cannot ask for more. It still has
    /// the promise for this rest, or not.
    pub(crate) fn cut(&mut self, left: i64, promised: bool) {
        self.left = self.left.min(left);
        self.judged = !promised || self.left <= 0;
    }

    /// Pays for a wake-up that did not release a slice: the switches of the first one are admitted with
    /// the slice, those of all others are its own doing.
    pub(crate) fn pay_wake(&mut self, cost: Nanos) {
        if self.left > 0 && cost > 0 {
            self.left = self.left.saturating_sub(signed(cost));
            self.granted = self.granted.saturating_sub(signed(cost));
            self.judged |= self.left <= 0;
        }
    }

    /// Gives up what is left of the slice; debt stays.
    pub(crate) fn forfeit(&mut self) {
        self.left = self.left.min(0);
        self.judged = true;
    }

    /// Ends the waiting for a client, which pays for it.
    pub(crate) fn unhold(&mut self, now: Nanos) -> Option<Held> {
        let held = self.held.take()?;
        if let Some(since) = held.since {
            self.left = self.left.saturating_sub(signed(now.saturating_sub(since)));
        }
        Some(held)
    }

    fn settle_doubt(&mut self, kept: bool) {
        if self.doubt.take().is_some() && !kept {
            self.account.misses = self.account.misses.saturating_add(1);
        }
    }
}
