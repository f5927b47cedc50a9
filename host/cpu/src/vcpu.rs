//! A vCPU, and what the rounds saw of it.

use moirai_scheduler::{Contract, Nanos, Rank};

use super::VcpuId;
use super::judge::{Promise, Tally};
use super::kernel::{Class, CpuTime, Threads};
use super::slack::Share;
use super::stop_latency::StopLatency;

/// A vCPU, and what the rounds saw of it.
pub(super) struct Vcpu<T> {
    pub(super) id: VcpuId,
    pub(super) tenant: String,
    pub(super) contract: Contract,
    pub(super) thread: T,
    pub(super) class: Option<Class>,
    pub(super) time: CpuTime,
    /// What it used since the round before, how long it waited for the core, and how often it got
    /// it.
    pub(super) used: Nanos,
    pub(super) waited: Nanos,
    pub(super) runs: u64,
    /// What of that the policy does not know yet.
    pub(super) unbooked: Nanos,
    /// As the policy knows it. Who stands at its gate counts as asleep: nobody sees what it wants.
    pub(super) asleep: bool,
    /// How long it has slept unseen since it woke, or waits.
    pub(super) unseen: Nanos,
    /// By how much the sleeps that were seen in this slice may have been longer.
    pub(super) blur: Nanos,
    /// How often it slept unseen in this slice.
    pub(super) naps: u64,
    /// How often the kernel says that it has slept, when it was asked last; sleeps since then that
    /// were seen; sleeps before that were not and are not paid.
    sleeps: u64,
    seen_sleeps: u64,
    pub(super) unpaid_sleeps: u64,
    /// It was asleep then, and maybe ever since.
    pub(super) slept_at: Nanos,
    /// It woke between these two times and waits for the core; the policy is told when it has run
    /// and its accounts tell exactly.
    pub(super) hidden: Option<(Nanos, Nanos)>,
    /// How often it will be switched to because its gate was opened.
    pub(super) gate_runs: u64,
    /// Its gate was opened for the slice that was due then.
    pub(super) opened: Option<Nanos>,
    /// It was seen runnable and has not run since.
    pub(super) waits: bool,
    /// When it was seen so first.
    pub(super) waits_since: Nanos,
    /// It ran at least until then.
    pub(super) ran_until: Nanos,
    pub(super) rank: Option<Rank>,
    /// Its rank before that one floated.
    pub(super) floated: bool,
    pub(super) share: Share,
    pub(super) wants_slack: bool,
    pub(super) stop_latency: StopLatency,
    /// It stands at its gate and is not looked at before this time.
    pub(super) stands_until: Nanos,
    pub(super) promise: Option<Promise>,
    /// Slices that were released when it was looked at last.
    pub(super) refills: u64,
    pub(super) tally: Tally,
    /// The thread has ended; its tenant is being cleaned up.
    pub(super) gone: bool,
}

impl<T> Vcpu<T> {
    pub(super) fn new(
        id: VcpuId,
        tenant: String,
        contract: Contract,
        thread: T,
        time: CpuTime,
        now: Nanos,
    ) -> Self {
        Self {
            id,
            tenant,
            contract,
            thread,
            class: None,
            time,
            used: 0,
            waited: 0,
            runs: 0,
            unbooked: 0,
            asleep: true,
            unseen: 0,
            blur: 0,
            naps: 0,
            sleeps: 0,
            seen_sleeps: 0,
            unpaid_sleeps: 0,
            slept_at: now,
            hidden: None,
            gate_runs: 0,
            opened: None,
            waits: false,
            waits_since: now,
            ran_until: now,
            rank: None,
            floated: false,
            share: Share::default(),
            wants_slack: false,
            stop_latency: StopLatency::default(),
            stands_until: 0,
            promise: None,
            refills: 0,
            tally: Tally::default(),
            gone: false,
        }
    }

    /// When its slice ends it is stopped; others go on in the slack.
    pub(super) fn ends_at_gate(&self) -> bool {
        self.contract.extra().is_none()
    }

    /// How much may be left of its slice when that is ended.
    pub(super) fn lead(&self) -> Nanos {
        if self.ends_at_gate() { self.stop_latency.lead(self.contract.slice()) } else { 0 }
    }

    /// It is owed more than it takes to stop it. What is left to a sleeper is only known when it
    /// wakes.
    pub(super) fn may_run(&self) -> bool {
        let sleeps = self.asleep && self.class != Some(Class::Gated);
        self.rank.is_some_and(|rank| sleeps || rank.budget > self.lead())
    }
}

impl<T: Threads> Vcpu<T> {
    pub(super) fn set_class(&mut self, class: Class) {
        if self.class == Some(class) {
            return;
        }
        match self.thread.set_class(class) {
            Ok(()) => self.class = Some(class),
            Err(_) => self.gone = true,
        }
    }

    /// It fell asleep, or is stopped at its gate.
    pub(super) fn note_sleep(&mut self) {
        self.seen_sleeps = self.seen_sleeps.saturating_add(1);
    }

    /// Asks the kernel whether it has slept unseen: what an interrupt or the host of this machine
    /// takes looks the same in the accounts of time.
    pub(super) fn ask_for_sleeps(&mut self) -> u64 {
        if let Ok(sleeps) = self.thread.sleeps() {
            let new = sleeps.saturating_sub(self.sleeps).saturating_sub(self.seen_sleeps);
            (self.sleeps, self.seen_sleeps) = (sleeps, 0);
            self.unpaid_sleeps = self.unpaid_sleeps.saturating_add(new);
        }
        self.unpaid_sleeps
    }

    /// Whether it runs or waits for the core. One that waits is asked once: nobody falls asleep
    /// without having run, and the kernel writes some fifty numbers to answer.
    pub(super) fn is_runnable(&mut self, now: Nanos) -> std::io::Result<bool> {
        if !self.waits {
            self.waits = self.thread.is_runnable()?;
            self.waits_since = now;
        }
        Ok(self.waits)
    }

    /// Whether it would take slack now, or will when its slice is used up.
    pub(super) fn asks_for_slack(&mut self, now: Nanos) -> bool {
        if self.rank.is_some() {
            return !self.asleep && self.share.wanted();
        }
        // Nobody sees whether one that stands at its gate would.
        let wants = self.share.yields() || self.used > 0 || self.is_runnable(now).unwrap_or(false);
        if wants {
            self.share.note_wanted();
        }
        wants
    }
}
