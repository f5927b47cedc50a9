//! Times in which the machine itself stood still.
//!
//! A guarantee can be kept only while the machine runs. A *stall* is a time in which the timer of a
//! thread above all tenants was more than `STALL` late, or the kernel reported steal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use moirai_scheduler::{Moment, Span};
use serde::{Serialize, Serializer};

/// A timer that is later than this shows a stall.
const STALL: Span = Span::from_millis(5);
/// How many stalls are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 4096;

/// A time in which the machine stood still, on CLOCK_MONOTONIC; written in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stall {
    /// First nanosecond.
    #[serde(serialize_with = "nanoseconds")]
    pub begin: Moment,
    /// End, not included.
    #[serde(serialize_with = "nanoseconds")]
    pub end: Moment,
}

fn nanoseconds<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(moment.as_nanos())
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
    pub fn note_late(&self, planned: Moment, seen: Moment) {
        if seen.since(planned) > STALL {
            self.note(Stall { begin: planned, end: seen });
        }
    }

    /// Whether any stall touches the time from `begin` to `end`.
    #[must_use]
    pub fn overlaps(&self, begin: Moment, end: Moment) -> bool {
        self.touching(begin, end) > Span::ZERO
    }

    /// For how long the machine stood still in the stalls that touch the time from `begin` to
    /// `end`, before and after it too. What several observers saw counts once.
    #[must_use]
    pub fn touching(&self, begin: Moment, end: Moment) -> Span {
        self.sum(begin, end, Moment::ZERO)
    }

    /// The same without what lies before `begin`.
    #[must_use]
    pub fn after(&self, begin: Moment, end: Moment) -> Span {
        self.sum(begin, end, begin)
    }

    fn sum(&self, begin: Moment, end: Moment, mut until: Moment) -> Span {
        let mut touching: Vec<Stall> = {
            let stalls = self.stalls.lock().unwrap_or_else(PoisonError::into_inner);
            stalls.iter().filter(|stall| stall.begin < end && begin < stall.end).copied().collect()
        };
        touching.sort_unstable_by_key(|stall| stall.begin);
        let mut sum = Span::ZERO;
        for Stall { begin, end } in touching {
            sum = sum.saturating_add(end.since(begin.max(until)));
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
        let at = Moment::from_nanos;
        log.note_late(at(1_000_000), at(5_999_999));
        assert!(log.all().is_empty());
        log.note_late(at(1_000_000), at(6_000_001));
        assert_eq!(log.all(), [Stall { begin: at(1_000_000), end: at(6_000_001) }]);
        assert_eq!(log.touching(at(0), at(1_000_001)), Span::from_nanos(5_000_001));
        assert_eq!(log.touching(at(0), at(1_000_000)), Span::ZERO);
        assert_eq!(log.touching(at(6_000_001), at(7_000_000)), Span::ZERO);
    }

    #[test]
    fn a_stall_that_two_observers_saw_counts_once() {
        let log = StallLog::default();
        let at = Moment::from_nanos;
        for (begin, end) in [(10, 20), (12, 25), (40, 50), (13, 14)] {
            log.note(Stall { begin: at(begin), end: at(end) });
        }
        let touching = |begin| log.touching(at(begin), at(100)).as_nanos();
        assert_eq!((touching(0), touching(26), log.count()), (25, 10, 4));
        assert_eq!(
            log.after(at(15), at(30)),
            Span::from_nanos(10),
            "the part that lies before is left out"
        );
    }

    #[test]
    fn the_log_forgets_the_oldest_instead_of_growing() {
        let log = StallLog::default();
        for begin in (0..=REMEMBERED as u64).map(Moment::from_nanos) {
            log.note(Stall { begin, end: begin + Span::ONE });
        }
        let all = log.all();
        assert_eq!(all.len(), REMEMBERED);
        assert_eq!(all.first().map(|stall| stall.begin), Some(Moment::from_nanos(1)));
    }
}
