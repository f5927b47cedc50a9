//! Registers of a virtio-mmio device, version 2 (virtio 1.2, section 4.2).

use super::state::{INTERRUPT_CONFIG_CHANGE, State};
use crate::virtio::Backend;
use crate::virtio::queue::{QueueRegisters, set_high, set_low};

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"MOIR");
/// Offset of QueueNotify in a window.
pub const QUEUE_NOTIFY: u64 = 0x50;
/// Start of the configuration space in the window.
const CONFIG: u64 = 0x100;

/// A virtio-mmio device.
#[derive(Debug)]
pub struct Mmio<B> {
    /// The device that the registers show.
    pub state: State<B>,
    features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
}

impl<B: Backend> Mmio<B> {
    /// Registers of a device after reset.
    pub fn new(state: State<B>) -> Self {
        Self { state, features_sel: 0, driver_features_sel: 0, queue_sel: 0 }
    }

    /// The driver reads `data.len()` bytes at `offset` of the window. Registers are 32 bits wide;
    /// reads of another width or place give zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(config_offset) = offset.checked_sub(CONFIG) {
            return self.state.backend.read_config(config_offset, data);
        }
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(word) if offset.is_multiple_of(4) => *word = self.register(offset).to_le_bytes(),
            _ => data.fill(0),
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.state.queue(self.queue_sel);
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.state.device_id(),
            0x0c => VENDOR,
            0x10 => self.state.offered(self.features_sel),
            0x34 => queue.map_or(0, |_| self.state.max_queue_size().into()),
            0x44 => queue.is_some_and(|queue| queue.ready).into(),
            0x60 => self.state.interrupt_status().into(),
            0x70 => self.state.status(),
            // No shared memory region has any length.
            0xb0..=0xbc => u32::MAX,
            0xfc => self.state.events().config.generation(),
            _ => 0,
        }
    }

    /// The driver writes `data` at `offset` of the window. Writes that mean nothing are ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(config_offset) = offset.checked_sub(CONFIG) {
            return self.state.backend.write_config(config_offset, data);
        }
        let Ok(word) = data.try_into() else { return };
        let value = u32::from_le_bytes(word);
        match offset {
            0x14 => self.features_sel = value,
            0x24 => self.driver_features_sel = value,
            0x20 => self.state.choose(self.driver_features_sel, value),
            0x30 => self.queue_sel = value,
            0x38 | 0x44 | 0x80..=0xa4 => {
                if let Some(queue) = self.state.queue_mut(self.queue_sel) {
                    write_queue(queue, offset, value);
                }
            }
            0x64 if value & u32::from(INTERRUPT_CONFIG_CHANGE) != 0 => {
                self.state.events().config.acknowledge();
            }
            0x70 => self.write_status(value),
            // QUEUE_NOTIFY reaches the backend as ioeventfd; here arrive only kicks of queues that
            // do not exist.
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32) {
        self.state.set_status(value);
        if value == 0 {
            (self.features_sel, self.driver_features_sel, self.queue_sel) = (0, 0, 0);
        }
    }
}

/// A queue is set up before it is made ready.
fn write_queue(queue: &mut QueueRegisters, offset: u64, value: u32) {
    if queue.ready && offset != 0x44 {
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
