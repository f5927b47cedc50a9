//! What a vCPU is promised, slice by slice, and whether it got it.

use moirai_scheduler::{Amount, Moment, Span};

use super::watched::Watched;
use super::{Accounts, Slice, Vcpu};
use crate::StallLog;
use crate::judge::Promise;
use crate::kernel::{CpuTime, Threads};

impl<T> Vcpu<T> {
    /// So many slices have been released; whether that is a new one.
    pub(crate) fn begin_slice(&mut self, refills: u64) -> bool {
        let new = self.slice.begin(refills);
        if new {
            self.share.begin_period();
        }
        new
    }

    /// Nothing new is promised to it. If nothing is owed to it any more it got what it was
    /// promised.
    pub(crate) fn pass_over(&mut self, refills: u64) {
        self.slice.pass_over(refills);
        if self.rank().is_none() {
            self.judge.served(self.accounts.time());
        }
    }

    /// What is promised to it from now on.
    pub(crate) fn promise(&mut self, promise: Option<Promise>) {
        self.judge.promise(promise);
    }

    /// What it is promised is less by what it did itself.
    pub(crate) fn pay(&mut self, cost: Amount) {
        self.judge.pay(cost);
    }

    /// By when it is promised something.
    pub(crate) fn promised_by(&self) -> Option<Moment> {
        self.judge.deadline()
    }
}

impl<T: Threads> Vcpu<T> {
    /// Judges a promise whose deadline has come. One that has fallen asleep at `now` is `done`: it
    /// wanted no more than what it has used.
    pub(crate) fn judge_late(&mut self, stalls: &StallLog, now: Moment, done: bool) {
        let Self { judge, accounts, slice, watched, .. } = self;
        let slept = |promise: &Promise| slept(promise, accounts, slice, watched, now);
        judge.late(accounts.time(), accounts.used(), now, done, slept, stalls);
    }
}

/// How long a vCPU has slept since a promise began.
fn slept<T: Threads>(
    promise: &Promise,
    accounts: &Accounts,
    slice: &Slice,
    watched: &mut Watched<T>,
    now: Moment,
) -> Span {
    let CpuTime { run, wait, .. } = accounts.time();
    let run = run.saturating_sub(promise.time.run);
    let wait = wait.saturating_sub(promise.time.wait);
    let rest = now.since(promise.begin).saturating_sub(run.time().saturating_add(wait));
    let pending = watched.waits_since(now).ok().flatten().map_or(Span::ZERO, |seen| {
        // One that naps may have slept until it was seen to wait.
        let since = if slice.has_naps() { seen } else { accounts.ran_until() };
        now.since(since.max(promise.begin))
    });
    rest.saturating_sub(pending)
}
