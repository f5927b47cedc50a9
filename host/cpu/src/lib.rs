//! The CPU dispatcher: keeps the CPU contracts of the vCPUs on one core.
//!
//! A [`Policy`] decides who is owed time; the kernel switches threads. Per core there is one
//! dispatcher thread, pinned to that same core above everything else on it. It owns the policy and
//! the list of vCPUs and sleeps until the next decision is due. vCPUs that are owed time run as
//! SCHED_FIFO in EDF order, so that a wake-up preempts at kernel speed and the next in order runs
//! when the first one halts, with no dispatcher on the way. The others run in the fair class
//! (contracts with `extra`) or stand at their gate (all others).
//!
//! | file | what it holds |
//! | --- | --- |
//! | `core.rs` | one round of the dispatcher: charge, decide, apply; no thread, no clock |
//! | `vcpu.rs` | a vCPU and what the rounds saw of it; nobody else writes its state |
//! | `vcpu/` | the parts of that state: accounts, sleep, slice, what it is owed and promised |
//! | `core/observe.rs` | who ran, who woke, who fell asleep since the last round |
//! | `core/waiters.rs` | who woke and waits, unseen, behind others |
//! | `judge.rs` | whether a vCPU got what it was promised |
//! | `slack.rs` | who has had more than its share of the slack |
//! | `stop_latency.rs` | how long before the end of a slice its gate is closed |
//! | `kernel.rs` | what it asks of the kernel: CPU times, classes, gates |
//! | `gate.rs` | the page through which a vCPU is stopped |
//! | `thread.rs` | the thread: commands, timer, lateness |
//! | `measure.rs` | what switches, rounds and wake-ups cost on this host |
//!
//! Neighbours: the service attaches and detaches vCPUs; nothing here knows what a tenant is.
//!
//! [`Policy`]: moirai_scheduler::Policy

mod core;
#[cfg(test)]
mod core_tests;
mod gate;
mod judge;
mod kernel;
mod measure;
mod slack;
mod stop_latency;
mod thread;
mod vcpu;

use std::io;

use moirai_runtime::{Percentiles, StallLog};
use moirai_scheduler::{Account, Amount, Contract, Moment, PolicyError, PolicyKind};
use serde::Serialize;

pub use gate::{GatePage, GateWord};
pub use judge::Excused;
pub use measure::{Measured, measure};
pub use thread::Dispatcher;

/// Names a vCPU to its dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VcpuId(pub u32);

/// What a dispatcher is started with.
#[derive(Clone, Debug)]
pub struct DispatcherSpec {
    /// The core it serves and runs on.
    pub core: usize,
    /// Who decides. With `fifo`, the control of experiments, every vCPU stays in the kernel's fair
    /// class and only the accounts are kept.
    pub policy: PolicyKind,
    /// What a wake-up within a slice costs; zero: nothing.
    pub wake_cost: Amount,
    /// Where stalls of the machine are noted.
    pub stalls: StallLog,
}

/// A vCPU thread that is to be dispatched.
#[derive(Debug)]
pub struct VcpuSpec {
    /// The tenant it belongs to, for reports.
    pub tenant: String,
    /// The tenant process.
    pub pid: i32,
    /// The vCPU thread, a thread of `pid` (checked when it is attached).
    pub tid: i32,
    /// Its word on the tenant's gate page.
    pub gate: GateWord,
    /// What it is promised.
    pub contract: Contract,
}

/// Why a dispatcher could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    /// A policy that does not know all who are owed time.
    #[error(
        "core {core}: the policy {policy} does not suit a core; take atropos, nemesis, xen, usd or \
         fifo"
    )]
    UnsuitedPolicy {
        /// The core.
        core: usize,
        /// The policy.
        policy: PolicyKind,
    },
    /// Real-time priority or pinning was refused.
    #[error(
        "core {core}: CPU guarantees need real-time priority, and the kernel refused it \
         ({source}); run the host service as root or grant CAP_SYS_NICE"
    )]
    RealTime {
        /// The core of the dispatcher.
        core: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread to dispatch is not there or not what was said.
    #[error("thread {tid} of process {pid} cannot be dispatched: {source}")]
    Vcpu {
        /// The tenant process.
        pid: i32,
        /// The thread.
        tid: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The policy refused.
    #[error("the CPU scheduler refused: {0}")]
    Policy(PolicyError),
    /// The dispatcher thread has ended.
    #[error("the dispatcher of core {core} has ended")]
    Gone {
        /// The core of the dispatcher.
        core: usize,
    },
    /// The dispatcher thread does not answer.
    #[error("the dispatcher of core {core} does not answer")]
    Silent {
        /// The core of the dispatcher.
        core: usize,
    },
    /// A thread or descriptor could not be made.
    #[error("the dispatcher of core {core} could not be set up: {source}")]
    Setup {
        /// The core of the dispatcher.
        core: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What one vCPU got so far; times in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct VcpuSnapshot {
    /// The dispatcher's name for it.
    pub id: u32,
    /// The tenant it belongs to.
    pub tenant: String,
    /// See [`CoreSnapshot::stale`].
    pub stale: bool,
    /// CPU time charged to the contract.
    pub guaranteed_ns: u64,
    /// CPU time taken from the slack.
    pub extra_ns: u64,
    /// Slices, or rests of slices, that it wanted from its wake-up or refill until the deadline and
    /// did not get by then.
    pub misses: u64,
    /// The same, where stalls of the machine explain all of what was not given.
    pub misses_in_stall: u64,
    /// The latest of these.
    pub excused: Vec<Excused>,
    /// Why its contract is not kept at present: it missed slices in the last minute, or more is
    /// promised than the core can give beside its dispatcher.
    pub not_kept: Option<String>,
    /// It has a slice: something is promised to it.
    pub promised: bool,
    /// Guarantee lost because whole periods passed in a stall.
    pub stall_loss_ns: u64,
    /// Slices released.
    pub refills: u64,
    /// The least CPU time it got in any period of its present contract in which it was runnable
    /// throughout.
    pub least_slice_ns: Option<u64>,
}

/// State of one dispatcher; times in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct CoreSnapshot {
    /// The core it serves.
    pub core: usize,
    /// The dispatcher does not answer at present: this is how things were when it last did.
    pub stale: bool,
    /// Its vCPUs.
    pub vcpus: Vec<VcpuSnapshot>,
    /// Decisions taken.
    pub decisions: u64,
    /// CPU time of the dispatcher itself.
    pub overhead_ns: u64,
    /// How late its own timer was: median, 99th percentile, longest.
    pub timer_late_ns: Percentiles,
}

impl VcpuSnapshot {
    fn new(
        id: VcpuId,
        tenant: &str,
        account: Account,
        tally: &judge::Tally,
        slice: Amount,
        now: Moment,
    ) -> Self {
        Self {
            id: id.0,
            tenant: tenant.to_owned(),
            stale: false,
            guaranteed_ns: account.guaranteed.as_nanos(),
            extra_ns: account.extra.as_nanos(),
            misses: tally.misses,
            misses_in_stall: tally.misses_in_stall,
            excused: tally.excused.iter().copied().collect(),
            not_kept: tally.not_kept(now),
            promised: slice > Amount::ZERO,
            stall_loss_ns: account.stall_loss.as_nanos(),
            refills: account.refills,
            least_slice_ns: tally.least_slice.map(Amount::as_nanos),
        }
    }
}
