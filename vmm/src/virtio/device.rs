//! A virtio device of this VM: a transport over a vhost-user backend, connected with KVM so that
//! kicks and interrupts pass this process by.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use kvm_ioctls::{IoEventAddress, VmFd};
use moirai_abi::machine::{VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::VhostError;
use super::transport::{Outcome, Transport};
use super::vhost::{DeviceEvents, TIMEOUT, Vhost};
use crate::event;
use crate::launch::DeviceSpec;

/// Offset of QueueNotify in a window.
const QUEUE_NOTIFY: u64 = 0x50;

/// A device, shared by the vCPUs (registers) and the main thread (failures of the backend).
#[derive(Debug)]
pub struct Device {
    index: usize,
    transport: Mutex<Transport<Vhost>>,
    /// Copies of descriptors that the transport holds behind its lock.
    call: EventFd,
    error: EventFd,
    socket: OwnedFd,
    /// The failure of the backend was reported. A driver that tries again and again is told each
    /// time, but the log is not.
    reported: AtomicBool,
}

/// Why a device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Its backend.
    #[error(transparent)]
    Backend(#[from] VhostError),
    /// KVM refuses its eventfds.
    #[error("KVM refuses its eventfds: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    /// No more descriptors.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Device {
    /// Connects device number `index`, which interrupts as `gsi`, with its backend and with KVM.
    ///
    /// # Errors
    /// The backend does not answer or lacks something; KVM or the kernel refuse.
    pub fn new(
        index: usize,
        gsi: u32,
        spec: &DeviceSpec,
        socket: OwnedFd,
        vm: &VmFd,
        memory: GuestMemoryMmap,
    ) -> Result<Self, DeviceError> {
        let kicks = (0..spec.queues).map(|_| event::new()).collect::<io::Result<_>>()?;
        let events = DeviceEvents { kicks, call: event::new()?, error: event::new()? };
        // `LaunchSpec::validate` keeps the number of devices small.
        let window = VIRTIO_MMIO_BASE + index as u64 * VIRTIO_MMIO_SIZE;
        for (queue, kick) in (0u32..).zip(&events.kicks) {
            vm.register_ioevent(kick, &IoEventAddress::Mmio(window + QUEUE_NOTIFY), queue)?;
        }
        vm.register_irqfd(&events.call, gsi)?;
        let (call, error) = (events.call.try_clone()?, events.error.try_clone()?);
        let watched = socket.try_clone()?;
        let backend = Vhost::connect(socket, memory.clone(), events, TIMEOUT)?;
        let transport =
            Transport::new(backend, memory, spec.device_id, spec.queues, spec.queue_size);
        let (transport, reported) = (Mutex::new(transport), AtomicBool::new(false));
        Ok(Self { index, transport, call, error, socket: watched, reported })
    }

    /// A driver reads registers.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
    }

    /// A driver writes registers.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = transport.write(offset, data);
        if transport.status() == 0 {
            // What was broken is reset, and the backend has stopped: it says nothing more about it.
            let _ = self.error.read();
        }
        self.finish(&mut transport, outcome);
    }

    /// Descriptors that show that the backend has failed: its connection (by hanging up) and the
    /// eventfd of broken queues (by being readable).
    pub fn watched(&self) -> [BorrowedFd<'_>; 2] {
        [self.socket.as_fd(), event::borrow(&self.error)]
    }

    /// The backend is gone: the driver is told. Returns `false` if a vCPU holds the device, and it
    /// has to be tried again.
    pub fn backend_gone(&self) -> bool {
        let Ok(mut transport) = self.transport.try_lock() else { return false };
        let outcome = transport.fail();
        self.finish(&mut transport, outcome);
        true
    }

    /// The backend has found a queue broken: the driver is told, unless it has reset the device
    /// meanwhile. Returns as [`Device::backend_gone`].
    pub fn queue_broken(&self) -> bool {
        let Ok(mut transport) = self.transport.try_lock() else { return false };
        if self.error.read().is_ok() {
            let outcome = transport.fail();
            self.finish(&mut transport, outcome);
        }
        true
    }

    fn finish(&self, transport: &mut Transport<Vhost>, outcome: Outcome) {
        if let Some(error) = transport.take_error()
            && !self.reported.swap(true, Ordering::Relaxed)
        {
            eprintln!("moirai-tenant: device {}: {error}", self.index);
        }
        if outcome == Outcome::Interrupt {
            // Cannot fail: KVM empties the counter.
            let _ = self.call.write(1);
        }
    }
}
