//! When the machine did not serve anybody: what the log of stalls has seen, and what the loop's own
//! timer has.

use moirai_runtime::StallLog;
use moirai_scheduler::excuse::{Outage, union};
use moirai_scheduler::{Moment, Span};

use crate::hiccups::Hiccups;

/// No stall is shorter.
const STALL: Span = Span::from_millis(5);
/// How often misses are attributed.
const INTERVAL: Span = Span::from_millis(10);

/// All that may excuse a miss.
#[derive(Debug)]
pub(crate) struct Outages {
    stalls: StallLog,
    hiccups: Hiccups,
    /// When misses were last held against them.
    audited_at: Moment,
}

impl Outages {
    pub(crate) fn new(stalls: StallLog) -> Self {
        Self { stalls, hiccups: Hiccups::default(), audited_at: Moment::ZERO }
    }

    /// A timer planned for `planned` came at `woke`.
    pub(crate) fn note(&mut self, planned: Moment, woke: Moment) {
        self.hiccups.note(planned, woke);
    }

    /// Whether there was one from `begun` to `now`.
    pub(crate) fn since(&self, begun: Moment, now: Moment) -> bool {
        // The log is locked only where there may be something in it.
        self.hiccups.since(begun) || now.since(begun) > STALL && self.stalls.overlaps(begun, now)
    }

    /// Whether it is time to attribute misses; the next time is a while later.
    pub(crate) fn is_due(&mut self, now: Moment) -> bool {
        let due = now.since(self.audited_at) >= INTERVAL;
        if due {
            self.audited_at = now;
        }
        due
    }

    /// Somebody asks: it is time to attribute misses.
    pub(crate) fn hurry(&mut self, now: Moment) {
        self.audited_at = self.audited_at.min(now.saturating_sub(INTERVAL));
    }

    /// All of them, one after the other.
    pub(crate) fn all(&self) -> Vec<Outage> {
        let stalls = self.stalls.all().into_iter();
        let stalls = stalls.map(|stall| Outage { begin: stall.begin, end: stall.end });
        union(stalls.chain(self.hiccups.all()).collect())
    }

    /// Whether the loop's timer was ever late.
    #[cfg(test)]
    pub(crate) fn has_hiccups(&self) -> bool {
        self.hiccups.all().next().is_some()
    }
}
