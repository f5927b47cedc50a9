//! The thread of one tenant: hears its process, its console and its stop requests, and carries out
//! its life ([`super::life`]).
//!
//! Owns the process, so that it is reaped by nobody else. Everything the process says is hostile.
//! When the guest has reset itself the same thread starts the next process and supervises it.

use moirai_api::{End, Phase};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use moirai_confine::Role;
use moirai_launch::{ChannelError, Child, Ended, ExitReason, FromHost, ToHost};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::console::Console;
use super::groups::Group;
use super::life::{Event, Step, Turn};
use super::release::{give_back, give_back_devices, not_begun};
use super::tenant::{Live, Tenant, Vcpu};
use super::view;

use super::Shared;
use super::process::{Process, StartError, start_again};
use moirai_config::model;
use moirai_cpu::{DispatcherError, GatePage, VcpuSpec};

/// How long a VM may take to be built, apart from touching its memory: milliseconds, unless the
/// host is very busy.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long touching memory may take: some 50 us a page.
const PREFAULT_PATIENCE_PER_MIB: Duration = Duration::from_millis(12);
/// How long a VM may take to end when it was asked.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// A machine that resets itself sooner waits for the rest of this time.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// How often a supervisor that waits looks whether it still has to.
const LOOK: Duration = Duration::from_millis(50);
/// Messages of a process that are heard in one turn.
const MESSAGES: usize = 64;

/// The supervisor of one tenant.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    tenant: Arc<Tenant>,
    child: Child,
    /// What the guest says, on all its consoles; those that are at their end are taken out.
    consoles: Vec<UnixStream>,
    /// What the process itself says, until its end, and where that goes.
    words: Option<UnixStream>,
    said: Console,
    gates: GatePage,
    /// What the process may take of the machine.
    group: Group,
    /// vCPU threads that the process reported.
    tids: Vec<i32>,
    /// When the phase began to last too long.
    overdue: Option<Instant>,
    /// When the process began.
    began: Instant,
    stop_seen: bool,
    /// The guest has reset its machine.
    reset: bool,
    control_open: bool,
}

impl Supervisor {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be had, or a descriptor cannot be set up; the process is killed.
    pub(super) fn start(
        shared: Arc<Shared>,
        tenant: Arc<Tenant>,
        process: Process,
    ) -> std::io::Result<JoinHandle<()>> {
        let supervisor = Self::new(shared, tenant, process)?;
        let name = format!("tenant-{}", supervisor.tenant.name);
        std::thread::Builder::new().name(name).spawn(move || {
            Role::Hand.enter_or_say();
            supervisor.run();
        })
    }

    /// The state of one whose process has just begun.
    fn new(shared: Arc<Shared>, tenant: Arc<Tenant>, process: Process) -> std::io::Result<Self> {
        let Process { child, consoles, words, gates, group } = process;
        let said = Console::new(&format!("{} (process)", tenant.name));
        let patience = tenant.with(|live| start_patience(&live.spec));
        rustix::io::ioctl_fionbio(child.control().as_fd(), true)?;
        let began = moirai_runtime::instant();
        Ok(Self {
            shared,
            tenant,
            child,
            consoles,
            words: Some(words),
            said,
            gates,
            group,
            tids: Vec::new(),
            overdue: Some(began + patience),
            began,
            stop_seen: false,
            reset: false,
            control_open: true,
        })
    }

    fn run(mut self) {
        while self.tenant.phase() != Phase::Ended {
            let gone = self.wait();
            self.hear_consoles();
            if self.control_open {
                self.hear_control();
            }
            self.hear_stop();
            self.hear_balloon();
            if self.overdue.is_some_and(|time| time <= moirai_runtime::instant()) {
                self.overdue = None;
                self.happens(Event::Overdue);
            }
            if gone {
                let again = self.is_to_restart() && self.lives_long_enough();
                self.happens(if again { Event::GoneToRestart } else { Event::Gone });
            }
        }
    }

    /// Whether the guest has reset its machine and wants to run on.
    fn is_to_restart(&mut self) -> bool {
        // The process said why before it went.
        self.hear_control();
        let wanted = |live: &mut Live| live.spec.restart && !live.stop_asked;
        self.reset && self.tenant.with(wanted)
    }

    /// Waits until the last life is as long as the shortest may be: a guest that resets itself at
    /// once must not keep the host busy. False if somebody wants the tenant to stop meanwhile.
    fn lives_long_enough(&self) -> bool {
        loop {
            if self.tenant.with(|live| live.stop_asked) {
                return false;
            }
            let left = SHORTEST_LIFE.saturating_sub(moirai_runtime::since(self.began));
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Starts the tenant once more and supervises its new process from then on.
    fn start_again(&mut self, turn: Turn) {
        self.hear_last_words();
        // Reaps the process; how it ended it has said itself.
        let _ = self.child.wait();
        give_back_devices(&self.shared, &self.tenant);
        self.tenant.with(|live| live.begins_again(turn));
        tracing::info!(tenant = self.tenant.name, "the guest has reset itself and starts again");
        let (shared, tenant) = (Arc::clone(&self.shared), Arc::clone(&self.tenant));
        let next = start_again(&shared, &tenant).and_then(|process| {
            let refused = |error| StartError::System(error).to_string();
            Self::new(shared, tenant, process).map_err(refused)
        });
        match next {
            Ok(next) => *self = next,
            Err(reason) => not_begun(&self.shared, &self.tenant, reason),
        }
    }

    /// Sleeps until there is something to do; true if the process has ended.
    fn wait(&self) -> bool {
        let timeout = self.overdue.map(|time| {
            let left = time.saturating_duration_since(moirai_runtime::instant());
            // A little more, so that the time has passed when we look.
            Timespec::try_from(left + Duration::from_millis(1))
                .unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
        });
        // A descriptor that is at its end would be readable for ever: its place is taken by
        // another.
        let control = self.child.control().as_fd();
        let control = if self.control_open { control } else { self.child.pidfd() };
        let fixed = [self.child.pidfd(), self.tenant.doorbell.as_fd(), control];
        let spoken = self.consoles.iter().chain(&self.words).map(AsFd::as_fd);
        let all = fixed.into_iter().chain(spoken);
        let mut fds: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let polled = poll(&mut fds, timeout.as_ref());
        let mut count = [0u8; 8];
        // Only clears the doorbell; that it was not rung is no error.
        let _ = rustix::io::read(&self.tenant.doorbell, &mut count);
        let gone = fds.first().is_some_and(|pidfd| pidfd.revents().contains(PollFlags::IN));
        polled.is_ok() && gone
    }

    fn hear_consoles(&mut self) {
        let console = &self.tenant.console;
        self.consoles.retain_mut(|stream| console.hear(stream));
        self.words.take_if(|stream| !self.said.hear(stream));
    }

    /// A process that says more at a time than it has to is heard again in the next turn.
    fn hear_control(&mut self) {
        for _ in 0..MESSAGES {
            match self.child.control().receive() {
                Ok((message, _unwanted_fds)) => self.told(message),
                Err(ChannelError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return;
                }
                Err(error) => {
                    self.control_open = false;
                    // The end of the stream means that the process ends; the rest is nonsense.
                    if !matches!(error, ChannelError::Closed | ChannelError::Io(_)) {
                        self.ends(view::failed(format!("the tenant process: {error}")));
                        self.happens(Event::Nonsense);
                    }
                    return;
                }
            }
        }
    }

    fn told(&mut self, message: ToHost) {
        match message {
            ToHost::Running { vcpu_tids, missing } => {
                for part in &missing {
                    tracing::warn!(tenant = self.tenant.name, part, "the sandbox is incomplete");
                }
                let wanted = self.tenant.with(|live| {
                    live.missing = missing;
                    live.spec.cores.len()
                });
                if vcpu_tids.len() == wanted {
                    self.tids = vcpu_tids;
                    self.happens(Event::Built);
                } else {
                    let count = vcpu_tids.len();
                    let reason = format!("the tenant process reported {count} vCPUs, not {wanted}");
                    self.ends(view::failed(reason));
                    self.happens(Event::Nonsense);
                }
            }
            ToHost::Failed { stage, error, hint } => {
                self.ends(view::not_built(stage, &error, &hint));
                self.happens(Event::Finished);
            }
            ToHost::Balloon(report) => self.tenant.balloon_answered(report),
            ToHost::Exited { reason, console_dropped_bytes } => {
                if console_dropped_bytes > 0 {
                    let tenant = &self.tenant.name;
                    tracing::warn!(tenant, console_dropped_bytes, "console output was lost");
                }
                self.reset = reason == ExitReason::Reset;
                // What the guest has said before is the reason if it failed.
                self.hear_consoles();
                let is_kernel = self.tenant.with(|live| live.spec.is_kernel);
                self.ends(view::exited(&reason, is_kernel, self.tenant.console.last_word()));
                self.happens(Event::Finished);
            }
        }
    }

    /// Notes why the tenant ends; the first reason counts.
    fn ends(&self, end: End) {
        self.tenant.with(|live| live.ends(end));
    }

    /// The one place where a step is carried out, and the phase after it entered.
    fn happens(&mut self, event: Event) {
        let before = self.tenant.phase();
        let turn = self.tenant.with(|live| live.life.turn(event));
        if turn.begins(Phase::Stopping) {
            self.overdue = Some(moirai_runtime::instant() + self.stop_patience(event));
        }
        match turn.step() {
            Step::Wait => {}
            Step::Dispatch => return self.dispatch(turn),
            Step::AskToStop => {
                if self.child.control().send(&FromHost::Stop, &[]).is_err() {
                    self.child.kill();
                }
            }
            Step::Kill => {
                if event == Event::Overdue {
                    self.ends(view::failed(format!(
                        "it was {before:?} for too long and was killed"
                    )));
                }
                self.child.kill();
            }
            Step::GiveBack => return self.give_back(turn),
            Step::StartAgain => return self.start_again(turn),
        }
        self.tenant.with(|live| live.life.enter(turn));
    }

    /// How long the process may take from `event` to its end.
    fn stop_patience(&self, event: Event) -> Duration {
        let (button, time) = self.tenant.with(|live| (live.spec.is_kernel, live.spec.stop_after));
        let asked = event == Event::StopAsked && button;
        if asked { STOP_PATIENCE + time } else { STOP_PATIENCE }
    }

    /// Passes on what the guest is to give back.
    fn hear_balloon(&mut self) {
        if self.tenant.phase() != Phase::Running {
            return;
        }
        if let Some(message) = self.tenant.with(|live| live.balloon.message()) {
            // A process that hears nothing more ends soon.
            let _ = self.child.control().send(&message, &[]);
        }
    }

    /// Heeds a wish to end the tenant, and one to end it at once that may come later.
    fn hear_stop(&mut self) {
        let (asked, at_once) = self.tenant.with(|live| (live.stop_asked, live.at_once));
        if asked && !self.stop_seen {
            self.stop_seen = true;
            self.happens(Event::StopAsked);
        }
        if at_once && self.tenant.phase() == Phase::Stopping {
            self.ends(view::exited(&ExitReason::Stopped, true, None));
            self.child.kill();
        }
    }

    /// Hands the vCPUs to the dispatcher of their core; the tenant runs from then on.
    fn dispatch(&mut self, turn: Turn) {
        self.overdue = None;
        let spec = self.tenant.with(|live| live.spec.clone());
        let pid = self.child.pid().cast_signed();
        if let Err(error) = self.attach_vcpus(&spec, pid) {
            self.ends(view::failed(error.to_string()));
            return self.happens(Event::Nonsense);
        }
        tracing::info!(tenant = spec.name, pid, cores = ?spec.cores, "runs");
        self.tenant.with(|live| live.life.enter(turn));
    }

    fn attach_vcpus(&self, spec: &model::Tenant, pid: i32) -> Result<(), DispatcherError> {
        for (index, (tid, &core)) in self.tids.iter().zip(&spec.cores).enumerate() {
            let gone = || DispatcherError::Gone { core };
            let dispatcher = self.shared.resources.dispatcher(core).ok_or_else(gone)?;
            let gate = self.gates.word(index).ok_or_else(gone)?;
            let tenant = spec.name.clone();
            let vcpu = VcpuSpec { tenant, pid, tid: *tid, gate, contract: spec.cpu };
            let id = dispatcher.attach(vcpu)?;
            self.tenant.with(|live| live.vcpus.push(Vcpu { core, id }));
        }
        Ok(())
    }

    fn give_back(&mut self, turn: Turn) {
        let ended = self.child.wait();
        let reason = match ended {
            Ok(Ended::Signalled(libc::SIGSYS)) => "it broke its seccomp filter (SIGSYS)".to_owned(),
            Ok(Ended::Signalled(libc::SIGKILL)) if self.group.ran_out_of_memory() => {
                "it took more memory than its process may have beside its guest's, and was killed"
                    .to_owned()
            }
            Ok(Ended::Signalled(signal)) => format!("it was killed by signal {signal}"),
            Ok(Ended::Exited(status)) => format!("its process ended with status {status}"),
            Err(error) => format!("its process cannot be waited for: {error}"),
        };
        self.hear_last_words();
        self.ends(view::failed(reason));
        give_back(&self.shared, &self.tenant, turn);
    }

    /// Reads the consoles to their end: the last words matter most.
    fn hear_last_words(&mut self) {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            self.hear_consoles();
            let spoken = self.consoles.iter().chain(&self.words);
            let mut fds: Vec<_> = spoken.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            if fds.is_empty() || !matches!(poll(&mut fds, Some(&at_once)), Ok(1..)) {
                return;
            }
        }
    }
}

fn start_patience(spec: &model::Tenant) -> Duration {
    let touched = if spec.prefault { spec.memory >> 20 } else { 0 };
    let touched = u32::try_from(touched).unwrap_or(u32::MAX);
    START_PATIENCE + PREFAULT_PATIENCE_PER_MIB.saturating_mul(touched)
}
