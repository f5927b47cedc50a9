//! A virtio device of this VM: its registers over its backend. KVM connects kicks and interrupts,
//! so they do not pass through this process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::IoEventAddress;
use moirai_abi::machine::{VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE};
use vm_memory::GuestMemoryMmap;

use super::transport::mmio::QUEUE_NOTIFY;
use super::transport::{Mmio, Pci, State};
use super::vhost::TIMEOUT;
use super::wires::KvmWires;
use super::{Backend, BackendError, DeviceEvents, Vhost};
use crate::event;
use crate::interrupts::Interrupts;
use crate::pci::{BAR_BYTES, Function, bar_base};
use moirai_launch::DeviceSpec;

/// A base address that stands for "nowhere": no register lies behind it.
const NOWHERE: u64 = u64::MAX;

/// What leads a driver to a device.
#[derive(Clone, Copy, Debug)]
pub enum Bus {
    /// A register window; its interrupt number.
    Mmio(u32),
    /// A PCI function.
    Pci,
}

/// Where in the VM a device is to be.
#[derive(Clone, Debug)]
pub struct Place {
    /// Number of the window or the function.
    pub index: usize,
    /// Which of them.
    pub bus: Bus,
    /// Interrupts of the VM.
    pub interrupts: Arc<Interrupts>,
    /// Guest memory.
    pub memory: GuestMemoryMmap,
}

type Served = Box<dyn Backend + Send>;

#[derive(Debug)]
enum Registers {
    Mmio(Mmio<Served>),
    Pci(Box<Pci<Served, KvmWires>>),
}

impl Registers {
    fn state_mut(&mut self) -> &mut State<Served> {
        match self {
            Self::Mmio(mmio) => &mut mmio.state,
            Self::Pci(pci) => pci.state_mut(),
        }
    }
}

/// A device, shared by the vCPUs (registers) and the main thread (failures of the backend).
#[derive(Debug)]
pub struct Device {
    index: usize,
    registers: Mutex<Registers>,
    /// Where its registers are in the guest, and how many bytes of them.
    base: AtomicU64,
    len: u64,
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
    /// A device with its backend at the other end of `socket`.
    ///
    /// # Errors
    /// The backend does not answer or lacks something; KVM or the kernel refuse.
    pub fn new(place: Place, spec: &DeviceSpec, socket: OwnedFd) -> Result<Self, DeviceError> {
        let events = DeviceEvents::new(spec.queues)?;
        let watched = socket.try_clone()?;
        let memory = place.memory.clone();
        let backend = Vhost::connect(socket, memory, Arc::clone(&events), TIMEOUT)
            .map_err(BackendError::from)?;
        let device = Self::with_backend(place, spec, Box::new(backend), events)?;
        Ok(Self { socket: Some(watched), ..device })
    }

    /// A device with a backend that was made with `events`, which are those of `spec.queues`
    /// queues.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn with_backend(
        place: Place,
        spec: &DeviceSpec,
        backend: Box<dyn Backend + Send>,
        events: Arc<DeviceEvents>,
    ) -> Result<Self, DeviceError> {
        let Place { index, bus, interrupts, memory } = place;
        let shared = Arc::clone(&events);
        let state = State::new(backend, memory, shared, spec.device_id, spec.queue_size);
        let (registers, base, len) = match bus {
            Bus::Mmio(gsi) => {
                // `LaunchSpec::validate` keeps the number of devices small.
                let window = VIRTIO_MMIO_BASE + index as u64 * VIRTIO_MMIO_SIZE;
                connect_window(&interrupts, &events, window, gsi)?;
                (Registers::Mmio(Mmio::new(state)), window, VIRTIO_MMIO_SIZE)
            }
            Bus::Pci => {
                let wires = KvmWires::new(interrupts, Arc::clone(&events));
                let pci = Pci::new(state, wires, bar_base(index));
                (Registers::Pci(Box::new(pci)), NOWHERE, BAR_BYTES.into())
            }
        };
        let (registers, base) = (Mutex::new(registers), AtomicU64::new(base));
        let reported = AtomicBool::new(false);
        Ok(Self { index, registers, base, len, events, socket: None, reported })
    }

    /// Where in its registers `address` of the guest is, if it is there.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base.load(Ordering::Acquire))?;
        (offset < self.len).then_some(offset)
    }

    /// A driver reads registers.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        match &mut *self.lock() {
            Registers::Mmio(mmio) => mmio.read(offset, data),
            Registers::Pci(pci) => pci.read(offset, data),
        }
    }

    /// A driver writes registers.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut registers = self.lock();
        match &mut *registers {
            Registers::Mmio(mmio) => mmio.write(offset, data),
            Registers::Pci(pci) => pci.write(offset, data),
        }
        self.written(registers);
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self, mut registers: MutexGuard<'_, Registers>) {
        if registers.state_mut().status() == 0 {
            // What was broken is reset, and the backend has stopped: it says nothing more about it.
            let _ = self.events.error.read();
        }
        self.report(registers);
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
        let Ok(mut registers) = self.registers.try_lock() else { return false };
        registers.state_mut().fail();
        self.report(registers);
        true
    }

    /// The backend has found a queue broken: the driver is told, unless it has reset the device
    /// meanwhile. Returns as [`Device::backend_gone`].
    pub fn queue_broken(&self) -> bool {
        let Ok(mut registers) = self.registers.try_lock() else { return false };
        if self.events.error.read().is_ok() {
            registers.state_mut().fail();
            self.report(registers);
        }
        true
    }

    fn report(&self, mut registers: MutexGuard<'_, Registers>) {
        if let Some(error) = registers.state_mut().take_error()
            && !self.reported.swap(true, Ordering::Relaxed)
        {
            eprintln!("moirai-tenant: device {}: {error}", self.index);
        }
    }
}

/// Only devices on PCI have a configuration space; others answer as nothing would.
impl Function for Device {
    fn config_read(&self, register: usize, data: &mut [u8]) {
        match &mut *self.lock() {
            Registers::Pci(pci) => pci.config_read(register, data),
            Registers::Mmio(_) => data.fill(0xff),
        }
    }

    fn config_write(&self, register: usize, data: &[u8]) {
        let mut registers = self.lock();
        if let Registers::Pci(pci) = &mut *registers {
            pci.config_write(register, data);
            self.base.store(pci.bar().unwrap_or(NOWHERE), Ordering::Release);
        }
        self.written(registers);
    }
}

/// A window has one doorbell, told apart by what is written, and one interrupt for everything.
fn connect_window(
    interrupts: &Interrupts,
    events: &DeviceEvents,
    window: u64,
    gsi: u32,
) -> Result<(), kvm_ioctls::Error> {
    let vm = interrupts.vm();
    for (queue, kick) in (0u32..).zip(&events.kicks) {
        vm.register_ioevent(kick, &IoEventAddress::Mmio(window + QUEUE_NOTIFY), queue)?;
    }
    events.interrupts().try_for_each(|event| vm.register_irqfd(event, gsi))
}
