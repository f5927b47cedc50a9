//! The machine's noise: how late the kernel wakes a thread that no other thread may hold up.
//!
//! The [`NoiseProbe`] is a thread of the highest priority that does nothing but sleep and look at
//! the clock: what it sees is the machine's, not ours.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hdrhistogram::Histogram;
use moirai_confine::Role;
use moirai_scheduler::Span;
use serde::Serialize;

use crate::{Stall, StallLog, now, pin, set_scheduler, sleep_until};

/// How often the probe looks.
const PROBE_PERIOD: Span = Span::from_millis(2);
/// Every how many looks it reads the kernel's steal counter (which counts in 10 ms).
const LOOKS_PER_STEAL: u32 = 10;
/// Above everything that Moirai schedules.
const PROBE_PRIORITY: i32 = 99;

/// A distribution in three numbers of nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Largest value.
    pub max: u64,
}

/// How late timers were, up to ten seconds.
#[derive(Clone, Debug)]
pub struct Lateness(Histogram<u64>);

impl Default for Lateness {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, 10_000_000_000, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("constant bounds are valid")))
    }
}

impl Lateness {
    /// One timer was so late.
    pub fn note(&mut self, late: Span) {
        self.0.saturating_record(late.as_nanos());
    }

    /// How many were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// All of them in three numbers.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        if self.0.is_empty() {
            return Percentiles::default();
        }
        Percentiles {
            p50: self.0.value_at_quantile(0.50),
            p99: self.0.value_at_quantile(0.99),
            max: self.0.max(),
        }
    }
}

/// Why the noise of a core cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum NoiseError {
    /// There is no thread to be had.
    #[error("no thread for the noise probe: {0}")]
    Thread(#[source] io::Error),
    /// Its thread cannot be pinned, or gets no real-time priority.
    #[error("no real-time priority for the noise probe: {0}")]
    RealTime(#[source] io::Error),
    /// Its thread has ended.
    #[error("the noise probe has ended")]
    Gone,
}

/// How late the timers of the machine are when nothing stands above them, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct NoiseFloor {
    /// Lateness of the probe's timer.
    pub late_ns: Percentiles,
    /// How often the probe looked.
    pub looks: u64,
    /// Steal the kernel reported since the probe began.
    pub steal_ns: u64,
}

/// A thread that measures the noise of one core as long as the value lives.
#[derive(Debug)]
pub struct NoiseProbe {
    end: Arc<AtomicBool>,
    seen: Arc<Mutex<(Lateness, Span)>>,
    thread: Option<JoinHandle<()>>,
}

impl NoiseProbe {
    /// Starts a probe on `core` that notes what it sees in `stalls`.
    ///
    /// # Errors
    /// If the thread cannot be made or gets no real-time priority.
    pub fn start(core: usize, stalls: StallLog) -> Result<Self, NoiseError> {
        let end = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new((Lateness::default(), Span::ZERO)));
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("noise-{core}")).spawn({
            let (end, seen) = (Arc::clone(&end), Arc::clone(&seen));
            move || {
                // Opened before the role forbids to.
                let steal = StealCounter::open();
                let ready = pin(0, core)
                    .and_then(|()| set_scheduler(0, libc::SCHED_FIFO, PROBE_PRIORITY))
                    .and_then(|()| Role::Probe.enter());
                let failed = ready.is_err();
                let _ = report.send(ready);
                if !failed {
                    probe(&end, &seen, &stalls, &steal);
                }
            }
        });
        let thread = thread.map_err(NoiseError::Thread)?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { end, seen, thread: Some(thread) }),
            Ok(Err(source)) => Err(NoiseError::RealTime(source)),
            Err(_) => Err(NoiseError::Gone),
        }
    }

    /// What it has seen so far.
    #[must_use]
    pub fn floor(&self) -> NoiseFloor {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        NoiseFloor {
            late_ns: seen.0.percentiles(),
            looks: seen.0.count(),
            steal_ns: seen.1.as_nanos(),
        }
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

fn probe(
    end: &AtomicBool,
    seen: &Mutex<(Lateness, Span)>,
    stalls: &StallLog,
    counter: &StealCounter,
) {
    let mut planned = now() + PROBE_PERIOD;
    let mut last_steal = counter.total();
    let mut looks = 0u32;
    let mut last_look = now();
    while !end.load(Ordering::Relaxed) {
        sleep_until(planned);
        let woke = now();
        stalls.note_late(planned, woke);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0.note(woke.since(planned));
        looks += 1;
        if looks == LOOKS_PER_STEAL {
            looks = 0;
            let steal = counter.total();
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

/// The kernel's counter of steal.
struct StealCounter(Option<File>);

impl StealCounter {
    fn open() -> Self {
        Self(File::open("/proc/stat").ok())
    }

    /// Steal of all cores since boot, from the first line of the file; zero if it cannot be read.
    fn total(&self) -> Span {
        let mut line = [0; 256];
        let length = self.0.as_ref().and_then(|file| file.read_at(&mut line, 0).ok());
        let line = line.get(..length.unwrap_or(0)).unwrap_or_default();
        parse_steal(&String::from_utf8_lossy(line)).unwrap_or(Span::ZERO)
    }
}

fn parse_steal(text: &str) -> Option<Span> {
    const TICK: Span = Span::from_millis(10); // USER_HZ is 100 on all Linux ABIs
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: u64 = line.split_ascii_whitespace().nth(7)?.parse().ok()?;
    TICK.checked_mul(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number_of_the_first_line() {
        assert_eq!(
            parse_steal("cpu  2332 0 1987 101296 319 0 43 20 0 0\ncpu0 1"),
            Some(Span::from_millis(200))
        );
        assert_eq!(parse_steal("cpu  2332 0"), None);
        assert_eq!(parse_steal("intr 1 2 3"), None);
    }
}
