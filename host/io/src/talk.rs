//! What a peer's messages may cost.
//!
//! Messages set a device up; a few dozen are enough for that. Each of them is handled on the loop,
//! and some map memory or begin to listen to descriptors. A peer that sends them without end is
//! heard for a share of the time and not more: what it sends beyond that stays in its socket.

use moirai_scheduler::Nanos;

/// A session may take one part in so many of the loop's time.
const PARTS: Nanos = 50;
/// So much it may take at once.
const BURST: Nanos = 20_000_000;
/// A look at a session costs no more than this, however long it took: the machine may have stood
/// still meanwhile.
const LONGEST: Nanos = 2_000_000;
/// And no less.
const SHORTEST: Nanos = 2_000;

/// How much of its share a session has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Talk {
    /// When all that it has cost is paid by its share of the time.
    paid_at: Nanos,
}

impl Talk {
    /// Whether it may be heard.
    pub(crate) fn may_speak(self, now: Nanos) -> bool {
        self.paid_at.saturating_sub(now) < BURST * PARTS
    }

    /// It was heard for so long.
    pub(crate) fn spoke(&mut self, now: Nanos, cost: Nanos) {
        let cost = cost.clamp(SHORTEST, LONGEST);
        self.paid_at = self.paid_at.max(now).saturating_add(cost * PARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of a second a peer gets that sends all the time.
    fn heard(cost: Nanos) -> Nanos {
        let (mut talk, mut now, mut heard) = (Talk::default(), 0, 0);
        while now < 1_000_000_000 {
            if talk.may_speak(now) {
                talk.spoke(now, cost);
                heard += cost;
                now += cost;
            } else {
                now += 1_000_000;
            }
        }
        heard
    }

    #[test]
    fn who_talks_all_the_time_is_heard_for_its_share_and_a_burst() {
        for cost in [5_000, 50_000, 1_000_000] {
            let most = BURST + 1_000_000_000 / PARTS + cost;
            assert!((most * 9 / 10..=most).contains(&heard(cost)), "{cost}: {}", heard(cost));
        }
    }

    #[test]
    fn a_machine_that_stood_still_silences_nobody() {
        let mut talk = Talk::default();
        talk.spoke(0, 10_000_000_000);
        assert!(talk.may_speak(0));
    }

    #[test]
    fn who_has_been_quiet_has_its_burst_and_not_more() {
        let mut talk = Talk::default();
        let long = 3_600_000_000_000;
        let burst = (0..).take_while(|_| {
            let may = talk.may_speak(long);
            talk.spoke(long, 1_000_000);
            may
        });
        assert_eq!(burst.count(), 20);
    }
}
