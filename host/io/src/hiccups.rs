//! Times in which the loop's own timer was late: the machine stood still, or somebody stood above
//! it.

use std::collections::VecDeque;

use moirai_scheduler::excuse::Outage;
use moirai_scheduler::{Moment, Span};

/// A timer that is later than this was held up by the machine.
const HICCUP: Span = Span::from_micros(250);
/// How many hiccups are remembered.
const REMEMBERED: usize = 256;

/// Times in which the loop's own timer was late.
#[derive(Debug, Default)]
pub(crate) struct Hiccups(VecDeque<Outage>);

impl Hiccups {
    /// A timer planned for `planned` came at `woke`.
    pub(crate) fn note(&mut self, planned: Moment, woke: Moment) {
        if woke.since(planned) <= HICCUP {
            return;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Outage { begin: planned, end: woke });
    }

    /// Whether one of them ended after `begin`. They are noted in the order of their ends.
    pub(crate) fn since(&self, begin: Moment) -> bool {
        self.0.back().is_some_and(|hiccup| begin < hiccup.end)
    }

    /// Those that are remembered, in the order of their ends.
    pub(crate) fn all(&self) -> impl Iterator<Item = Outage> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_late_timer_is_a_hiccup_and_the_list_stays_short() {
        let at = Moment::from_nanos;
        let mut hiccups = Hiccups::default();
        hiccups.note(at(1_000_000), at(1_000_000) + HICCUP);
        assert!(!hiccups.since(Moment::ZERO));
        for n in 1..=1_000 {
            hiccups.note(at(n * 10_000_000), at(n * 10_000_000) + HICCUP + Span::ONE);
        }
        assert_eq!(hiccups.0.len(), REMEMBERED);
        assert!(hiccups.since(at(10_000_250_000)));
        assert!(!hiccups.since(at(10_000_250_001)), "it was over before");
    }
}
