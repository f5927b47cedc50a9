//! Registers of a virtio-mmio device, version 2 (virtio 1.2, section 4.2).
//!
//! Owns the device's status, features and queue registers; a [`Backend`] does the rest. Whatever a
//! driver writes, the worst that happens is that its own device needs a reset.

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use super::queue::{QueueRegisters, Ring, set_high, set_low};
use super::status::{self, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET, Step, step};
use super::{Backend, BackendError, DeviceEvents};

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"MOIR");
const VIRTIO_F_VERSION_1: u64 = 1 << 32;
/// Start of the configuration space in the window.
const CONFIG: u64 = 0x100;

const INTERRUPT_USED_BUFFER: u32 = 1;
const INTERRUPT_CONFIG_CHANGE: u32 = 2;

/// A virtio-mmio device.
#[derive(Debug)]
pub struct Transport<B> {
    backend: B,
    memory: GuestMemoryMmap,
    device_id: u32,
    max_queue_size: u16,
    status: u32,
    /// Whether the backend serves queues: between DRIVER_OK and a stop.
    live: bool,
    features_sel: u32,
    driver_features: u64,
    driver_features_sel: u32,
    queue_sel: u32,
    queues: Vec<QueueRegisters>,
    events: Arc<DeviceEvents>,
    last_error: Option<BackendError>,
}

impl<B: Backend> Transport<B> {
    /// A device after reset.
    pub fn new(
        backend: B,
        memory: GuestMemoryMmap,
        events: Arc<DeviceEvents>,
        device_id: u32,
        max_queue_size: u16,
    ) -> Self {
        Self {
            backend,
            memory,
            device_id,
            max_queue_size,
            status: 0,
            live: false,
            features_sel: 0,
            driver_features: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: vec![QueueRegisters::default(); events.kicks.len()],
            events,
            last_error: None,
        }
    }

    /// Present device status.
    pub fn status(&self) -> u32 {
        self.status
    }

    /// Why the backend failed last, once.
    pub fn take_error(&mut self) -> Option<BackendError> {
        self.last_error.take()
    }

    /// The driver reads `data.len()` bytes at `offset` of the window. Registers are 32 bits wide;
    /// reads of another width or place give zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(config_offset) = offset.checked_sub(CONFIG) {
            return self.backend.read_config(config_offset, data);
        }
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(word) if offset.is_multiple_of(4) => *word = self.register(offset).to_le_bytes(),
            _ => data.fill(0),
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.queue();
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device_id,
            0x0c => VENDOR,
            0x10 => half(self.offered(), self.features_sel),
            0x34 => queue.map_or(0, |_| self.max_queue_size.into()),
            0x44 => queue.is_some_and(|queue| queue.ready).into(),
            0x60 => self.interrupt_status(),
            0x70 => self.status,
            // No shared memory region has any length.
            0xb0..=0xbc => u32::MAX,
            0xfc => self.events.config.generation(),
            _ => 0,
        }
    }

    /// The backend raises the interrupt without this process, so whether a buffer was used is not
    /// known here: a live queue may always have been.
    fn interrupt_status(&self) -> u32 {
        let used = if self.live { INTERRUPT_USED_BUFFER } else { 0 };
        used | if self.events.config.is_pending() { INTERRUPT_CONFIG_CHANGE } else { 0 }
    }

    fn offered(&self) -> u64 {
        self.backend.features() | VIRTIO_F_VERSION_1
    }

    /// The driver writes `data` at `offset` of the window. Writes that mean nothing are
    /// ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(config_offset) = offset.checked_sub(CONFIG) {
            return self.backend.write_config(config_offset, data);
        }
        let Ok(word) = data.try_into() else { return };
        let value = u32::from_le_bytes(word);
        match offset {
            0x14 => self.features_sel = value,
            0x24 => self.driver_features_sel = value,
            0x20 => self.choose_features(value),
            0x30 => self.queue_sel = value,
            0x38 | 0x44 | 0x80..=0xa4 => self.write_queue(offset, value),
            0x64 if value & INTERRUPT_CONFIG_CHANGE != 0 => {
                self.events.config.acknowledge();
            }
            0x70 => self.write_status(value),
            // 0x50, QueueNotify, reaches the backend as ioeventfd; here arrive only kicks of
            // queues that do not exist.
            _ => {}
        }
    }

    /// Features are chosen between DRIVER and FEATURES_OK (section 3.1.1).
    fn choose_features(&mut self, value: u32) {
        if self.status != status::ACKNOWLEDGE | status::DRIVER {
            return;
        }
        match self.driver_features_sel {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            _ => {}
        }
    }

    /// Queues are set up between FEATURES_OK and DRIVER_OK (section 3.1.1), each before it is made
    /// ready.
    fn write_queue(&mut self, offset: u64, value: u32) {
        let configuring = self.status & (FEATURES_OK | DRIVER_OK | FAILED | NEEDS_RESET);
        let index = usize::try_from(self.queue_sel).unwrap_or(usize::MAX);
        let Some(queue) = self.queues.get_mut(index) else { return };
        if configuring != FEATURES_OK || (queue.ready && offset != 0x44) {
            return;
        }
        match offset {
            0x38 => queue.size = value,
            0x44 => queue.ready = value & 1 == 1,
            0x80 => set_low(&mut queue.descriptors, value),
            0x84 => set_high(&mut queue.descriptors, value),
            0x90 => set_low(&mut queue.driver, value),
            0x94 => set_high(&mut queue.driver, value),
            0xa0 => set_low(&mut queue.device, value),
            0xa4 => set_high(&mut queue.device, value),
            _ => {}
        }
    }

    fn queue(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        if value & FAILED != 0 {
            self.status |= FAILED;
            return self.stop();
        }
        match step(self.status, value) {
            Some(Step::Accept) => self.status = value,
            Some(Step::CheckFeatures) => {
                let wanted = self.driver_features;
                let known = wanted & !self.offered() == 0;
                // The driver reads the status back to see whether the bit was accepted.
                if known && wanted & VIRTIO_F_VERSION_1 != 0 {
                    self.status = value;
                }
            }
            Some(Step::Start) => {
                self.status = value;
                self.start();
            }
            None => {}
        }
    }

    fn start(&mut self) {
        let ring = |queue: &QueueRegisters| match queue.ready {
            true => queue.ring(self.max_queue_size, &self.memory).map(Some),
            false => Some(None),
        };
        let rings: Option<Vec<Option<Ring>>> = self.queues.iter().map(ring).collect();
        // A ring that cannot be is the driver's mistake.
        let Some(rings) = rings else { return self.fail() };
        match self.backend.start(self.driver_features, &rings) {
            Ok(()) => self.live = true,
            Err(error) => {
                self.last_error = Some(error);
                self.fail();
            }
        }
    }

    /// The device has met an error: the driver is told to reset it.
    pub fn fail(&mut self) {
        self.stop();
        self.status |= NEEDS_RESET;
        if self.status & DRIVER_OK != 0 {
            self.events.config.announce();
        }
    }

    fn stop(&mut self) {
        if std::mem::take(&mut self.live)
            && let Err(error) = self.backend.stop()
        {
            self.last_error = Some(error);
        }
    }

    fn reset(&mut self) {
        self.stop();
        self.status = 0;
        self.driver_features = 0;
        (self.features_sel, self.driver_features_sel, self.queue_sel) = (0, 0, 0);
        self.queues.fill(QueueRegisters::default());
        self.events.config.acknowledge();
    }
}

/// 32 of 64 feature bits; none beyond them.
fn half(features: u64, select: u32) -> u32 {
    let [low, high] = [features & u64::from(u32::MAX), features >> 32];
    let value = match select {
        0 => low,
        1 => high,
        _ => 0,
    };
    u32::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
