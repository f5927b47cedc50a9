//! The dispatcher's thread: takes commands, sleeps until the next round, measures its own lateness.

use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use moirai_confine::Role;
use moirai_runtime::{
    Inbox, Known, Lateness, Mailbox, Question, Turns, mailbox, now, own_cpu_time, pin,
    set_scheduler,
};
use moirai_scheduler::{Amount, Contract, Moment, Span, ranked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::core::{Core, FIRST_PRIORITY};
use super::kernel::LinuxThread;
use super::{CoreSnapshot, DispatcherError, DispatcherSpec, VcpuId, VcpuSnapshot, VcpuSpec};

/// Above every vCPU of the core, below the noise probe.
const DISPATCHER_PRIORITY: i32 = FIRST_PRIORITY + 8;
/// How many vCPUs a core can have.
const CAPACITY: usize = 1024;

type Reply<T> = moirai_runtime::Reply<Result<T, DispatcherError>>;

#[derive(Debug)]
enum Command {
    Attach(Box<VcpuSpec>, Reply<VcpuId>),
    Change(VcpuId, Contract, Reply<()>),
    Detach(VcpuId, Reply<VcpuSnapshot>),
    Snapshot(moirai_runtime::Reply<CoreSnapshot>),
    End,
}

/// A running dispatcher; ends with the value.
#[derive(Debug)]
pub struct Dispatcher {
    core: usize,
    mailbox: Mailbox<Command>,
    standing: Question<CoreSnapshot>,
    thread: Option<JoinHandle<()>>,
}

impl Dispatcher {
    /// Starts the dispatcher of one core.
    ///
    /// # Errors
    /// If the policy does not suit a core, the thread cannot be made, or it gets no real-time
    /// priority.
    pub fn start(spec: DispatcherSpec) -> Result<Self, DispatcherError> {
        let core = spec.core;
        let unsuited = DispatcherError::UnsuitedPolicy { core, policy: spec.policy };
        let scheduling = !spec.policy.is_fifo();
        let policy = ranked(spec.policy, CAPACITY).ok_or(unsuited)?;
        let (mailbox, inbox) =
            mailbox().map_err(|source| DispatcherError::Setup { core, source })?;
        let (report, started) = sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("cpu-{core}")).spawn({
            move || {
                let placed = pin(0, core).and_then(|()| {
                    if scheduling {
                        set_scheduler(0, libc::SCHED_FIFO, DISPATCHER_PRIORITY)
                    } else {
                        Ok(())
                    }
                });
                let ready = placed.and_then(|()| Role::Dispatcher.enter());
                let failed = ready.is_err();
                let _ = report.send(ready);
                if !failed {
                    let mut rounds = Core::new(policy, scheduling, spec.stalls.clone());
                    rounds.set_wake_cost(spec.wake_cost);
                    let (late, load) = (Lateness::default(), OwnLoad::default());
                    let turns = Turns::of_this_thread(&format!("cpu-{core}"));
                    Loop { spec, rounds, inbox, late, load, turns }.run();
                }
            }
        });
        let thread = thread.map_err(|source| DispatcherError::Setup { core, source })?;
        match started.recv() {
            Ok(Ok(())) => {
                let standing = Question::default();
                Ok(Self { core, mailbox, standing, thread: Some(thread) })
            }
            Ok(Err(source)) => Err(DispatcherError::RealTime { core, source }),
            Err(_) => Err(DispatcherError::Gone { core }),
        }
    }

    /// Takes a vCPU under dispatch: pins it to the core and keeps its contract from now on.
    ///
    /// # Errors
    /// If the thread is not there, or the policy is full.
    pub fn attach(&self, spec: VcpuSpec) -> Result<VcpuId, DispatcherError> {
        self.ask(|reply| Command::Attach(Box::new(spec), reply))
    }

    /// Gives a vCPU another contract from its next period on. Admission was asked before.
    ///
    /// # Errors
    /// If there is no such vCPU.
    pub fn change(&self, id: VcpuId, contract: Contract) -> Result<(), DispatcherError> {
        self.ask(|reply| Command::Change(id, contract, reply))
    }

    /// Releases a vCPU (its thread may have ended) and returns its last account.
    ///
    /// # Errors
    /// If there is no such vCPU.
    pub fn detach(&self, id: VcpuId) -> Result<VcpuSnapshot, DispatcherError> {
        self.ask(|reply| Command::Detach(id, reply))
    }

    /// The accounts of all vCPUs, as of now, or as of the last time that the dispatcher answered if
    /// it does not within `patience`; that is marked as stale then.
    ///
    /// # Errors
    /// If the dispatcher has ended, or has never answered.
    pub fn snapshot(&self, patience: Duration) -> Result<CoreSnapshot, DispatcherError> {
        let core = self.core;
        match self.mailbox.look(&self.standing, Command::Snapshot, patience) {
            Some(Known::Now(snapshot)) => Ok(snapshot),
            Some(Known::Earlier(Some(mut snapshot))) => {
                snapshot.stale = true;
                snapshot.vcpus.iter_mut().for_each(|vcpu| vcpu.stale = true);
                Ok(snapshot)
            }
            Some(Known::Earlier(None)) => Err(DispatcherError::Silent { core }),
            None => Err(DispatcherError::Gone { core }),
        }
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, DispatcherError> {
        self.mailbox.ask(command).ok_or(DispatcherError::Gone { core: self.core })?
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        let _ = self.mailbox.tell(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Loop {
    spec: DispatcherSpec,
    rounds: Core<LinuxThread>,
    inbox: Inbox<Command>,
    late: Lateness,
    load: OwnLoad,
    /// How the watchdog knows that the dispatcher has not come back.
    turns: Turns,
}

/// What the dispatcher itself takes of its core.
#[derive(Debug, Default)]
struct OwnLoad {
    /// Time and own CPU time when it was measured last.
    last: (Moment, Amount),
    ppm: u64,
}

impl OwnLoad {
    /// Over how long it is measured.
    const WINDOW: Span = Span::from_secs(2);

    /// The share in millionths, as of the latest window.
    fn measure(&mut self, now: Moment, used: Amount) -> u64 {
        let elapsed = now.since(self.last.0);
        if elapsed >= Self::WINDOW {
            if !self.last.0.is_zero() {
                let used = used.saturating_sub(self.last.1);
                self.ppm = used.saturating_mul(1_000_000).time() / elapsed;
            }
            self.last = (now, used);
        }
        self.ppm
    }
}

impl Loop {
    fn run(mut self) {
        let mut planned = None;
        loop {
            let woke = now();
            self.turns.begin(woke);
            if let Some(planned) = planned.filter(|&planned| planned <= woke) {
                self.late.note(woke - planned);
                self.spec.stalls.note_late(planned, woke);
            }
            while let Some(command) = self.inbox.next() {
                if matches!(command, Command::End) {
                    return;
                }
                self.obey(command);
            }
            let due = self.rounds.round(now());
            let end = now();
            self.turns.rest(end);
            let after = due.after.map(|after| end + after);
            planned = due.at.into_iter().chain(after).min();
            self.sleep(planned);
        }
    }

    fn sleep(&self, until: Option<Moment>) {
        let rest = until.map(|until| {
            let rest = until.since(now()).as_nanos();
            // Cannot overflow: a u64 of nanoseconds is 584 years.
            Timespec {
                tv_sec: i64::try_from(rest / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(rest % 1_000_000_000).unwrap_or(0),
            }
        });
        let mut fds = [PollFd::from_borrowed_fd(self.inbox.bell(), PollFlags::IN)];
        if poll(&mut fds, rest.as_ref()).is_ok_and(|ready| ready > 0) {
            self.inbox.silence();
        }
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may have stopped waiting; the answer is then nobody's.
        match command {
            Command::Attach(spec, reply) => drop(reply.send(self.attach(*spec))),
            Command::Change(id, contract, reply) => {
                let done = self.rounds.change(id, contract, now());
                drop(reply.send(done.map_err(DispatcherError::Policy)));
            }
            Command::Detach(id, reply) => {
                let done = self.rounds.detach(id, now());
                drop(reply.send(done.map_err(DispatcherError::Policy)));
            }
            Command::Snapshot(reply) => {
                // A round brings the accounts up to this moment.
                self.rounds.round(now());
                drop(reply.send(self.snapshot()));
            }
            Command::End => {}
        }
    }

    fn attach(&mut self, spec: VcpuSpec) -> Result<VcpuId, DispatcherError> {
        let VcpuSpec { tenant, pid, tid, gate, contract } = spec;
        let thread = LinuxThread::attach(pid, tid, self.spec.core, gate)
            .map_err(|source| DispatcherError::Vcpu { pid, tid, source })?;
        self.rounds.attach(tenant, contract, thread, now()).map_err(DispatcherError::Policy)
    }

    fn snapshot(&mut self) -> CoreSnapshot {
        let overhead = own_cpu_time();
        let own = self.load.measure(now(), overhead);
        let mut vcpus = self.rounds.snapshot();
        if let Some(reason) = overload(self.spec.core, own, self.rounds.promised_ppm()) {
            for vcpu in vcpus.iter_mut().filter(|vcpu| vcpu.promised) {
                vcpu.not_kept.get_or_insert_with(|| reason.clone());
            }
        }
        CoreSnapshot {
            core: self.spec.core,
            stale: false,
            vcpus,
            decisions: self.rounds.rounds,
            overhead_ns: overhead.as_nanos(),
            timer_late_ns: self.late.percentiles(),
        }
    }
}

/// Why a core cannot keep its contracts beside its dispatcher, if it cannot. Shares in millionths.
fn overload(core: usize, own: u64, promised: u64) -> Option<String> {
    let percent = |ppm: u64| ppm.div_ceil(10_000);
    (own.saturating_add(promised) > 1_000_000).then(|| {
        let (own, promised) = (percent(own), percent(promised));
        format!(
            "core {core}: the dispatcher takes {own}%, contracts {promised}%: more than there is; \
             move tenants to another core"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_cannot_give_what_is_promised_beside_its_dispatcher_says_so() {
        assert_eq!(overload(1, 240_000, 760_000), None);
        let reason = overload(1, 350_000, 720_000).unwrap();
        assert!(reason.contains("the dispatcher takes 35%, contracts 72%"), "{reason}");
    }

    #[test]
    fn the_own_load_is_that_of_the_latest_window() {
        let mut load = OwnLoad::default();
        let second = 1_000_000_000;
        assert_eq!(load.measure(Moment::from_nanos(10 * second), Amount::from_nanos(second)), 0);
        assert_eq!(
            load.measure(Moment::from_nanos(11 * second), Amount::from_nanos(9 * second)),
            0,
            "too soon to tell"
        );
        assert_eq!(
            load.measure(Moment::from_nanos(12 * second), Amount::from_nanos(2 * second)),
            500_000
        );
    }
}
