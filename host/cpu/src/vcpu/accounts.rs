//! What the kernel's accounts tell of a vCPU: in all, and since the round before.

use moirai_scheduler::{Amount, Moment, Span};

use crate::kernel::CpuTime;

/// The accounts of one vCPU. Rounds write them, by [`Self::begin_round`] and [`Self::read`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accounts {
    time: CpuTime,
    used: Amount,
    waited: Span,
    runs: u64,
    unbooked: Amount,
    ran_until: Moment,
    /// How often it will be switched to because its gate was opened.
    gate_runs: u64,
}

impl Accounts {
    /// They begin at `now` with what the thread has used before.
    pub(super) fn new(time: CpuTime, now: Moment) -> Self {
        Self { time, ran_until: now, ..Self::default() }
    }

    /// A round begins; nothing has been read yet.
    pub(super) fn begin_round(&mut self) {
        (self.used, self.unbooked) = (Amount::ZERO, Amount::ZERO);
        (self.waited, self.runs) = (Span::ZERO, 0);
    }

    /// Takes what the kernel tells; the round before was at `last`.
    pub(super) fn read(&mut self, time: CpuTime, last: Moment) {
        self.used = time.run.saturating_sub(self.time.run);
        self.unbooked = self.used;
        let gate = std::mem::take(&mut self.gate_runs);
        self.runs = time.runs.saturating_sub(self.time.runs).saturating_sub(gate);
        // A wait is seen together with the run that ended it.
        let wait = if self.used > Amount::ZERO { time.wait } else { self.time.wait };
        self.waited = wait.saturating_sub(self.time.wait);
        self.time = CpuTime { wait, ..time };
        if self.used > Amount::ZERO {
            self.ran_until = last.saturating_add(self.used.time());
        }
    }

    /// The next round sees so many switches to it that say nothing of what it does.
    pub(super) fn expect_gate_runs(&mut self, runs: u64) {
        self.gate_runs = runs;
    }

    /// What it used and is not booked yet: zero from now on.
    pub(super) fn take_unbooked(&mut self) -> Amount {
        std::mem::take(&mut self.unbooked)
    }

    /// All of it, as of this round.
    pub(crate) fn time(&self) -> CpuTime {
        self.time
    }

    /// All of it, as of the round before.
    pub(crate) fn before(&self) -> CpuTime {
        let CpuTime { run, wait, runs } = self.time;
        let (run, wait) = (run.saturating_sub(self.used), wait.saturating_sub(self.waited));
        CpuTime { run, wait, runs }
    }

    /// What it used since the round before, in nanoseconds.
    pub(crate) fn used(&self) -> Amount {
        self.used
    }

    /// How long it waited for the core since the round before, as far as the wait is over.
    pub(crate) fn waited(&self) -> Span {
        self.waited
    }

    /// What it used and waited since the round before.
    pub(crate) fn busy(&self) -> Span {
        self.used.time() + self.waited
    }

    /// How often it got the core since the round before, but for its gate.
    pub(crate) fn runs(&self) -> u64 {
        self.runs
    }

    /// It ran at least until then.
    pub(super) fn ran_until(&self) -> Moment {
        self.ran_until
    }
}
