//! Times in which the machine itself stood still.
//!
//! A guarantee can be kept only while the machine runs. A *stall* is a time in which the timer of a
//! thread above all tenants was more than `STALL_NS` late, or the kernel reported steal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use moirai_scheduler::Nanos;
use serde::Serialize;

/// A timer that is later than this shows a stall.
const STALL_NS: Nanos = 5_000_000;
/// How many stalls are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 4096;

/// A time in which the machine stood still, on CLOCK_MONOTONIC in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stall {
    /// First nanosecond.
    pub begin: Nanos,
    /// End, not included.
    pub end: Nanos,
}

/// The stalls seen by all dispatchers and probes. Cheap to clone; written rarely.
#[derive(Clone, Debug, Default)]
pub struct StallLog {
    stalls: Arc<Mutex<VecDeque<Stall>>>,
    /// How many were ever noted.
    count: Arc<AtomicU64>,
}

impl StallLog {
    /// Notes a stall.
    pub fn note(&self, stall: Stall) {
        let mut stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        if stalls.len() == REMEMBERED {
            stalls.pop_front();
        }
        stalls.push_back(stall);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Notes a stall if a timer planned for `planned` came at `seen` and that is too late.
    pub fn note_late(&self, planned: Nanos, seen: Nanos) {
        if seen.saturating_sub(planned) > STALL_NS {
            self.note(Stall { begin: planned, end: seen });
        }
    }

    /// Whether any stall touches the time from `begin` to `end`.
    #[must_use]
    pub fn overlaps(&self, begin: Nanos, end: Nanos) -> bool {
        self.touching(begin, end) > 0
    }

    /// For how long the machine stood still in the stalls that touch the time from `begin` to
    /// `end`, before and after it too. What several observers saw counts once.
    #[must_use]
    pub fn touching(&self, begin: Nanos, end: Nanos) -> Nanos {
        self.sum(begin, end, 0)
    }

    /// The same without what lies before `begin`.
    #[must_use]
    pub fn after(&self, begin: Nanos, end: Nanos) -> Nanos {
        self.sum(begin, end, begin)
    }

    fn sum(&self, begin: Nanos, end: Nanos, mut until: Nanos) -> Nanos {
        let mut touching: Vec<Stall> = {
            let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
            stalls.iter().filter(|stall| stall.begin < end && begin < stall.end).copied().collect()
        };
        touching.sort_unstable_by_key(|stall| stall.begin);
        let mut sum: Nanos = 0;
        for Stall { begin, end } in touching {
            sum = sum.saturating_add(end.saturating_sub(begin.max(until)));
            until = until.max(end);
        }
        sum
    }

    /// How many stalls were noted so far, those that are forgotten included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// All that are remembered.
    #[must_use]
    pub fn all(&self) -> Vec<Stall> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_timer_more_than_five_milliseconds_late_is_a_stall() {
        let log = StallLog::default();
        log.note_late(1_000_000, 5_999_999);
        assert!(log.all().is_empty());
        log.note_late(1_000_000, 6_000_001);
        assert_eq!(log.all(), [Stall { begin: 1_000_000, end: 6_000_001 }]);
        assert_eq!(log.touching(0, 1_000_001), 5_000_001);
        assert_eq!(log.touching(0, 1_000_000), 0);
        assert_eq!(log.touching(6_000_001, 7_000_000), 0);
    }

    #[test]
    fn a_stall_that_two_observers_saw_counts_once() {
        let log = StallLog::default();
        for (begin, end) in [(10, 20), (12, 25), (40, 50), (13, 14)] {
            log.note(Stall { begin, end });
        }
        assert_eq!((log.touching(0, 100), log.touching(26, 100), log.count()), (25, 10, 4));
        assert_eq!(log.after(15, 30), 10, "the part that lies before is left out");
    }

    #[test]
    fn the_log_forgets_the_oldest_instead_of_growing() {
        let log = StallLog::default();
        for begin in 0..=REMEMBERED as u64 {
            log.note(Stall { begin, end: begin + 1 });
        }
        let all = log.all();
        assert_eq!(all.len(), REMEMBERED);
        assert_eq!(all.first().map(|stall| stall.begin), Some(1));
    }
}
