//! What disk requests cost: the time of the disk, shared by the requests that were in it.
//!
//! A disk with several requests in flight serves them at the same time; which one it worked on at a
//! moment cannot be seen. So every nanosecond in which the disk was busy is charged once, in equal
//! parts to the requests in flight: the charges add up to the busy time, whatever the depth, and a
//! tenant that keeps the disk full pays for it.

use moirai_scheduler::{ClientId, Nanos, Service};

/// Who pays for a request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payer {
    pub(super) client: ClientId,
    pub(super) service: Service,
}

/// The requests in flight on one disk, and the time up to which they have been charged.
#[derive(Debug, Default)]
pub(super) struct Meter {
    payers: Vec<Payer>,
    charged_to: Nanos,
    /// Nanoseconds that did not divide evenly; charged with the next step.
    remainder: Nanos,
    busy: Nanos,
}

impl Meter {
    pub(super) fn with_depth(depth: usize) -> Self {
        Self { payers: Vec::with_capacity(depth), ..Self::default() }
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.payers.len()
    }

    /// Time in which at least one request was in flight.
    pub(super) fn busy(&self) -> Nanos {
        self.busy
    }

    /// Charges the time up to `now`.
    pub(super) fn settle(&mut self, now: Nanos, charge: &mut dyn FnMut(Payer, Nanos)) {
        let elapsed = now.saturating_sub(self.charged_to);
        self.charged_to = self.charged_to.max(now);
        let sharers = self.payers.len() as u64;
        if sharers == 0 {
            return;
        }
        self.busy += elapsed;
        let due = elapsed + self.remainder;
        self.remainder = due % sharers;
        for payer in &self.payers {
            charge(*payer, due / sharers);
        }
    }

    /// A request goes to the disk. Settle first.
    pub(super) fn begin(&mut self, payer: Payer) {
        self.payers.push(payer);
    }

    /// A request came back. Settle first.
    pub(super) fn end(&mut self, payer: Payer) {
        if let Some(place) = self.payers.iter().position(|other| *other == payer) {
            self.payers.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payer(id: u32) -> Payer {
        Payer { client: ClientId(id), service: Service::Guaranteed }
    }

    #[test]
    fn requests_that_overlap_share_the_time_and_an_idle_disk_costs_nobody() {
        let mut meter = Meter::with_depth(2);
        let mut paid = [0u64; 2];
        let mut charge = |payer: Payer, cost| paid[payer.client.0 as usize] += cost;
        meter.settle(1_000, &mut charge);
        meter.begin(payer(0));
        meter.settle(1_100, &mut charge);
        meter.begin(payer(1));
        meter.settle(1_300, &mut charge);
        meter.end(payer(0));
        meter.settle(1_350, &mut charge);
        meter.end(payer(1));
        meter.settle(9_000, &mut charge);
        assert_eq!(paid, [200, 150]);
        assert_eq!((meter.busy(), meter.in_flight()), (350, 0));
    }

    proptest! {
        #[test]
        fn charges_add_up_to_the_busy_time(steps in prop::collection::vec((0u64..1_000, 0u32..4), 1..200)) {
            let mut meter = Meter::default();
            let (mut now, mut paid) = (0, 0);
            let mut inside = [false; 4];
            for (pause, id) in steps {
                now += pause;
                meter.settle(now, &mut |_, cost| paid += cost);
                let present = &mut inside[id as usize];
                if *present { meter.end(payer(id)) } else { meter.begin(payer(id)) }
                *present = !*present;
            }
            prop_assert!(paid <= meter.busy());
            // What is not charged yet is the remainder of one division.
            prop_assert!(meter.busy() - paid < 4);
        }
    }
}
