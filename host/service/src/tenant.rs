//! The entry of one tenant: what its supervisor knows and others may see, ask for, and wait for.

mod balloon;

use moirai_api::{End, FailedTenant, Phase};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use moirai_launch::BalloonReport;
use rustix::event::{EventfdFlags, eventfd};

use super::console::Console;
use super::life::{Life, Turn};

use super::lock;
use super::served::{Admitted, ServedDevice};

use super::vsock::Vsock;
use balloon::Balloon;
use moirai_config::{Holder, model};
use moirai_cpu::VcpuId;

/// A tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) console: Arc<Console>,
    /// Wakes the supervisor.
    pub(super) doorbell: OwnedFd,
    /// Held while its contracts change.
    pub(super) changing: Mutex<()>,
    live: Mutex<Live>,
    changed: Condvar,
    /// The host's end of the console, for typing.
    keyboard: Mutex<Option<UnixStream>>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// What changes in a tenant's life.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) life: Life,
    pub(super) stop_asked: bool,
    /// It was asked to end without being given time.
    pub(super) at_once: bool,
    /// How often it was started again.
    pub(super) restarts: u32,
    pub(super) spec: model::Tenant,
    pub(super) pid: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) devices: Vec<ServedDevice>,
    /// What is promised to it, until it has ended.
    pub(super) admitted: Option<Admitted>,
    /// Held for its end.
    pub(super) vsock: Option<Vsock>,
    pub(super) balloon: Balloon,
    /// Parts of the sandbox that could not be had.
    pub(super) missing: Vec<String>,
    /// Why it ends or has ended.
    end: Option<End>,
    /// When it has ended.
    pub(super) ended_at: Option<Instant>,
}

impl Live {
    /// Notes why the tenant ends; the first reason counts.
    pub(super) fn ends(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Why it ends or has ended; `None` as long as nothing is known.
    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The next process takes the place of the one that has ended.
    pub(super) fn begins_again(&mut self, turn: Turn) {
        self.life.enter(turn);
        self.end = None;
        self.restarts += 1;
    }
}

/// A virtual CPU at the dispatcher of its core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vcpu {
    pub(super) core: usize,
    pub(super) id: VcpuId,
}

impl Tenant {
    /// The entry of a tenant that is about to start.
    ///
    /// # Errors
    /// No descriptor left.
    pub(super) fn new(spec: model::Tenant, admitted: Admitted) -> std::io::Result<Self> {
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let name = spec.name.clone();
        let live = Live {
            life: Life::new(),
            stop_asked: false,
            at_once: false,
            restarts: 0,
            spec,
            pid: None,
            uid: None,
            vcpus: Vec::new(),
            devices: Vec::new(),
            admitted: Some(admitted),
            vsock: None,
            balloon: Balloon::default(),
            missing: Vec::new(),
            end: None,
            ended_at: None,
        };
        Ok(Self {
            console: Arc::new(Console::new(&name)),
            name,
            doorbell,
            changing: Mutex::new(()),
            live: Mutex::new(live),
            changed: Condvar::new(),
            keyboard: Mutex::new(None),
            supervisor: Mutex::new(None),
        })
    }

    /// It, as one that holds promises.
    pub(super) fn holder(&self) -> Holder {
        Holder::Tenant(self.name.clone())
    }

    /// Looks at, or changes, what is known of the tenant.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Live) -> T) -> T {
        let mut live = lock(&self.live);
        let before = live.life.phase();
        let result = f(&mut live);
        if live.life.phase() != before {
            self.changed.notify_all();
        }
        result
    }

    /// Where the tenant is in its life.
    pub(super) fn phase(&self) -> Phase {
        lock(&self.live).life.phase()
    }

    /// How the tenant has failed, if it has.
    pub(super) fn failed(&self) -> Option<FailedTenant> {
        let live = lock(&self.live);
        let end = live.end.as_ref().filter(|end| live.life.phase() == Phase::Ended && !end.ok)?;
        Some(FailedTenant { name: self.name.clone(), reason: end.reason.clone() })
    }

    /// Asks the supervisor to end the tenant, by its power button if it has one, or `at_once`. Does
    /// not wait.
    pub(super) fn ask_to_stop(&self, at_once: bool) {
        let mut live = lock(&self.live);
        live.stop_asked = true;
        live.at_once |= at_once;
        drop(live);
        self.ring();
    }

    /// Wakes the supervisor.
    pub(super) fn ring(&self) {
        // A counter that is full already wakes it just as well.
        let _ = rustix::io::write(&self.doorbell, &1u64.to_ne_bytes());
    }

    /// Notes what the balloon says.
    pub(super) fn balloon_answered(&self, report: BalloonReport) {
        lock(&self.live).balloon.answered(report);
        self.changed.notify_all();
    }

    /// Waits until the phase is as wanted; false if that takes longer than `patience`.
    pub(super) fn wait(&self, patience: Duration, wanted: impl Fn(Phase) -> bool) -> bool {
        self.wait_until(patience, |live| wanted(live.life.phase()))
    }

    /// Waits until phase or balloon are as wanted; false if that takes longer than `patience`.
    pub(super) fn wait_until(&self, patience: Duration, wanted: impl Fn(&Live) -> bool) -> bool {
        let live = lock(&self.live);
        let waited = self.changed.wait_timeout_while(live, patience, |live| !wanted(live));
        wanted(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Keeps the thread that supervises the tenant.
    pub(super) fn set_supervisor(&self, thread: JoinHandle<()>) {
        *lock(&self.supervisor) = Some(thread);
    }

    /// Waits until the tenant has ended and its supervisor holds nothing any more; false if that
    /// takes longer than `patience`.
    pub(super) fn wait_for_end(&self, patience: Duration) -> bool {
        let ended = self.wait(patience, |phase| phase == Phase::Ended);
        let supervisor = lock(&self.supervisor).take_if(|_| ended);
        // It only returns from here; that it panicked was said when it did.
        let _ = supervisor.map(JoinHandle::join);
        ended
    }

    /// Connects the keyboard, or takes it away.
    pub(super) fn set_keyboard(&self, socket: Option<UnixStream>) {
        *lock(&self.keyboard) = socket;
    }

    /// Types on the console without waiting for the guest; returns how many bytes it took, `None`
    /// if there is nobody.
    pub(super) fn type_on_console(&self, bytes: &[u8]) -> Option<usize> {
        let mut keyboard = lock(&self.keyboard);
        match keyboard.as_mut()?.write(bytes) {
            Ok(taken) => Some(taken),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(0),
            Err(_) => None,
        }
    }
}
