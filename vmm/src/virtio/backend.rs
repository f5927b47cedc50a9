//! The seam between a virtio device and whatever serves its queues.
//!
//! [`Backend`] has two kinds of implementation: [`super::Vhost`] hands the queues to another
//! process; a thread of this process serves those of the devices in `own/`. Either is made from the
//! [`DeviceEvents`] of its device and then given to [`super::Device`], boxed.
//!
//! **Features and configuration space**: a transport asks for them at any time, also before a
//! driver is there. Writes into the configuration space arrive in any width and at any offset.
//!
//! **Queues** are served from [`Backend::start`] to [`Backend::stop`]. A kick is a write to
//! `kicks[queue]`. Kicks from before `start` mean nothing: look at every queue once after it. A
//! write to `calls[queue]` announces a used buffer; if another process serves, this process has no
//! part in that. Both calls come from a vCPU thread in the middle of a register access. The host
//! can stop that thread there at any instruction, so a serving thread must not wait for a lock that
//! is held across one of them.
//!
//! **A changed configuration space**: call [`ConfigChange::announce`] after the change, from any
//! thread.
//!
//! **A broken queue**: the backend serves the device no more and writes to `error`; the device
//! tells the driver to reset it. `stop` is called as ever.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::error::BackendError;
use super::queue::QueueAreas;
use crate::event;

/// What drives a device behind its transport.
pub trait Backend: Debug {
    /// Feature bits that may be offered to the driver; VERSION_1 need not be among them.
    fn features(&self) -> u64;

    /// Fills `data` from the configuration space. Beyond its end are zeros.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver writes into the configuration space. Most devices have no field for that.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Serve these queues with these features; a queue that is `None` is not used. The rings lie in
    /// guest memory as a whole and are aligned: the transport has checked that. What they contain
    /// is the guest's, and hostile.
    ///
    /// # Errors
    /// The device has failed; nothing is served.
    fn start(&mut self, features: u64, queues: &[Option<QueueAreas>]) -> Result<(), BackendError>;

    /// Serve no queue; returns when no more guest memory is touched.
    ///
    /// # Errors
    /// The device has failed, and whether it still touches memory is unknown.
    fn stop(&mut self) -> Result<(), BackendError>;
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    fn features(&self) -> u64 {
        (**self).features()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        (**self).read_config(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        (**self).write_config(offset, data);
    }

    fn start(&mut self, features: u64, queues: &[Option<QueueAreas>]) -> Result<(), BackendError> {
        (**self).start(features, queues)
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        (**self).stop()
    }
}

/// Fills `data` from a configuration space that is at hand as bytes, zeros beyond its end: the body
/// of most [`Backend::read_config`].
pub fn copy_config(space: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let rest = usize::try_from(offset).ok().and_then(|at| space.get(at..));
    for (byte, value) in data.iter_mut().zip(rest.unwrap_or_default()) {
        *byte = *value;
    }
}

/// The eventfds of a device, shared by its backend, its transport and KVM.
#[derive(Debug)]
pub struct DeviceEvents {
    /// Kick of each queue: KVM writes, the backend reads.
    pub kicks: Vec<EventFd>,
    /// Used buffers of each queue: the backend writes, KVM interrupts.
    pub calls: Vec<EventFd>,
    /// A queue that the backend found broken: the backend writes, the main thread reads.
    pub error: EventFd,
    /// The configuration space.
    pub config: ConfigChange,
}

impl DeviceEvents {
    /// Those of a device with this many queues.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn new(queues: u16) -> io::Result<Arc<Self>> {
        let many = || (0..queues).map(|_| event::new()).collect::<io::Result<Vec<_>>>();
        let config = ConfigChange {
            pending: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            interrupt: event::new()?,
        };
        Ok(Arc::new(Self { kicks: many()?, calls: many()?, error: event::new()?, config }))
    }

    /// Drops the interrupts that no driver has got, after a stop: they are of no interest to the
    /// next one.
    pub(super) fn forget_interrupts(&self) {
        self.config.acknowledge();
        for event in self.interrupts() {
            // Fails where there is nothing to drop.
            let _ = event.read();
        }
    }

    /// What interrupts the driver: every queue, then the configuration space.
    pub(crate) fn interrupts(&self) -> impl Iterator<Item = &EventFd> {
        self.calls.iter().chain([&self.config.interrupt])
    }
}

/// Tells a driver that the configuration space of its device has changed.
#[derive(Debug)]
pub struct ConfigChange {
    /// The driver has not acknowledged it.
    pending: AtomicBool,
    generation: AtomicU32,
    interrupt: EventFd,
}

impl ConfigChange {
    /// The configuration space has changed: interrupts the driver. Takes no lock.
    pub fn announce(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.pending.store(true, Ordering::Release);
        // Cannot fail: KVM empties the counter, or it counts further from where it is.
        let _ = self.interrupt.write(1);
    }

    /// Number of changes so far; tells a driver that reads several fields whether they belong
    /// together.
    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The driver knows. Returns whether there was anything to know.
    pub(super) fn acknowledge(&self) -> bool {
        self.pending.swap(false, Ordering::AcqRel)
    }
}
