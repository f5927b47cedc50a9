//! The clocks of this host. Whatever decides gets the time as an argument and runs in virtual time,
//! too.

#![allow(clippy::disallowed_methods, reason = "the place where clocks are read")]

use std::time::{Duration, Instant};

use moirai_scheduler::{Amount, Moment};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The clock that everything in the host service uses: CLOCK_MONOTONIC.
#[must_use]
pub fn now() -> Moment {
    Moment::from_nanos(nanos(clock_gettime(ClockId::Monotonic)))
}

/// CPU time of the calling thread: what it has had of cores so far.
#[must_use]
pub fn own_cpu_time() -> Amount {
    Amount::from_nanos(nanos(clock_gettime(ClockId::ThreadCPUTime)))
}

/// Sleeps until [`now`] has reached `time`.
pub fn sleep_until(time: Moment) {
    std::thread::sleep(time.since(now()).duration());
}

fn nanos(time: Timespec) -> u64 {
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

/// Nanoseconds since 1970, by the clock that people and files have; no moment of [`now`].
#[must_use]
pub fn wall_clock() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}
