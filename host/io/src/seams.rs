//! The seams of the I/O domain: all that it asks of the world. Production and tests use the same
//! ones.
//!
//! | seam | here | in tests |
//! | --- | --- | --- |
//! | [`Machine`]: the time, and hands for what the loop must not do | [`Linux`] | a virtual clock |
//! | [`Ring`]: operations and completions | io_uring | any order, any time, any error |
//! | [`Storage`]: what a disk shows | a volume | one that is short, slow, broken |
//! | [`Link`]: where packets go | a TAP | one that refuses, takes long, comes back |

use moirai_confine::Role;
use moirai_devices::backend::tap::Tap;
use moirai_devices::backend::uring::Uring;
use moirai_devices::backend::{Link, Ring, Storage, Volume};
use moirai_runtime::{Turns, pin, set_scheduler, set_scheduler_inherited};
use moirai_scheduler::{Amount, Moment};

/// Of the loop: below the dispatchers, above everything that serves no contract.
pub const PRIORITY: i32 = 80;

/// Something to be done elsewhere.
pub(crate) type Errand = Box<dyn FnOnce() + Send>;

/// The world of one domain.
pub(crate) trait Seams: 'static {
    type Machine: Machine;
    type Ring: Ring;
    type Storage: Storage + Send;
    type Link: Link;
}

/// The time, and hands.
pub(crate) trait Machine {
    /// The time.
    fn now(&self) -> Moment;

    /// A turn begins, or the loop looks once more.
    fn turns(&self, _now: Moment) {}

    /// The loop waits for something to happen.
    fn rests(&self, _now: Moment) {}

    /// CPU time that the loop has used.
    fn cpu_time(&self) -> Amount;

    /// Has an errand run off the loop, some time soon. If that cannot be, it is dropped undone.
    fn send_off(&self, name: &'static str, errand: Errand);

    /// Calls `submit`, which may make the kernel's workers: threads that take class and priority of
    /// this one when they are made, and are to stand below it, but above everything that serves no
    /// contract. A flush that waits for a share of the core keeps its place in the disk for that
    /// long.
    fn with_workers_below(&self, submit: &mut dyn FnMut());
}

/// What the domains of a host service run on.
#[derive(Debug)]
pub(crate) struct OnLinux;

impl Seams for OnLinux {
    type Machine = Linux;
    type Ring = Uring;
    type Storage = Volume;
    type Link = Tap;
}

/// This machine, seen from the thread of a loop.
#[derive(Debug)]
pub(crate) struct Linux {
    /// The core that the loop is pinned to.
    pub(crate) core: Option<usize>,
    /// How the watchdog knows that the loop has not come back.
    pub(crate) turns: Option<Turns>,
}

impl Machine for Linux {
    fn now(&self) -> Moment {
        moirai_runtime::now()
    }

    fn turns(&self, now: Moment) {
        if let Some(turns) = &self.turns {
            turns.begin(now);
        }
    }

    fn rests(&self, now: Moment) {
        if let Some(turns) = &self.turns {
            turns.rest(now);
        }
    }

    fn cpu_time(&self) -> Amount {
        moirai_runtime::own_cpu_time()
    }

    /// Errands map guest memory in and unmap it. They take the lock of this process's address
    /// space, and the loop needs that lock when a device is attached. A thread of the fair class
    /// that is preempted with the lock in hand would make the loop wait for everything else on its
    /// core. So an errand runs just below the loop's own priority and on its core: when the loop
    /// sleeps, or waits for it.
    fn send_off(&self, name: &'static str, errand: Errand) {
        let core = self.core;
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            // Without the right to real-time priority the loop has none either.
            let placed = core.map_or(Ok(()), |core| pin(0, core));
            let _ = placed.and_then(|()| set_scheduler(0, libc::SCHED_FIFO, PRIORITY - 1));
            Role::Memory.enter_or_say();
            errand();
        });
        if let Err(error) = thread {
            tracing::warn!("no thread to {name}: {error}");
        }
    }

    fn with_workers_below(&self, submit: &mut dyn FnMut()) {
        // Without the right to real-time priority this thread would not have started.
        let _ = set_scheduler_inherited(libc::SCHED_FIFO, PRIORITY - 1);
        submit();
        let _ = set_scheduler_inherited(libc::SCHED_FIFO, PRIORITY);
    }
}
