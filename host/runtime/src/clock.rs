//! The clocks of this host. Whatever decides gets the time as an argument and runs in virtual time,
//! too.

#![allow(clippy::disallowed_methods, reason = "the place where clocks are read")]

use std::time::{Duration, Instant};

use moirai_scheduler::Nanos;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The clock that everything in the host service uses: CLOCK_MONOTONIC, in nanoseconds.
#[must_use]
pub fn now() -> Nanos {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// CPU time of the calling thread, in nanoseconds.
#[must_use]
pub fn own_cpu_time() -> Nanos {
    nanos(clock_gettime(ClockId::ThreadCPUTime))
}

/// Sleeps until [`now`] has reached `time`.
pub fn sleep_until(time: Nanos) {
    std::thread::sleep(std::time::Duration::from_nanos(time.saturating_sub(now())));
}

fn nanos(time: Timespec) -> Nanos {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The same clock as a point in time of the standard library: for time limits.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// How long ago that was.
#[must_use]
pub fn since(begin: Instant) -> Duration {
    begin.elapsed()
}

/// Nanoseconds since 1970, by the clock that people and files have.
#[must_use]
pub fn wall_clock() -> Nanos {
    nanos(clock_gettime(ClockId::Realtime))
}
