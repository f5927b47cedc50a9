//! What is owed to one client: the runtime state of a contract.
//!
//! Owns deadline, next refill and what is left of the slice of *one* client, and its account. The
//! rules that change them differ between policies (`atropos`, `nemesis`, ...) and stand there; here
//! is what they share: how a slice is released, how service is booked. Whether deadlines were kept
//! is judged by [`Promise`]; units in a device are in `budget/units.rs`. [`crate::reserve`] keeps
//! many budgets in order.

mod units;

use crate::contract::Contract;
use crate::policy::{Account, Service};
use crate::promise::Promise;
use crate::time::{Amount, Moment};

/// A client without work that the resource waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Not longer than this.
    pub(crate) until: Moment,
    /// It was first in order, and nobody else was served, from then on.
    pub(crate) since: Option<Moment>,
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
    pub(crate) deadline: Moment,
    /// `nr`: the next slice is released then.
    pub(crate) refill: Moment,
    /// When the current slice was released.
    pub(crate) released: Moment,
    /// What the current slice had at its release: the slice less debt.
    pub(crate) granted: i64,
    /// `r`: what is left of the slice; negative: debt.
    pub(crate) left: i64,
    /// The client has work.
    pub(crate) awake: bool,
    /// Since when it has none and nothing of it is being served.
    pub(crate) asleep_since: Moment,
    /// Laxity. While the client has no work: until when the policy keeps its place for it, and
    /// since when the resource stands idle for it.
    pub(crate) held: Option<Held>,
    /// Units that were handed to the device and are not back.
    pub(crate) in_flight: u32,
    /// What those among them were charged that can still give something back to this slice.
    reserved: Amount,
    /// Somebody's unit was handed out between the sleep and the wake-up.
    pub(crate) intruded: bool,
    /// How often a wake-up has cut a slice, now and when the slice was released.
    cuts: u64,
    cuts_at_release: u64,
    /// All service is charged before a slice is released.
    pub(crate) exact: bool,
    pub(crate) promise: Promise,
    pub(crate) account: Account,
}

impl Budget {
    pub(crate) fn new(contract: Contract, now: Moment) -> Self {
        Self {
            contract,
            natural: contract,
            next: None,
            deadline: Moment::ZERO,
            refill: Moment::ZERO,
            released: now,
            granted: 0,
            left: 0,
            awake: false,
            asleep_since: now,
            held: None,
            in_flight: 0,
            reserved: Amount::ZERO,
            intruded: false,
            cuts: 0,
            cuts_at_release: 0,
            exact: false,
            promise: Promise::default(),
            account: Account::default(),
        }
    }

    /// Whether the client is owed service now.
    pub(crate) fn runnable(&self) -> bool {
        (self.awake || self.held.is_some()) && self.left > 0
    }

    /// Whether the rest of the slice is in the device, and some of it may come back: the client
    /// keeps its place until then, or others would be served in between, once for each of its last
    /// units.
    pub(crate) fn settling(&self) -> bool {
        self.awake && self.left <= 0 && self.left.saturating_add(self.reserved.signed()) > 0
    }

    /// Whether no slice was released yet.
    pub(crate) fn fresh(&self) -> bool {
        self.account.refills == 0
    }

    /// Gives the client another contract: at the next release, or at once if the old one owes
    /// nothing and so has no release.
    pub(crate) fn change(&mut self, contract: Contract) {
        self.natural = contract;
        if self.contract.slice() == Amount::ZERO {
            self.contract = contract;
        } else {
            self.next = Some(contract);
        }
    }

    /// Releases a slice at `start`. `skipped` whole periods before it passed without a release;
    /// each would have repaid a slice of debt, none is made up for.
    pub(crate) fn release(&mut self, start: Moment, skipped: u64) {
        if self.awake {
            self.promise.supersede(self.left, self.deadline, self.exact);
        }
        if let Some(next) = self.next.take() {
            self.contract = next;
        }
        let slice = i128::from(self.contract.slice().as_nanos());
        let debt = i128::from(self.left.min(0));
        let released = slice.saturating_mul(i128::from(skipped).saturating_add(1));
        let left = debt.saturating_add(released).min(slice);
        if self.awake {
            let lost = released.saturating_sub(left.saturating_sub(debt));
            let lost = u64::try_from(lost).map_or(Amount::MAX, Amount::from_nanos);
            self.account.stall_loss = self.account.stall_loss.saturating_add(lost);
        }
        // Within i64: between a debt that was an i64 and a slice of at most an hour.
        self.left = i64::try_from(left).unwrap_or(i64::MIN);
        (self.granted, self.reserved) = (self.left, Amount::ZERO);
        self.cuts_at_release = self.cuts;
        self.released = start;
        self.deadline = self.deadline.max(start.saturating_add(self.contract.deadline()));
        self.refill = start.saturating_add(self.contract.period());
        self.account.refills = self.account.refills.saturating_add(1);
        self.promise.make(self.account.refills, start);
    }

    /// Releases the slice whose time has come by `now`, at the last period boundary that passed.
    pub(crate) fn release_due(&mut self, now: Moment) {
        if self.fresh() {
            return self.release(now, 0);
        }
        let late = now.since(self.refill);
        let period = self.next.unwrap_or(self.contract).period();
        let skipped = late.checked_div(period).unwrap_or(0);
        let start = self.refill.saturating_add(period.saturating_mul(skipped));
        self.release(start, skipped);
    }

    /// Books service that was given until `now`.
    pub(crate) fn book(&mut self, service: Service, cost: Amount, now: Moment) {
        if !self.awake {
            self.asleep_since = self.asleep_since.max(now);
        }
        let account = match service {
            Service::Guaranteed => &mut self.account.guaranteed,
            Service::Extra => &mut self.account.extra,
        };
        *account = account.saturating_add(cost);
    }

    /// Takes `cost`, served until `now`, out of the slice and judges deadlines that have passed.
    pub(crate) fn spend(&mut self, cost: Amount, now: Moment) {
        self.promise.served(self.awake, cost, self.left, self.deadline, now);
        self.left = self.left.saturating_sub(cost.signed());
    }

    /// Judges the deadline, if it has passed. All service must have been charged.
    pub(crate) fn judge(&mut self, now: Moment) {
        self.promise.judge(self.awake, self.left, self.deadline, now);
    }

    /// Releases a slice at a wake-up at or after the refill. Periods slept through repaid debt.
    pub(crate) fn release_at_wake(&mut self, now: Moment) {
        if self.left < 0 {
            let late = now.since(self.refill);
            let slept = late.checked_div(self.contract.period()).unwrap_or(0);
            let repaid = self.contract.slice().wide().saturating_mul(u128::from(slept));
            let repaid = i64::try_from(repaid).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(repaid).min(0);
        }
        // Whatever was left before the sleep was given up, not missed.
        self.promise.void();
        self.release(now, 0);
    }

    /// Lowers the rest of the slice to `left`; a client that slept cannot ask for more. What is
    /// left is promised from `now` on, or not.
    pub(crate) fn cut(&mut self, left: i64, promised: bool, now: Moment) {
        if left < self.left {
            (self.left, self.reserved) = (left, Amount::ZERO);
            self.cuts = self.cuts.saturating_add(1);
        }
        match promised {
            true => self.promise.make(self.account.refills, now),
            false => self.promise.void(),
        }
    }

    /// Pays for a wake-up that did not release a slice: the switches of the first one are admitted
    /// with the slice, those of all others are its own doing. One that has no more left than that
    /// is not switched to, and so does not pay either: it waits for its refill. (As a debt, the
    /// wake-up of a task just before its refill would be taken from the next slice, and make the
    /// task late.)
    pub(crate) fn pay_wake(&mut self, cost: Amount) {
        if self.left <= 0 || cost.is_zero() {
            return;
        }
        let cost = cost.signed();
        match self.left > cost {
            true => {
                self.left = self.left.saturating_sub(cost);
                self.granted = self.granted.saturating_sub(cost);
            }
            false => self.forfeit(),
        }
    }

    /// Gives up what is left of the slice; debt stays.
    pub(crate) fn forfeit(&mut self) {
        (self.left, self.reserved) = (self.left.min(0), Amount::ZERO);
        self.cuts = self.cuts.saturating_add(1);
        self.promise.void();
    }

    /// Ends the waiting for a client, which pays for it.
    pub(crate) fn unhold(&mut self, now: Moment) -> Option<Held> {
        let held = self.held.take()?;
        if let Some(since) = held.since {
            self.left = self.left.saturating_sub(now.since(since).service().signed());
        }
        Some(held)
    }
}
