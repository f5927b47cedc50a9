//! Finding and starting virtio devices behind virtio-mmio windows (virtio 1.2, sections 3.1 and
//! 4.2); the register transport is that of the `virtio-drivers` crate.
#![allow(unsafe_code, reason = "maps device registers")]

use crate::args::DeviceWindow;
use crate::interrupts;
use crate::memory::OutOfMemory;
use crate::platform::write_register;
use crate::virtqueue::{Virtqueue, VirtqueueError};
use core::ptr::NonNull;
use thiserror::Error;
use virtio_drivers::transport::mmio::{MmioError, MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

/// VIRTIO_F_EVENT_IDX.
pub(crate) const EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;
/// Offset of the register InterruptACK, and the interrupt that is acknowledged there.
const INTERRUPT_ACK: usize = 0x64;
const USED_BUFFER: u32 = 1;
/// Larger rings than this only cost cache.
const RING_SIZE_MAX: u32 = 1024;

/// A device cannot be used (any more).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VirtioError {
    /// None of the announced windows shows such a device.
    #[error("no {0} device: the tenant's configuration has to give it one")]
    Absent(&'static str),
    /// The command line announces a window where there is none.
    #[error("no virtio-mmio registers at {0:#x}, although the command line announces them")]
    NoWindow(u64),
    /// The device speaks only the legacy interface.
    #[error("a legacy virtio device; on QEMU add -global virtio-mmio.force-legacy=false")]
    Legacy,
    /// The device did not accept the features.
    #[error("the device refused features {0:#x}, all of which it had offered")]
    FeaturesRefused(u64),
    /// The device has no such queue.
    #[error("the device has no queue {0}")]
    NoQueue(u16),
    /// A field of the configuration space cannot be read.
    #[error("the device's configuration space is too small")]
    ConfigSpace,
    /// The device broke the rules of a ring.
    #[error("the device misbehaves: {0}")]
    Virtqueue(#[from] VirtqueueError),
    /// The device said that it wrote more than it was given room for.
    #[error("the device misbehaves: it wrote {written} bytes into a buffer of {room}")]
    Overrun {
        /// Bytes it says it wrote.
        written: u32,
        /// Bytes there were.
        room: usize,
    },
    /// The device has given up.
    #[error("the device needs a reset (status {0:#x})")]
    NeedsReset(u32),
    /// No memory for rings or buffers.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

/// A started device: its registers, the features agreed on and its interrupt slot.
#[derive(Debug)]
pub struct Device {
    base: usize,
    transport: MmioTransport<'static>,
    features: u64,
    slot: u32,
}

impl Device {
    /// Opens the `number`th device of a kind and agrees on those of `wanted` features that it
    /// offers. Queues follow, then [`Device::start`].
    ///
    /// # Errors
    /// [`VirtioError`].
    pub fn open(
        windows: &[DeviceWindow],
        kind: DeviceType,
        number: usize,
        wanted: u64,
    ) -> Result<Self, VirtioError> {
        let absent = VirtioError::Absent(match kind {
            DeviceType::Block => "block",
            DeviceType::Network => "network",
            _ => "such",
        });
        let mut seen = 0;
        for (index, window) in windows.iter().enumerate() {
            let Some((base, transport)) = probe(window)? else { continue };
            if transport.device_type() == kind {
                if seen == number {
                    let slot = interrupts::slot_of(index);
                    interrupts::route(window.gsi, slot);
                    return Self::negotiate(base, transport, slot, wanted);
                }
                seen += 1;
            }
            // Dropping a transport resets its device; this one may be in use.
            core::mem::forget(transport);
        }
        Err(absent)
    }

    fn negotiate(
        base: usize,
        mut transport: MmioTransport<'static>,
        slot: u32,
        wanted: u64,
    ) -> Result<Self, VirtioError> {
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(DeviceStatus::empty());
        transport.set_status(status);
        let offered = transport.read_device_features();
        if offered & VERSION_1 == 0 {
            return Err(VirtioError::Legacy);
        }
        let features = offered & (wanted | VERSION_1);
        transport.write_driver_features(features);
        status |= DeviceStatus::FEATURES_OK;
        transport.set_status(status);
        if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Err(VirtioError::FeaturesRefused(features));
        }
        Ok(Self { base, transport, features, slot })
    }

    /// Sets up a queue.
    ///
    /// # Errors
    /// [`VirtioError::NoQueue`], [`VirtioError::Memory`].
    pub fn ring(&mut self, queue: u16) -> Result<Virtqueue, VirtioError> {
        let max = self.transport.max_queue_size(queue).min(RING_SIZE_MAX);
        let size = u16::try_from(max.checked_ilog2().map_or(0, |bits| 1 << bits)).unwrap_or(0);
        if size < 2 {
            return Err(VirtioError::NoQueue(queue));
        }
        let ring = Virtqueue::new(size, self.has(EVENT_IDX))?;
        let [descriptors, driver, device] = ring.addresses();
        self.transport.queue_set(queue, size.into(), descriptors, driver, device);
        Ok(ring)
    }

    /// Says that the driver is ready (DRIVER_OK).
    pub fn start(&mut self) {
        self.transport.finish_init();
    }

    /// Was this feature agreed on?
    #[must_use]
    pub fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Reads a 16-bit field of the configuration space.
    ///
    /// # Errors
    /// [`VirtioError::ConfigSpace`].
    pub fn config_half(&self, offset: usize) -> Result<u16, VirtioError> {
        self.transport.read_config_space(offset).map_err(|_| VirtioError::ConfigSpace)
    }

    /// Reads a 32-bit field of the configuration space.
    ///
    /// # Errors
    /// [`VirtioError::ConfigSpace`].
    pub fn config_word(&self, offset: usize) -> Result<u32, VirtioError> {
        self.transport.read_config_space(offset).map_err(|_| VirtioError::ConfigSpace)
    }

    /// Shows what was queued to the device, with a doorbell if it wants one.
    pub fn kick(&mut self, queue: u16, ring: &mut Virtqueue) {
        if ring.publish() {
            self.transport.notify(queue);
        }
    }

    /// Acknowledges a used-buffer interrupt. Devices that hold their line until then (QEMU's) need
    /// it; nobody reads the status, which would be one more exit.
    pub fn acknowledge(&mut self) {
        // SAFETY: InterruptACK of a window that `probe` has found to be virtio-mmio.
        unsafe { write_register(self.base + INTERRUPT_ACK, USED_BUFFER) }
    }

    /// The byte of the pending word that this device's interrupt sets.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Has the device given up?
    ///
    /// # Errors
    /// [`VirtioError::NeedsReset`].
    pub fn check_alive(&self) -> Result<(), VirtioError> {
        let status = self.transport.get_status();
        if status.contains(DeviceStatus::DEVICE_NEEDS_RESET) {
            return Err(VirtioError::NeedsReset(status.bits()));
        }
        Ok(())
    }
}

/// Looks into a window; `None` if it is empty.
fn probe(window: &DeviceWindow) -> Result<Option<(usize, MmioTransport<'static>)>, VirtioError> {
    let (Ok(base), Ok(size)) = (usize::try_from(window.base), usize::try_from(window.size)) else {
        return Ok(None);
    };
    let Some(header) = NonNull::new(base as *mut VirtIOHeader) else { return Ok(None) };
    // SAFETY: the VMM announced a virtio-mmio window there; `Args` checked that it is aligned and
    // within the mapped 4 GiB. A device has one driver, as applications open each device once.
    match unsafe { MmioTransport::new(header, size) } {
        Ok(transport) => Ok(Some((base, transport))),
        Err(MmioError::InvalidDeviceID(_)) => Ok(None),
        Err(_) => Err(VirtioError::NoWindow(window.base)),
    }
}
