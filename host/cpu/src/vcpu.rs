//! A vCPU, and what the rounds saw of it.
//!
//! No other module writes a field of it. A part of its state changes by the methods of that part
//! alone; which of them are called, and when, rounds decide (`core.rs`).
//!
//! | part | what it says | where it changes |
//! | --- | --- | --- |
//! | `accounts` | what the kernel counted | `vcpu/accounts.rs`, once a round |
//! | `watched` | the thread, and whether it was seen to wait | `vcpu/watched.rs` |
//! | `sleep` | awake or asleep, as the policy knows it | `vcpu/sleep.rs` |
//! | `sleeps` | how often it slept, and how often unseen | `vcpu/sleeps.rs` |
//! | `slice` | what of the slice may have been slept away | `vcpu/slice.rs` |
//! | `standing` | what the policy owes it | `vcpu/standing.rs`, once a round |
//! | `judge` | what is promised to it, and what it missed | `judge.rs`, by `vcpu/promised.rs` |
//! | `share` | its part of the slack | `slack.rs`, by `vcpu/slack.rs` |
//! | the others | where it stands with the kernel | here |

mod accounts;
mod promised;
mod slack;
mod sleep;
mod sleeps;
mod slice;
mod standing;
mod watched;

use std::io;

use moirai_scheduler::{Account, Amount, ClientId, Contract, Moment};

use super::judge::Judge;
use super::kernel::{Class, Threads};
use super::slack::Share;
use super::stop_latency::StopLatency;
use super::{VcpuId, VcpuSnapshot};
use sleep::Sleep;
use sleeps::Sleeps;
use slice::Slice;
use standing::Standing;
use watched::Watched;

pub(super) use accounts::Accounts;
pub(super) use slack::Rest;
pub(super) use sleep::Wait;
pub(super) use slice::DOZE;

/// What a look at the accounts of a vCPU has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Seen {
    /// It stands at its gate until its next slice, and was not looked at.
    Stands,
    /// It has used so much since the round before, in nanoseconds.
    Used(Amount),
    /// It has reached its gate: [`Vcpu::stand_until`] says how long it is left alone.
    ReachedGate,
    /// The thread has ended.
    Ended,
}

/// A vCPU, and what the rounds saw of it.
pub(super) struct Vcpu<T> {
    id: VcpuId,
    tenant: String,
    contract: Contract,
    watched: Watched<T>,
    /// The thread has ended; its tenant is being cleaned up.
    gone: bool,
    class: Option<Class>,
    stop_latency: StopLatency,
    /// It stands at its gate and is not looked at before this time.
    stands_until: Moment,
    accounts: Accounts,
    sleep: Sleep,
    sleeps: Sleeps,
    slice: Slice,
    standing: Standing,
    judge: Judge,
    share: Share,
    wants_slack: bool,
}

impl<T> Vcpu<T> {
    /// Its name at the policy.
    pub(super) fn client(&self) -> ClientId {
        ClientId(self.id.0)
    }

    pub(super) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Whether its thread has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// What the kernel counted, as of this round.
    pub(super) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// What it used since the round before.
    pub(super) fn used(&self) -> Amount {
        self.accounts.used()
    }

    /// What rounds did not see of its slice.
    pub(super) fn slice(&self) -> &Slice {
        &self.slice
    }

    /// Its state for reports.
    pub(super) fn snapshot(&self, account: Account, now: Moment) -> VcpuSnapshot {
        let (tally, slice) = (self.judge.tally(), self.contract.slice());
        VcpuSnapshot::new(self.id, &self.tenant, account, tally, slice, now)
    }

    /// Whether it stands at its gate, or is on its way to it.
    pub(super) fn is_gated(&self) -> bool {
        self.class == Some(Class::Gated)
    }

    /// When its slice ends it is stopped; others go on in the slack.
    pub(super) fn ends_at_gate(&self) -> bool {
        self.contract.extra().is_none()
    }

    /// How much may be left of its slice when that is ended.
    pub(super) fn lead(&self) -> Amount {
        if self.ends_at_gate() {
            self.stop_latency.lead(self.contract.slice())
        } else {
            Amount::ZERO
        }
    }

    /// It has another contract. The period under way mixes two; it is judged from the next one on.
    pub(super) fn change(&mut self, contract: Contract) {
        self.contract = contract;
        self.judge.begin_anew();
    }
}

/// What takes a call of the kernel.
impl<T: Threads> Vcpu<T> {
    /// Takes a thread under dispatch, asleep as far as anybody knows.
    pub(super) fn new(
        id: VcpuId,
        tenant: String,
        contract: Contract,
        mut thread: T,
        now: Moment,
    ) -> Self {
        let time = thread.cpu_time().unwrap_or_default();
        let mut vcpu = Self {
            id,
            tenant,
            contract,
            watched: Watched::new(thread),
            gone: false,
            class: None,
            stop_latency: StopLatency::default(),
            stands_until: Moment::ZERO,
            accounts: Accounts::new(time, now),
            sleep: Sleep::since(now),
            sleeps: Sleeps::default(),
            slice: Slice::default(),
            standing: Standing::default(),
            judge: Judge::default(),
            share: Share::default(),
            wants_slack: false,
        };
        vcpu.ask_for_sleeps();
        vcpu.sleeps.settle();
        vcpu
    }

    /// Reads its accounts, unless it stands at its gate. The round before was at `last`.
    pub(super) fn measure(&mut self, now: Moment, last: Moment) -> Seen {
        self.accounts.begin_round();
        if now < self.stands_until {
            return Seen::Stands;
        }
        let Ok(time) = self.watched.thread().cpu_time() else {
            self.gone = true;
            self.sleep.fall(now);
            self.judge.promise(None);
            return Seen::Ended;
        };
        self.accounts.read(time, last);
        let used = self.used();
        self.stop_latency.ran(used);
        if used > Amount::ZERO {
            self.watched.ran();
        } else if self.ends_at_gate() && self.is_gated() {
            return Seen::ReachedGate;
        }
        Seen::Used(used)
    }

    /// It is left alone at its gate until then: one that slips through pays then.
    pub(super) fn stand_until(&mut self, until: Moment) {
        self.stands_until = until;
    }

    /// Stops it at its gate at `at`, with so much left of its slice, in nanoseconds; negative: it
    /// overran.
    pub(super) fn stop(&mut self, left: i64, at: Moment) {
        if self.ends_at_gate() {
            self.stop_latency.close(left);
        }
        self.sleep.fall(at);
        self.sleeps.see();
        self.set_class(Class::Gated);
    }

    /// It runs in the slack, in the fair class at this nice level.
    pub(super) fn go_to_slack(&mut self, nice: i32) {
        self.set_class(Class::Fair(nice));
    }

    /// It runs on its guarantee, at this priority.
    pub(super) fn let_run(&mut self, priority: i32) {
        self.stop_latency.open();
        self.stands_until = Moment::ZERO;
        self.accounts.expect_gate_runs(u64::from(self.is_gated()));
        self.set_class(Class::Guaranteed(priority));
    }

    fn set_class(&mut self, class: Class) {
        if self.class == Some(class) {
            return;
        }
        match self.watched.thread().set_class(class) {
            Ok(()) => self.class = Some(class),
            Err(_) => self.gone = true,
        }
    }

    /// Whether it runs or waits for the core.
    pub(super) fn is_runnable(&mut self, now: Moment) -> io::Result<bool> {
        Ok(self.watched.waits_since(now)?.is_some())
    }
}
