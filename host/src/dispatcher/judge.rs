//! Whether a period brought a vCPU its slice.
//!
//! A miss is judged from the kernel's accounts alone: the slice was wanted for the whole period, and more
//! of it than the measuring error is left at the deadline.

use moirai_scheduler::Nanos;

use super::StallLog;
use super::kernel::{CpuTime, Threads};
use super::vcpu::Vcpu;

/// A shortfall below this is the measuring error of a period, no miss.
const TOLERANCE: Nanos = 50_000;

/// What was observed of one vCPU, period by period.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) misses: u64,
    pub(super) misses_in_stall: u64,
    pub(super) least_slice: Option<Nanos>,
}

/// The period that is being observed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) begin: Nanos,
    pub(super) refills: u64,
    pub(super) time: CpuTime,
    pub(super) judged: bool,
}

/// At the deadline of a period: did a vCPU that wanted its slice all the time miss some of it?
pub(super) fn judge_late<T: Threads>(vcpu: &mut Vcpu<T>, stalls: &StallLog, now: Nanos) {
    let Some(rank) = vcpu.rank.filter(|rank| !vcpu.watch.judged && now >= rank.deadline) else {
        return;
    };
    vcpu.watch.judged = true;
    let run = vcpu.time.run.saturating_sub(vcpu.watch.time.run);
    if rank.budget.saturating_sub(vcpu.used) <= TOLERANCE {
        return note_least(&mut vcpu.tally, run);
    }
    let wait = vcpu.time.wait.saturating_sub(vcpu.watch.time.wait);
    let slept = now.saturating_sub(vcpu.watch.begin).saturating_sub(run + wait);
    // A wait that has not ended yet is in no account. It began at some time after it last ran.
    let waiting = vcpu.used == 0 && vcpu.is_runnable().unwrap_or(false);
    let since = vcpu.ran_at.max(vcpu.watch.begin);
    let pending = if waiting { now.saturating_sub(since) } else { 0 };
    if slept > pending.saturating_add(TOLERANCE) {
        return;
    }
    note_least(&mut vcpu.tally, run);
    if stalls.overlaps(vcpu.watch.begin, now) {
        vcpu.tally.misses_in_stall += 1;
    } else {
        vcpu.tally.misses += 1;
    }
}

/// A vCPU that is no longer owed anything in this period got what it was promised.
pub(super) fn judge_served<T>(vcpu: &mut Vcpu<T>) {
    if vcpu.rank.is_none() && !vcpu.watch.judged && vcpu.contract.slice() > 0 {
        vcpu.watch.judged = true;
        note_least(&mut vcpu.tally, vcpu.time.run.saturating_sub(vcpu.watch.time.run));
    }
}

fn note_least(tally: &mut Tally, run: Nanos) {
    tally.least_slice = Some(tally.least_slice.map_or(run, |least| least.min(run)));
}
