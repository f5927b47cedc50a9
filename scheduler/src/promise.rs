//! What is promised to one client until its next deadline, and whether it was kept.
//!
//! From a wake-up or a refill on, the rest of the slice is promised by its deadline `d`
//! ([`Promise::open`]). The promise is broken
//! 1. if the client still wants service after `d` and some of the rest was not given: not served by
//!    `d` where service can be preempted, not handed to the device by `d` where it cannot; or
//! 2. if a unit that was handed out of a promised slice comes back after `d`, also while its client
//!    has no other work.
//!
//! A slice is missed once at most. Where service is charged after it was given, a slice that was
//! not used up when the next one is released is only in *doubt*: service that is still being given
//! may show that it was in time.

use crate::policy::Ticket;
use crate::time::{Amount, Moment, Span};

/// A broken promise, before it has a client's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) since: Moment,
    pub(crate) deadline: Moment,
    pub(crate) late: Span,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Moment,
    deadline: Moment,
    left: i64,
}

/// The promise to one client. Slices are told apart by their number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    /// What is left of the slice is promised.
    open: bool,
    since: Moment,
    slice: u64,
    /// The last slice of which a miss was counted.
    missed: u64,
    doubt: Option<Doubt>,
    /// Found since they were last taken; one call finds two at most.
    found: [Option<Found>; 2],
}

impl Promise {
    /// Slice number `slice` is promised from `now` on.
    pub(crate) fn make(&mut self, slice: u64, now: Moment) {
        (self.open, self.since, self.slice) = (true, now, slice);
    }

    /// Nothing is promised before the next release: the rest was given up.
    pub(crate) fn void(&mut self) {
        self.open = false;
    }

    /// At a time when all service is charged: `left` of the slice due at `deadline` is there, and
    /// the client wants it or not.
    pub(crate) fn judge(&mut self, wanting: bool, left: i64, deadline: Moment, now: Moment) {
        if self.open && now > deadline {
            self.open = false;
            if wanting && left > 0 {
                self.miss(self.slice, self.since, deadline, Amount::from_signed(left).time());
            }
        }
    }

    /// All service was charged: what was in doubt is none any more.
    pub(crate) fn resolve(&mut self) {
        self.settle_doubt(false);
    }

    /// The next slice is released while `left` is there of one that was wanted until now. `exact`:
    /// all service was charged.
    pub(crate) fn supersede(&mut self, left: i64, deadline: Moment, exact: bool) {
        if !self.open || left <= 0 {
            return;
        }
        self.settle_doubt(false);
        if exact {
            self.miss(self.slice, self.since, deadline, Amount::from_signed(left).time());
        } else {
            self.doubt = Some(Doubt { since: self.since, deadline, left });
        }
        self.open = false;
    }

    /// `cost` was served until `now`, if service went on without a break; before it, `left` was
    /// there.
    pub(crate) fn served(
        &mut self,
        wanting: bool,
        cost: Amount,
        left: i64,
        deadline: Moment,
        now: Moment,
    ) {
        let before = |deadline: Moment| cost.saturating_sub(now.since(deadline).service()).signed();
        if let Some(doubt) = self.doubt {
            self.settle_doubt(before(doubt.deadline) >= doubt.left);
        }
        if wanting && now > deadline {
            self.judge(true, left.saturating_sub(before(deadline)), deadline, now);
        }
    }

    /// What a ticket says of the promise.
    pub(crate) fn due(&self, deadline: Moment) -> Option<Moment> {
        self.open.then_some(deadline)
    }

    /// A unit came back.
    pub(crate) fn returned(&mut self, ticket: &Ticket, now: Moment) {
        if let Some(due) = ticket.due
            && now > due
        {
            self.miss(ticket.slice, ticket.since, due, now.since(due));
        }
    }

    /// Since when the present promise is.
    pub(crate) fn since(&self) -> Moment {
        self.since
    }

    /// Whether what is left is promised.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// What was found.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Found> + use<> {
        core::mem::take(&mut self.found).into_iter().flatten()
    }

    /// Whether something was found.
    pub(crate) fn has_found(&self) -> bool {
        self.found.iter().any(Option::is_some)
    }

    fn settle_doubt(&mut self, kept: bool) {
        if let Some(Doubt { since, deadline, left }) = self.doubt.take()
            && !kept
        {
            // A doubt is about an earlier slice than any that can be missed later.
            self.note(Found { since, deadline, late: Amount::from_signed(left).time() });
        }
    }

    fn miss(&mut self, slice: u64, since: Moment, deadline: Moment, late: Span) {
        if slice > self.missed {
            self.missed = slice;
            self.note(Found { since, deadline, late });
        }
    }

    fn note(&mut self, found: Found) {
        if let Some(place) = self.found.iter_mut().find(|place| place.is_none()) {
            *place = Some(found);
        }
    }
}
