//! Times in which the loop's own timer was late: the machine stood still, or somebody stood above
//! it.

use std::collections::VecDeque;

use moirai_scheduler::Nanos;
use moirai_scheduler::excuse::Outage;

/// A timer that is later than this was held up by the machine.
const HICCUP: Nanos = 250_000;
/// How many hiccups are remembered.
const REMEMBERED: usize = 256;

/// Times in which the loop's own timer was late.
#[derive(Debug, Default)]
pub(crate) struct Hiccups(VecDeque<Outage>);

impl Hiccups {
    /// A timer planned for `planned` came at `woke`.
    pub(crate) fn note(&mut self, planned: Nanos, woke: Nanos) {
        if woke.saturating_sub(planned) <= HICCUP {
            return;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Outage { begin: planned, end: woke });
    }

    /// Whether one of them ended after `begin`. They are noted in the order of their ends.
    pub(crate) fn since(&self, begin: Nanos) -> bool {
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
        let mut hiccups = Hiccups::default();
        hiccups.note(1_000_000, 1_000_000 + HICCUP);
        assert!(!hiccups.since(0));
        for n in 1..=1_000 {
            hiccups.note(n * 10_000_000, n * 10_000_000 + HICCUP + 1);
        }
        assert_eq!(hiccups.0.len(), REMEMBERED);
        assert!(hiccups.since(10_000_250_000));
        assert!(!hiccups.since(10_000_250_001), "it was over before");
    }
}
