//! When a link is free: a packet occupies it for its wire time, at the declared rate.

use moirai_scheduler::{Amount, Moment, Span};

/// A loop that comes late may catch up on this much; what is lost beyond it stays lost, so that a
/// stall is not followed by a burst.
pub(crate) const CATCH_UP: Span = Span::from_millis(1);

/// The wire of one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    rate_bps: u64,
    free_at: Moment,
    busy: Span,
}

impl Pacer {
    pub(crate) fn new(rate_bps: u64) -> Self {
        Self { rate_bps: rate_bps.max(1), free_at: Moment::ZERO, busy: Span::ZERO }
    }

    /// How long so many bytes (framing included) occupy the wire.
    pub(crate) fn wire_time(&self, wire_bytes: u64) -> Amount {
        let bits = u128::from(wire_bytes) * 8;
        let time = (bits * 1_000_000_000).div_ceil(u128::from(self.rate_bps));
        Amount::from_wide(time)
    }

    /// Whether a packet can begin at `now`.
    pub(crate) fn is_free(&self, now: Moment) -> bool {
        self.free_at <= now
    }

    /// When the next packet can begin.
    pub(crate) fn free_at(&self) -> Moment {
        self.free_at
    }

    /// Time in which the wire was occupied.
    pub(crate) fn busy(&self) -> Span {
        self.busy
    }

    /// A packet begins at `now` (the link is free) and occupies the wire for `wire_time`.
    pub(crate) fn send(&mut self, now: Moment, wire_time: Amount) {
        let begin = self.free_at.max(now.saturating_sub(CATCH_UP));
        self.free_at = begin.saturating_add(wire_time.time());
        self.busy = self.busy.saturating_add(wire_time.time());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_frame_at_100_mbit_takes_its_known_time() {
        // 1514 bytes of frame and 24 of framing, 80 ns each.
        assert_eq!(Pacer::new(100_000_000).wire_time(1514 + 24), Amount::from_nanos(123_040));
    }

    #[test]
    fn a_late_loop_catches_up_a_little_and_a_stall_is_lost() {
        let mut pacer = Pacer::new(100_000_000);
        pacer.send(Moment::from_millis(10), Amount::from_micros(100));
        assert_eq!(pacer.free_at(), Moment::from_micros(9_100));
        pacer.send(Moment::from_micros(9_150), Amount::from_micros(100));
        assert_eq!(pacer.free_at(), Moment::from_micros(9_200));
        pacer.send(Moment::from_secs(1), Amount::from_micros(100));
        assert_eq!(pacer.free_at(), Moment::from_micros(999_100));
    }

    proptest! {
        #[test]
        fn in_any_window_no_more_leaves_than_the_rate_and_the_catch_up_allow(
            frames in prop::collection::vec((84u64..1538, 0u64..300_000), 2..200),
        ) {
            let mut pacer = Pacer::new(100_000_000);
            let mut sent = Vec::new();
            let mut now = Moment::from_millis(5);
            for (len, pause) in frames {
                now = (now + Span::from_nanos(pause)).max(pacer.free_at());
                let wire = pacer.wire_time(len);
                pacer.send(now, wire);
                sent.push((now, wire));
            }
            for first in 0..sent.len() {
                let mut total = Amount::ZERO;
                for &(at, wire) in &sent[first..] {
                    // Before this packet began, only the time since the window opened and the
                    // catch-up were there to use.
                    prop_assert!(total.time() <= at - sent[first].0 + CATCH_UP);
                    total += wire;
                }
            }
        }
    }
}
