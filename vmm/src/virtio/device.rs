//! A virtio device of this VM: a transport over a vhost-user backend, connected with KVM so that
//! kicks and interrupts pass this process by.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{IoEventAddress, VmFd};
use moirai_abi::machine::{VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE};
use vm_memory::GuestMemoryMmap;

use super::transport::Transport;
use super::vhost::TIMEOUT;
use super::{Backend, BackendError, DeviceEvents, Vhost};
use crate::event;
use crate::launch::DeviceSpec;

/// Offset of QueueNotify in a window.
const QUEUE_NOTIFY: u64 = 0x50;

/// A device, shared by the vCPUs (registers) and the main thread (failures of the backend).
#[derive(Debug)]
pub struct Device {
    index: usize,
    transport: Mutex<Transport<Box<dyn Backend + Send>>>,
    events: Arc<DeviceEvents>,
    /// The connection to a backend in another process.
    socket: Option<OwnedFd>,
    /// The failure of the backend was reported. A driver that tries again and again is told each
    /// time, but the log is not.
    reported: AtomicBool,
}

/// Why a device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Its backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// KVM refuses its eventfds.
    #[error("KVM refuses its eventfds: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    /// No more descriptors.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Device {
    /// Connects device number `index`, which interrupts as `gsi`, with its backend at the other end
    /// of `socket` and with KVM.
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
        let events = DeviceEvents::new(spec.queues)?;
        let watched = socket.try_clone()?;
        let backend = Vhost::connect(socket, memory.clone(), Arc::clone(&events), TIMEOUT)
            .map_err(BackendError::from)?;
        let backend = Box::new(backend);
        let device = Self::with_backend(index, gsi, spec, backend, events, vm, memory)?;
        Ok(Self { socket: Some(watched), ..device })
    }

    /// Connects device number `index`, which interrupts as `gsi`, with KVM. `backend` was made with
    /// `events`, which are those of `spec.queues` queues.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn with_backend(
        index: usize,
        gsi: u32,
        spec: &DeviceSpec,
        backend: Box<dyn Backend + Send>,
        events: Arc<DeviceEvents>,
        vm: &VmFd,
        memory: GuestMemoryMmap,
    ) -> Result<Self, DeviceError> {
        // `LaunchSpec::validate` keeps the number of devices small.
        let window = VIRTIO_MMIO_BASE + index as u64 * VIRTIO_MMIO_SIZE;
        for (queue, kick) in (0u32..).zip(&events.kicks) {
            vm.register_ioevent(kick, &IoEventAddress::Mmio(window + QUEUE_NOTIFY), queue)?;
        }
        for call in events.calls.iter().chain([events.config.interrupt()]) {
            vm.register_irqfd(call, gsi)?;
        }
        let shared = Arc::clone(&events);
        let transport = Transport::new(backend, memory, shared, spec.device_id, spec.queue_size);
        let (transport, reported) = (Mutex::new(transport), AtomicBool::new(false));
        Ok(Self { index, transport, events, socket: None, reported })
    }

    /// A driver reads registers.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
    }

    /// A driver writes registers.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
        transport.write(offset, data);
        if transport.status() == 0 {
            // What was broken is reset, and the backend has stopped: it says nothing more about it.
            let _ = self.events.error.read();
        }
        self.report(transport);
    }

    /// The connection to the backend, which shows by hanging up that the backend is gone; a backend
    /// in this process has none.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Readable when the backend has found a queue broken.
    pub fn broken(&self) -> BorrowedFd<'_> {
        event::borrow(&self.events.error)
    }

    /// The backend is gone: the driver is told. Returns `false` if a vCPU holds the device, and it
    /// has to be tried again.
    pub fn backend_gone(&self) -> bool {
        let Ok(mut transport) = self.transport.try_lock() else { return false };
        transport.fail();
        self.report(transport);
        true
    }

    /// The backend has found a queue broken: the driver is told, unless it has reset the device
    /// meanwhile. Returns as [`Device::backend_gone`].
    pub fn queue_broken(&self) -> bool {
        let Ok(mut transport) = self.transport.try_lock() else { return false };
        if self.events.error.read().is_ok() {
            transport.fail();
            self.report(transport);
        }
        true
    }

    fn report(&self, mut transport: MutexGuard<'_, Transport<Box<dyn Backend + Send>>>) {
        if let Some(error) = transport.take_error()
            && !self.reported.swap(true, Ordering::Relaxed)
        {
            eprintln!("moirai-tenant: device {}: {error}", self.index);
        }
    }
}
