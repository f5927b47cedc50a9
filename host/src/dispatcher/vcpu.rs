//! A vCPU, and what the rounds saw of it.

use moirai_scheduler::{Contract, Nanos, Rank};

use super::VcpuId;
use super::judge::{Tally, Watch};
use super::kernel::{Class, CpuTime, Threads};
use super::slack::Share;
use super::way::Way;

/// A vCPU, and what the rounds saw of it.
pub(super) struct Vcpu<T> {
    pub(super) id: VcpuId,
    pub(super) tenant: String,
    pub(super) contract: Contract,
    pub(super) thread: T,
    pub(super) class: Option<Class>,
    pub(super) time: CpuTime,
    /// What it used since the round before, and how long it waited for the core.
    pub(super) used: Nanos,
    pub(super) waited: Nanos,
    /// What of that the policy does not know yet.
    pub(super) unbooked: Nanos,
    pub(super) asleep: bool,
    /// It was seen runnable and has not run since.
    pub(super) waits: bool,
    /// The last round that saw that it had run.
    pub(super) ran_at: Nanos,
    pub(super) rank: Option<Rank>,
    pub(super) share: Share,
    pub(super) wants_slack: bool,
    pub(super) way: Way,
    /// It stands at its gate and is not looked at before this time.
    pub(super) stands_until: Nanos,
    pub(super) watch: Watch,
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
            unbooked: 0,
            asleep: false,
            waits: false,
            ran_at: now,
            rank: None,
            share: Share::default(),
            wants_slack: false,
            way: Way::default(),
            stands_until: 0,
            watch: Watch { begin: now, refills: 0, time, judged: true },
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
        if self.ends_at_gate() { self.way.lead(self.contract.slice()) } else { 0 }
    }

    /// It is owed more than it takes to stop it. What is left to a sleeper is only known when it wakes.
    pub(super) fn may_run(&self) -> bool {
        self.rank.is_some_and(|rank| self.asleep || rank.budget > self.lead())
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

    /// Whether it runs or waits for the core. One that waits is asked once: nobody falls asleep without
    /// having run, and the kernel writes some fifty numbers to answer.
    pub(super) fn is_runnable(&mut self) -> std::io::Result<bool> {
        if !self.waits {
            self.waits = self.thread.is_runnable()?;
        }
        Ok(self.waits)
    }

    /// Whether it would take slack now, or will when its slice is used up.
    pub(super) fn asks_for_slack(&mut self) -> bool {
        if self.rank.is_some() {
            return !self.asleep && self.share.wanted();
        }
        // Nobody sees whether one that stands at its gate would.
        let wants = self.share.yields() || self.used > 0 || self.is_runnable().unwrap_or(false);
        if wants {
            self.share.note_wanted();
        }
        wants
    }
}
