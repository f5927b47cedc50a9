//! Units of one client in a device: its slice pays when they are handed out and is settled when
//! they are back.
//!
//! 1. A unit is paid for by the slice that it was handed out of, with its estimate.
//! 2. What it has cost more than that is taken from the present slice.
//! 3. What it has cost less goes back to its slice. If that is over, it repays what the present
//!    slice lacks because of it, and no more: a slice never becomes longer than the contract says.
//!    If the slice was cut by a wake-up since, nothing goes back: the cut was all that could be
//!    used without making others late.

use super::Budget;
use crate::policy::{ClientId, Service, Ticket};
use crate::time::{Amount, Moment};

impl Budget {
    /// A unit goes to the device.
    pub(crate) fn hand_out(
        &mut self,
        client: ClientId,
        service: Service,
        estimate: Amount,
        now: Moment,
    ) -> Ticket {
        self.judge(now);
        self.in_flight = self.in_flight.saturating_add(1);
        let mut due = None;
        if service == Service::Guaranteed && self.contract.slice() > Amount::ZERO {
            due = self.promise.due(self.deadline);
            self.left = self.left.saturating_sub(estimate.signed());
            self.reserved = self.reserved.saturating_add(estimate);
        }
        let (slice, since) = (self.account.refills, self.promise.since());
        Ticket { client, service, estimate, due, slice, since, cuts: self.cuts, holds: true }
    }

    /// A unit may never come back.
    pub(crate) fn overdue(&mut self, ticket: &mut Ticket, now: Moment) {
        self.judge(now);
        self.promise.returned(ticket, now);
        self.let_go(ticket);
    }

    /// Whether what a ticket gives back belongs to the present slice, uncut.
    fn owns(&self, ticket: &Ticket) -> bool {
        let guaranteed = ticket.service == Service::Guaranteed;
        guaranteed && ticket.slice == self.account.refills && ticket.cuts == self.cuts
    }

    /// The place is not kept for this unit any more.
    fn let_go(&mut self, ticket: &mut Ticket) {
        if core::mem::take(&mut ticket.holds) && self.owns(ticket) {
            self.reserved = self.reserved.saturating_sub(ticket.estimate);
        }
    }

    /// A unit is back and has cost `cost`.
    pub(crate) fn settle(&mut self, ticket: &mut Ticket, cost: Amount, now: Moment) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if ticket.service == Service::Extra || self.contract.slice() == Amount::ZERO {
            return;
        }
        self.judge(now);
        self.promise.returned(ticket, now);
        self.let_go(ticket);
        let Some(back) = ticket.estimate.checked_sub(cost) else {
            let more = cost.saturating_sub(ticket.estimate);
            self.left = self.left.saturating_sub(more.signed());
            return;
        };
        if self.owns(ticket) {
            self.left = self.left.saturating_add(back.signed());
        } else if ticket.slice < self.account.refills && self.cuts == self.cuts_at_release {
            let lacks = self.contract.slice().signed().saturating_sub(self.granted).max(0);
            let back = back.signed().min(lacks);
            self.left = self.left.saturating_add(back);
            self.granted = self.granted.saturating_add(back);
        }
    }
}
