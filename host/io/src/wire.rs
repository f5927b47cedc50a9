//! The wire of a link and who may use it: a packet is paid for when it begins and judged when it
//! has left.

use std::collections::VecDeque;

use moirai_scheduler::{Amount, Moment, Pick, Policy, Ticket};

use crate::pacer::Pacer;
use crate::schedule::Schedule;

/// A policy and the packets that it has let onto the wire.
pub(crate) struct Wire {
    schedule: Schedule,
    pacer: Pacer,
    /// What was sent and has not left: whose, its time there, its end.
    inside: VecDeque<(Ticket, Amount, Moment)>,
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
    pub(crate) fn pick(&mut self, now: Moment) -> Option<Pick> {
        self.settle(now);
        if self.pacer.is_free(now) { self.schedule.pick(now) } else { None }
    }

    /// The packet that was picked begins; it occupies the wire for `wire_time`.
    pub(crate) fn send(&mut self, pick: &Pick, wire_time: Amount, now: Moment) {
        self.pacer.send(now, wire_time);
        let ticket = self.schedule.hand_out(pick, wire_time, now);
        self.inside.push_back((ticket, wire_time, self.pacer.free_at()));
    }

    /// Tells the policy about the packets that have left by `now`, as of when they left. Call it
    /// before anything moves the policy's clock beyond that.
    pub(crate) fn settle(&mut self, now: Moment) {
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
    use moirai_scheduler::{ClientId, Contract, Head, Span, Weight, policy_by_name};

    use super::*;

    const ONE: ClientId = ClientId(1);

    /// One client with 2 ms in 10 ms, and one on the slack. 1 Mbit/s: 125 bytes take a millisecond.
    fn wire() -> Wire {
        let mut wire = Wire::new(1_000_000, 125, policy_by_name("atropos", 4).unwrap());
        let promised = Contract::new(
            Span::from_millis(10),
            Amount::from_millis(2),
            Span::from_millis(4),
            None,
        )
        .unwrap();
        let slack = Contract::new(
            Span::from_millis(10),
            Amount::ZERO,
            Span::from_millis(10),
            Weight::new(1),
        )
        .unwrap();
        wire.schedule().policy().add(ONE, promised, Moment::ZERO).unwrap();
        wire.schedule().policy().add(ClientId(2), slack, Moment::ZERO).unwrap();
        wire
    }

    fn send(wire: &mut Wire, wire_time: Amount, now: Moment) -> ClientId {
        let pick = wire.pick(now).unwrap();
        wire.send(&pick, wire_time, now);
        pick.client
    }

    fn misses(wire: &mut Wire) -> Vec<Span> {
        let mut late = Vec::new();
        wire.schedule().policy().take_misses(&mut |miss| late.push(miss.late));
        late
    }

    #[test]
    fn a_packet_that_left_in_time_is_not_late_because_the_loop_is() {
        let mut wire = wire();
        wire.schedule().policy().wake(ONE, Head::default(), Moment::ZERO);
        assert_eq!(send(&mut wire, Amount::from_millis(1), Moment::from_millis(1)), ONE);
        // The loop comes back long after the deadline of 4 ms.
        wire.settle(Moment::from_millis(9));
        wire.schedule().policy().block(ONE, Moment::from_millis(9));
        assert_eq!(
            misses(&mut wire),
            [Span::from_millis(1)],
            "the other half of the slice, which was wanted until now"
        );
    }

    #[test]
    fn a_packet_that_begins_in_time_and_leaves_too_late_is_a_miss() {
        let mut wire = wire();
        wire.schedule().policy().wake(ONE, Head::default(), Moment::ZERO);
        // The pacer catches up on a millisecond: it leaves at 4.5 ms, the deadline is at 4.
        assert_eq!(send(&mut wire, Amount::from_millis(2), Moment::from_micros(3_500)), ONE);
        wire.schedule().policy().block(ONE, Moment::from_micros(3_500));
        wire.settle(Moment::from_millis(20));
        assert_eq!(misses(&mut wire), [Span::from_micros(500)]);
    }

    #[test]
    fn who_has_spent_its_slice_pays_when_its_packet_begins() {
        let mut wire = wire();
        wire.schedule().policy().wake(ONE, Head::default(), Moment::ZERO);
        wire.schedule().policy().wake(ClientId(2), Head::default(), Moment::ZERO);
        assert_eq!(send(&mut wire, Amount::from_millis(2), Moment::ZERO), ONE);
        assert_eq!(wire.pick(Moment::from_millis(1)), None, "the wire is busy");
        assert_eq!(send(&mut wire, Amount::from_millis(1), Moment::from_millis(2)), ClientId(2));
    }
}
