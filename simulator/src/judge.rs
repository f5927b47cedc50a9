//! An omniscient judge: sees every call to a policy and what was served, and says what a user would
//! call a miss. It shares no code with the counters; [`crate::proof`] compares the two.
//!
//! A promise is what the policy says is left of a slice, by its deadline, from a wake-up or a
//! refill on. It is broken if its client wanted service all the time and, at the deadline,
//! - on a resource that can be preempted: less of it was served than was promised;
//! - on one with whole units: some of it was not handed out, or a unit of it is still inside.

use std::collections::VecDeque;

use moirai_scheduler::{Amount, ClientState, Moment, Service};

/// What is promised to one client now.
#[derive(Clone, Copy, Debug)]
struct Promise {
    slice: u64,
    due: Moment,
    /// What was left when it was made.
    amount: i64,
    /// What was left after the last call that was not later than `due`.
    left: i64,
    /// Guaranteed service given since, not later than `due`.
    served: Amount,
}

/// What is known of one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judge {
    promise: Option<Promise>,
    /// Units inside: the slice they are of and its deadline, if they are promised.
    inside: VecDeque<Option<(u64, Moment)>>,
    units: bool,
    slice: u64,
    missed: u64,
    pub(crate) misses: u64,
}

impl Judge {
    /// Before a call at `now`: deadlines that have passed are judged. `wanting`: the client has had
    /// work until now.
    pub(crate) fn before(&mut self, wanting: bool, now: Moment) {
        if let Some(promise) = self.promise.filter(|promise| now > promise.due) {
            self.promise = None;
            if wanting {
                self.decide(promise);
            }
        }
    }

    /// After a call at `now`: what the policy says of an awake client, and how many slices it has
    /// had.
    pub(crate) fn after(&mut self, state: ClientState, slices: u64, woke: bool, now: Moment) {
        let renewed = slices != self.slice;
        if renewed && let Some(promise) = self.promise.take().filter(|it| it.due <= now) {
            self.decide(promise);
        }
        self.slice = slices;
        if renewed || woke {
            let (due, left) = (state.deadline, state.left);
            let promise = Promise { slice: slices, due, amount: left, left, served: Amount::ZERO };
            // A refill that was late by more than `D`, after a stall: that slice is missed already.
            let missed = !woke && left > 0 && now > due;
            if missed {
                self.miss(slices);
            }
            self.promise = Some(promise).filter(|_| state.promised && !missed);
        } else if let Some(promise) = self.promise.as_mut().filter(|promise| now <= promise.due) {
            promise.left = state.left;
        }
    }

    /// The client has no work any more: what is not begun of the promise is given up.
    pub(crate) fn sleeps(&mut self) {
        self.promise = None;
    }

    /// Guaranteed service from `start` to `end` that could be preempted.
    pub(crate) fn served(&mut self, start: Moment, end: Moment) {
        if let Some(promise) = &mut self.promise {
            promise.served += end.min(promise.due).since(start.min(promise.due)).service();
        }
    }

    /// A unit goes to the device at `now`.
    pub(crate) fn handed_out(&mut self, service: Service, now: Moment) {
        self.units = true;
        let promise = self.promise.filter(|it| service == Service::Guaranteed && now <= it.due);
        self.inside.push_back(promise.map(|promise| (promise.slice, promise.due)));
    }

    /// The first unit inside is back.
    pub(crate) fn returned(&mut self, now: Moment) {
        if let Some((slice, due)) = self.inside.pop_front().flatten()
            && now > due
        {
            self.miss(slice);
        }
    }

    fn decide(&mut self, promise: Promise) {
        let served = promise.served.signed();
        let short = if self.units { promise.left } else { promise.amount - served };
        if short > 0 {
            self.miss(promise.slice);
        }
    }

    fn miss(&mut self, slice: u64) {
        if slice > self.missed {
            self.missed = slice;
            self.misses += 1;
        }
    }
}
