//! What a vCPU takes of the slack, and where it belongs while it may not run on its guarantee.

use moirai_scheduler::{Amount, Moment, Service};

use super::Vcpu;
use crate::kernel::{Threads, nice};

/// Where a vCPU is while it may not run on its guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// In the kernel's fair class, at this nice level.
    Fair(i32),
    /// Stopped at its gate.
    Gate,
}

impl<T> Vcpu<T> {
    /// Takes what it used and nobody has booked, with the account that pays.
    pub(crate) fn book(&mut self, scheduling: bool) -> Option<(Service, Amount)> {
        let used = Some(self.accounts.take_unbooked()).filter(|&used| used > Amount::ZERO)?;
        // Who has no part in the slack pays for what it took on its way to the gate.
        let stopped = self.ends_at_gate() && self.is_gated();
        if self.rank().is_some() || stopped && scheduling {
            return Some((Service::Guaranteed, used));
        }
        if let Some(weight) = self.contract.extra() {
            self.share.book(used, weight);
        }
        Some((Service::Extra, used))
    }

    /// Applies the rules of the slack where the floor is known; how far it is ahead, if it yields.
    pub(crate) fn settle_share(&mut self, floor: Amount) -> Option<Amount> {
        self.share.settle(self.wants_slack, floor);
        self.share.yields().then(|| self.share.lead(floor))
    }

    /// Where it belongs if it may not run now; without `scheduling`, in the fair class.
    pub(crate) fn place_of_rest(&self, scheduling: bool) -> Rest {
        match self.contract.extra() {
            _ if !scheduling => Rest::Fair(0),
            Some(_) if self.share.yields() => Rest::Gate,
            Some(weight) => Rest::Fair(nice(weight)),
            // To stop a sleeper at its gate is to wake it. It is stopped when it is seen to run.
            None if self.is_asleep() && !self.is_gated() => Rest::Fair(0),
            None => Rest::Gate,
        }
    }
}

impl<T: Threads> Vcpu<T> {
    /// Asks whether it would take slack now, or will when its slice is used up; if so, its virtual
    /// time.
    pub(crate) fn ask_for_slack(&mut self, now: Moment) -> Option<Amount> {
        self.wants_slack = if self.rank().is_some() {
            !self.is_asleep() && self.share.wanted()
        } else {
            // Nobody sees whether one that stands at its gate would.
            let wants = self.share.yields()
                || self.used() > Amount::ZERO
                || self.is_runnable(now).unwrap_or(false);
            if wants {
                self.share.note_wanted();
            }
            wants
        };
        self.wants_slack.then(|| self.share.virtual_time())
    }
}
