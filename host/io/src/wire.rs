//! The wire of a link and who may use it: a packet is paid for when it begins and judged when it
//! has left.

use std::collections::VecDeque;

use moirai_scheduler::{Nanos, Pick, Policy, Ticket};

use crate::pacer::Pacer;
use crate::schedule::Schedule;

/// A policy and the packets that it has let onto the wire.
pub(crate) struct Wire {
    schedule: Schedule,
    pacer: Pacer,
    /// What was sent and has not left: whose, its time there, its end.
    inside: VecDeque<(Ticket, Nanos, Nanos)>,
}

impl Wire {
    /// A wire of this rate; whoever wakes may have to wait for `largest_bytes` of somebody else.
    pub(crate) fn new(rate_bps: u64, largest_bytes: u64, mut policy: Box<dyn Policy>) -> Self {
        let pacer = Pacer::new(rate_bps);
        policy.set_blocking(pacer.wire_time(largest_bytes));
        Self { schedule: Schedule::new(policy), pacer, inside: VecDeque::new() }
    }

    pub(crate) fn schedule(&mut self) -> &mut Schedule {
        &mut self.schedule
    }

    pub(crate) fn known(&self) -> &Schedule {
        &self.schedule
    }

    pub(crate) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Chooses whose packet is next, if the wire is free.
    pub(crate) fn pick(&mut self, now: Nanos) -> Option<Pick> {
        self.settle(now);
        if self.pacer.is_free(now) { self.schedule.pick(now) } else { None }
    }

    /// The packet that was picked begins; it occupies the wire for `wire_time`.
    pub(crate) fn send(&mut self, pick: &Pick, wire_time: Nanos, now: Nanos) {
        self.pacer.send(now, wire_time);
        let ticket = self.schedule.hand_out(pick, wire_time, now);
        self.inside.push_back((ticket, wire_time, self.pacer.free_at()));
    }

    /// Tells the policy about the packets that have left by `now`, as of when they left. Call it
    /// before anything moves the policy's clock beyond that.
    pub(crate) fn settle(&mut self, now: Nanos) {
        while let Some(&(ticket, wire_time, end)) = self.inside.front()
            && end <= now
        {
            self.inside.pop_front();
            self.schedule.policy().complete(ticket, wire_time, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use moirai_scheduler::{ClientId, Contract, Head, Weight, policy_by_name};

    use super::*;

    const MS: Nanos = 1_000_000;
    const ONE: ClientId = ClientId(1);

    /// One client with 2 ms in 10 ms, and one on the slack. 1 Mbit/s: 125 bytes take a millisecond.
    fn wire() -> Wire {
        let mut wire = Wire::new(1_000_000, 125, policy_by_name("atropos", 4).unwrap());
        let promised = Contract::new(10 * MS, 2 * MS, 4 * MS, None).unwrap();
        let slack = Contract::new(10 * MS, 0, 10 * MS, Weight::new(1)).unwrap();
        wire.schedule().policy().add(ONE, promised, 0).unwrap();
        wire.schedule().policy().add(ClientId(2), slack, 0).unwrap();
        wire
    }

    fn send(wire: &mut Wire, wire_time: Nanos, now: Nanos) -> ClientId {
        let pick = wire.pick(now).unwrap();
        wire.send(&pick, wire_time, now);
        pick.client
    }

    fn misses(wire: &mut Wire) -> Vec<Nanos> {
        let mut late = Vec::new();
        wire.schedule().policy().take_misses(&mut |miss| late.push(miss.late));
        late
    }

    #[test]
    fn a_packet_that_left_in_time_is_not_late_because_the_loop_is() {
        let mut wire = wire();
        wire.schedule().policy().wake(ONE, Head::default(), 0);
        assert_eq!(send(&mut wire, MS, MS), ONE);
        // The loop comes back long after the deadline of 4 ms.
        wire.settle(9 * MS);
        wire.schedule().policy().block(ONE, 9 * MS);
        assert_eq!(
            misses(&mut wire),
            [MS],
            "the other half of the slice, which was wanted until now"
        );
    }

    #[test]
    fn a_packet_that_begins_in_time_and_leaves_too_late_is_a_miss() {
        let mut wire = wire();
        wire.schedule().policy().wake(ONE, Head::default(), 0);
        // The pacer catches up on a millisecond: it leaves at 4.5 ms, the deadline is at 4.
        assert_eq!(send(&mut wire, 2 * MS, 3_500_000), ONE);
        wire.schedule().policy().block(ONE, 3_500_000);
        wire.settle(20 * MS);
        assert_eq!(misses(&mut wire), [500_000]);
    }

    #[test]
    fn who_has_spent_its_slice_pays_when_its_packet_begins() {
        let mut wire = wire();
        wire.schedule().policy().wake(ONE, Head::default(), 0);
        wire.schedule().policy().wake(ClientId(2), Head::default(), 0);
        assert_eq!(send(&mut wire, 2 * MS, 0), ONE);
        assert_eq!(wire.pick(MS), None, "the wire is busy");
        assert_eq!(send(&mut wire, MS, 2 * MS), ClientId(2));
    }
}
