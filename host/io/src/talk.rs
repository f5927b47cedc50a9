//! What a peer's messages may cost.
//!
//! Messages set a device up; a few dozen are enough for that. Each of them is handled on the loop,
//! and some map memory or begin to listen to descriptors. A peer that sends them without end is
//! heard for a share of the time and not more: what it sends beyond that stays in its socket.

use moirai_scheduler::{Moment, Span};

/// A session may take one part in so many of the loop's time.
const PARTS: u64 = 50;
/// So much it may take at once.
const BURST: Span = Span::from_millis(20);
/// A look at a session costs no more than this, however long it took: the machine may have stood
/// still meanwhile.
const LONGEST: Span = Span::from_millis(2);
/// And no less.
const SHORTEST: Span = Span::from_micros(2);

/// How much of its share a session has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Talk {
    /// When all that it has cost is paid by its share of the time.
    paid_at: Moment,
}

impl Talk {
    /// Whether it may be heard.
    pub(crate) fn may_speak(self, now: Moment) -> bool {
        self.paid_at.since(now) < BURST * PARTS
    }

    /// It was heard for so long.
    pub(crate) fn spoke(&mut self, now: Moment, cost: Span) {
        let cost = cost.clamp(SHORTEST, LONGEST);
        self.paid_at = self.paid_at.max(now).saturating_add(cost * PARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of a second a peer gets that sends all the time.
    fn heard(cost: Span) -> Span {
        let (mut talk, mut now, mut heard) = (Talk::default(), Moment::ZERO, Span::ZERO);
        while now < Moment::from_secs(1) {
            if talk.may_speak(now) {
                talk.spoke(now, cost);
                heard += cost;
                now += cost;
            } else {
                now += Span::from_millis(1);
            }
        }
        heard
    }

    #[test]
    fn who_talks_all_the_time_is_heard_for_its_share_and_a_burst() {
        for cost in [5, 50, 1_000].map(Span::from_micros) {
            let most = BURST + Span::from_secs(1) / PARTS + cost;
            assert!((most * 9 / 10..=most).contains(&heard(cost)), "{cost}: {}", heard(cost));
        }
    }

    #[test]
    fn a_machine_that_stood_still_silences_nobody() {
        let mut talk = Talk::default();
        talk.spoke(Moment::ZERO, Span::from_secs(10));
        assert!(talk.may_speak(Moment::ZERO));
    }

    #[test]
    fn who_has_been_quiet_has_its_burst_and_not_more() {
        let mut talk = Talk::default();
        let long = Moment::from_secs(3_600);
        let burst = (0..).take_while(|_| {
            let may = talk.may_speak(long);
            talk.spoke(long, Span::from_millis(1));
            may
        });
        assert_eq!(burst.count(), 20);
    }
}
