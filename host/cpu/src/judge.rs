//! Whether a vCPU got what it was promised.
//!
//! From a wake-up or a refill on, what the policy left of the slice is *promised* by the deadline.
//! A vCPU that wanted it until then and did not get it has missed it. Sleep ends a promise; the
//! wake-up rule makes another one. Naps too short to be seen take their length off it, and what
//! they cost in switches.
//!
//! Judged from the kernel's accounts alone. Of a wait that has not ended nothing is in them: a vCPU
//! that is runnable at its deadline counts as waiting since it can last have run, or since it was
//! seen to wait if it naps.
//!
//! An *excuse* covers what stalls of the machine can have caused, and no more: the summed length of
//! those that touch the promise, and the backlog that earlier ones left on a core that has been
//! busy with what is owed ever since. What is excused is listed.

use std::collections::VecDeque;

use moirai_scheduler::{Amount, Moment, Span};
use serde::Serialize;

use super::StallLog;
use super::kernel::CpuTime;

/// A shortfall up to this is the measuring error of a promise, no miss.
pub(super) const TOLERANCE: Amount = Amount::from_micros(50);
/// For so long after a miss a contract counts as not kept.
const LATELY: Span = Span::from_secs(60);
/// How many excused misses are remembered; the oldest are forgotten first.
const EXCUSED_MAX: usize = 16;

/// A slice that was not given in time because the machine stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Excused {
    /// The deadline that passed, on CLOCK_MONOTONIC in nanoseconds.
    pub at_ns: u64,
    /// How much of the slice was still to be given then, in nanoseconds.
    pub late_ns: u64,
    /// How much the stalls can have delayed it, in nanoseconds.
    pub stall_ns: u64,
}

/// What was observed of one vCPU, promise by promise.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) misses: u64,
    pub(super) misses_in_stall: u64,
    pub(super) excused: VecDeque<Excused>,
    pub(super) least_slice: Option<Amount>,
    /// Deadline and shortfall of the latest miss without an excuse.
    pub(super) last: Option<(Moment, Amount)>,
}

impl Tally {
    /// Why the contract is not kept, in words, if a slice was missed lately.
    pub(super) fn not_kept(&self, now: Moment) -> Option<String> {
        let (at, short) = self.last?;
        let ago = now.since(at);
        (ago <= LATELY).then(|| {
            let (seconds, micros) = (ago / Span::from_secs(1), short.as_micros());
            format!("{seconds} s ago {micros} us of its slice were not given by the deadline")
        })
    }
}

/// Service that is promised and not given yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    pub(super) begin: Moment,
    pub(super) deadline: Moment,
    pub(super) amount: Amount,
    /// The kernel's accounts when it began.
    pub(super) time: CpuTime,
    /// A whole slice, not what a sleep has left of one.
    pub(super) whole: bool,
    /// Until when stalls are in the backlog.
    pub(super) noted: Moment,
    /// What stalls until then had left to be done.
    pub(super) backlog: Amount,
}

/// The judge of one vCPU: what is promised to it at present, and how earlier promises were kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Judge {
    promise: Option<Promise>,
    tally: Tally,
}

impl Judge {
    /// This is promised from now on; what was promised before is not judged any more.
    pub(super) fn promise(&mut self, promise: Option<Promise>) {
        self.promise = promise;
    }

    /// Another contract is in force. The period under way mixes two; judge from the next one on.
    pub(super) fn begin_anew(&mut self) {
        self.promise = None;
        self.tally.least_slice = None;
    }

    /// What is promised is less by what the vCPU did itself.
    pub(super) fn pay(&mut self, cost: Amount) {
        if let Some(promise) = &mut self.promise {
            promise.amount = promise.amount.saturating_sub(cost);
        }
    }

    /// By when something is promised.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.promise.map(|promise| promise.deadline)
    }

    /// How promises were kept.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Judges a promise whose deadline has come. `time` is what the vCPU has used in all, `used`
    /// what of it since the round before. One that has fallen asleep at `now` is `done`: it wanted
    /// no more than what it has used. `slept` tells how long it has slept since the promise began,
    /// and is dear to ask.
    pub(super) fn late(
        &mut self,
        time: CpuTime,
        used: Amount,
        now: Moment,
        done: bool,
        slept: impl FnOnce(&Promise) -> Span,
        stalls: &StallLog,
    ) {
        let Some(promise) = self.promise.take_if(|promise| now >= promise.deadline) else { return };
        let run = time.run.saturating_sub(promise.time.run);
        // A round comes late. What was used until it may have been used after the deadline.
        let after = used.min((now - promise.deadline).service());
        let wanted = if done { promise.amount.min(run) } else { promise.amount };
        let short = wanted.saturating_sub(run.saturating_sub(after));
        if short > TOLERANCE {
            let short = short.saturating_sub(slept(&promise).service());
            if short <= TOLERANCE {
                return;
            }
            miss(&mut self.tally, &promise, short, stalls, now);
        }
        if promise.whole {
            note_least(&mut self.tally, run);
        }
    }

    /// Nothing is owed any more to a vCPU that has used `time` in all: it got what it was promised.
    pub(super) fn served(&mut self, time: CpuTime) {
        if let Some(promise) = self.promise.take().filter(|promise| promise.whole) {
            note_least(&mut self.tally, time.run.saturating_sub(promise.time.run));
        }
    }
}

fn miss(tally: &mut Tally, promise: &Promise, short: Amount, stalls: &StallLog, now: Moment) {
    let stalled = stalls.after(promise.noted, now).service().saturating_add(promise.backlog);
    if short > stalled.saturating_add(if stalled > Amount::ZERO { TOLERANCE } else { Amount::ZERO })
    {
        tally.misses += 1;
        tally.last = Some((promise.deadline, short));
        return;
    }
    tally.misses_in_stall += 1;
    if tally.excused.len() == EXCUSED_MAX {
        tally.excused.pop_front();
    }
    let at_ns = promise.deadline.as_nanos();
    let (late_ns, stall_ns) = (short.as_nanos(), stalled.as_nanos());
    tally.excused.push_back(Excused { at_ns, late_ns, stall_ns });
}

fn note_least(tally: &mut Tally, run: Amount) {
    tally.least_slice = Some(tally.least_slice.map_or(run, |least| least.min(run)));
}

/// What stalls have left to be done on a core.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backlog {
    pub(super) left: Amount,
    /// Stalls up to here are in it, and none is known to have come since.
    pub(super) noted: Moment,
    /// How many stalls the log had then.
    seen: u64,
}

impl Backlog {
    /// A round at `now`, `elapsed` after the one before, saw `owed` of it used by those who are
    /// owed time.
    pub(super) fn note(&mut self, stalls: &StallLog, now: Moment, elapsed: Span, owed: Amount) {
        let mut stalled = Span::ZERO;
        let count = stalls.count();
        if count != self.seen {
            self.seen = count;
            stalled = stalls.after(self.noted, now);
            self.noted = now;
        }
        let rest = elapsed.saturating_sub(stalled).service().saturating_sub(owed);
        // The rounds themselves are neither idle nor owed to anybody.
        self.left = self
            .left
            .saturating_sub(rest.saturating_sub(TOLERANCE))
            .saturating_add(stalled.service());
    }
}
