//! Times in which the machine itself stood still, and its noise floor.
//!
//! A guarantee can be kept only while the machine runs. A *stall* is a time in which a dispatcher's
//! own timer was more than `STALL_NS` late or the kernel reported steal. The [`NoiseProbe`] is a
//! thread of the highest priority that does nothing but sleep and look at the clock: what it sees
//! is the machine's noise, not ours.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hdrhistogram::Histogram;
use moirai_scheduler::Nanos;
use serde::Serialize;

use super::kernel::{now, pin, set_scheduler};
use super::{DispatcherError, Percentiles};

/// A timer that is later than this shows a stall.
const STALL_NS: Nanos = 5_000_000;
/// How many stalls are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 4096;
/// How often the probe looks.
const PROBE_PERIOD: Nanos = 2_000_000;
/// Every how many looks it reads the kernel's steal counter (which counts in 10 ms).
const LOOKS_PER_STEAL: u32 = 10;
/// Above everything that Moirai schedules.
const PROBE_PRIORITY: i32 = 99;

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

    /// For how long the machine stood still in the stalls that touch the time from `begin` to `end`,
    /// before and after it too. What several observers saw counts once.
    #[must_use]
    pub fn touching(&self, begin: Nanos, end: Nanos) -> Nanos {
        self.sum(begin, end, 0)
    }

    /// The same without what lies before `begin`.
    pub(super) fn after(&self, begin: Nanos, end: Nanos) -> Nanos {
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
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// All that are remembered.
    #[must_use]
    pub fn all(&self) -> Vec<Stall> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// How late the timers of the machine are when nothing stands above them, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct NoiseFloor {
    /// Lateness of the probe's timer.
    pub late_ns: Percentiles,
    /// How often the probe looked.
    pub looks: u64,
    /// Steal the kernel reported since the probe began.
    pub steal_ns: Nanos,
}

/// A thread that measures the noise of one core as long as the value lives.
#[derive(Debug)]
pub struct NoiseProbe {
    end: Arc<AtomicBool>,
    seen: Arc<Mutex<(Histogram<u64>, Nanos)>>,
    thread: Option<JoinHandle<()>>,
}

impl NoiseProbe {
    /// Starts a probe on `core` that notes what it sees in `stalls`.
    ///
    /// # Errors
    /// If the thread cannot be made or gets no real-time priority.
    pub fn start(core: usize, stalls: StallLog) -> Result<Self, DispatcherError> {
        let end = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new((new_histogram(), 0)));
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("noise-{core}")).spawn({
            let (end, seen) = (Arc::clone(&end), Arc::clone(&seen));
            move || {
                let ready =
                    pin(0, core).and_then(|()| set_scheduler(0, libc::SCHED_FIFO, PROBE_PRIORITY));
                let failed = ready.is_err();
                let _ = report.send(ready);
                if !failed {
                    probe(&end, &seen, &stalls);
                }
            }
        });
        let thread = thread.map_err(|source| DispatcherError::Setup { core, source })?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { end, seen, thread: Some(thread) }),
            Ok(Err(source)) => Err(DispatcherError::RealTime { core, source }),
            Err(_) => Err(DispatcherError::Gone { core }),
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn floor(&self) -> NoiseFloor {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        NoiseFloor { late_ns: percentiles(&seen.0), looks: seen.0.len(), steal_ns: seen.1 }
    }
}

impl Drop for NoiseProbe {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn probe(end: &AtomicBool, seen: &Mutex<(Histogram<u64>, Nanos)>, stalls: &StallLog) {
    let mut planned = now() + PROBE_PERIOD;
    let mut last_steal = steal_total();
    let mut looks = 0u32;
    let mut last_look = now();
    while !end.load(Ordering::Relaxed) {
        sleep_until(planned);
        let woke = now();
        stalls.note_late(planned, woke);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0.saturating_record(woke.saturating_sub(planned));
        looks += 1;
        if looks == LOOKS_PER_STEAL {
            looks = 0;
            let steal = steal_total();
            if steal > last_steal {
                stalls.note(Stall { begin: last_look, end: woke });
                seen.1 += steal - last_steal;
            }
            (last_steal, last_look) = (steal, woke);
        }
        drop(seen);
        planned = (planned + PROBE_PERIOD).max(woke);
    }
}

pub(super) fn sleep_until(time: Nanos) {
    let sleep = std::time::Duration::from_nanos(time.saturating_sub(now()));
    std::thread::sleep(sleep);
}

/// Steal of all cores since boot, from the first line of /proc/stat; zero if it cannot be read.
fn steal_total() -> Nanos {
    let Ok(text) = std::fs::read_to_string("/proc/stat") else { return 0 };
    parse_steal(&text).unwrap_or(0)
}

fn parse_steal(text: &str) -> Option<Nanos> {
    const TICK_NS: Nanos = 10_000_000; // USER_HZ is 100 on all Linux ABIs
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: u64 = line.split_ascii_whitespace().nth(7)?.parse().ok()?;
    ticks.checked_mul(TICK_NS)
}

/// A histogram of latenesses up to ten seconds.
pub(super) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("constant bounds are valid"))
}

pub(super) fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    if histogram.is_empty() {
        return Percentiles::default();
    }
    Percentiles {
        p50: histogram.value_at_quantile(0.50),
        p99: histogram.value_at_quantile(0.99),
        max: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number_of_the_first_line() {
        assert_eq!(
            parse_steal("cpu  2332 0 1987 101296 319 0 43 20 0 0\ncpu0 1"),
            Some(200_000_000)
        );
        assert_eq!(parse_steal("cpu  2332 0"), None);
        assert_eq!(parse_steal("intr 1 2 3"), None);
    }

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
