//! The common configuration of a virtio function (virtio 1.2, section 4.1.4.3).
//!
//! Owns the selectors and the vectors that the driver has given to queues and configuration.

use super::state::State;
use crate::virtio::Backend;
use crate::virtio::queue::{QueueRegisters, set_high, set_low};

/// No vector.
pub const NO_VECTOR: u16 = 0xffff;

/// Registers over the state of a device.
#[derive(Debug)]
pub struct CommonConfig<B> {
    /// The device that the registers show.
    pub state: State<B>,
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
    /// Vector of each queue, then that of the configuration.
    vectors: Vec<u16>,
}

impl<B: Backend> CommonConfig<B> {
    /// Registers of a device after reset.
    pub fn new(state: State<B>) -> Self {
        let vectors = vec![NO_VECTOR; state.interrupt_sources().into()];
        Self { state, device_feature_select: 0, driver_feature_select: 0, queue_select: 0, vectors }
    }

    /// Vector of each queue, then that of the configuration; [`NO_VECTOR`] or one that exists.
    pub fn vectors(&self) -> &[u16] {
        &self.vectors
    }

    /// The driver reads the field at `offset`; a read of another width than the field's gives zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let value = match data.len() {
            1 => self.byte(offset).into(),
            2 => self.half(offset).into(),
            4 => self.word(offset),
            _ => 0,
        };
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, value)| *byte = value);
    }

    fn byte(&self, offset: u64) -> u8 {
        match offset {
            // All status bits are in the low byte; the generation is shown modulo 256.
            0x14 => self.state.status().to_le_bytes()[0],
            0x15 => self.state.events().config.generation().to_le_bytes()[0],
            _ => 0,
        }
    }

    fn half(&self, offset: u64) -> u16 {
        let queue = self.state.queue(self.queue_select.into());
        match (offset, queue) {
            (0x10, _) => self.vectors.last().copied().unwrap_or(NO_VECTOR),
            (0x12, _) => self.state.queues(),
            (0x16, _) => self.queue_select,
            (0x18, Some(queue)) => u16::try_from(queue.size).unwrap_or(0),
            (0x1a, Some(_)) => {
                self.vectors.get(usize::from(self.queue_select)).copied().unwrap_or(NO_VECTOR)
            }
            (0x1a, None) => NO_VECTOR,
            (0x1c, Some(queue)) => queue.ready.into(),
            (0x1e, Some(_)) => self.queue_select,
            _ => 0,
        }
    }

    fn word(&self, offset: u64) -> u32 {
        let queue = self.state.queue(self.queue_select.into());
        let word = |value: u64, high: bool| {
            let [low, upper] = [value & u64::from(u32::MAX), value >> 32];
            u32::try_from(if high { upper } else { low }).unwrap_or(0)
        };
        match (offset, queue) {
            (0x00, _) => self.device_feature_select,
            (0x04, _) => self.state.offered(self.device_feature_select),
            (0x08, _) => self.driver_feature_select,
            (0x0c, _) => self.state.chosen(self.driver_feature_select),
            (0x20 | 0x24, Some(queue)) => word(queue.descriptors, offset == 0x24),
            (0x28 | 0x2c, Some(queue)) => word(queue.driver, offset == 0x2c),
            (0x30 | 0x34, Some(queue)) => word(queue.device, offset == 0x34),
            _ => 0,
        }
    }

    /// The driver writes the field at `offset`; a write of another width than the field's, or to a
    /// field that it may not write now, is ignored. Addresses come as a whole or in halves.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        match *data {
            [value] if offset == 0x14 => self.set_status(value),
            [a, b] => self.write_half(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write_word(offset, u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] if offset >= 0x20 => {
                self.write_word(offset, u32::from_le_bytes([a, b, c, d]));
                self.write_word(offset.saturating_add(4), u32::from_le_bytes([e, f, g, h]));
            }
            _ => {}
        }
    }

    fn set_status(&mut self, value: u8) {
        self.state.set_status(value.into());
        if value == 0 {
            (self.device_feature_select, self.driver_feature_select) = (0, 0);
            self.queue_select = 0;
            self.vectors.fill(NO_VECTOR);
        }
    }

    fn write_half(&mut self, offset: u64, value: u16) {
        // A vector that does not exist reads back as none, which tells the driver.
        let vector = if usize::from(value) < self.vectors.len() { value } else { NO_VECTOR };
        let select = self.queue_select;
        match offset {
            0x10 => {
                if let Some(of_config) = self.vectors.last_mut() {
                    *of_config = vector;
                }
            }
            0x16 => self.queue_select = value,
            0x1a if select < self.state.queues() => {
                if let Some(of_queue) = self.vectors.get_mut(usize::from(select)) {
                    *of_queue = vector;
                }
            }
            0x18 => self.set_up(|queue| queue.size = value.into()),
            // A queue is only disabled by a reset.
            0x1c if value == 1 => self.set_up(|queue| queue.ready = true),
            _ => {}
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        match offset {
            0x00 => self.device_feature_select = value,
            0x08 => self.driver_feature_select = value,
            0x0c => self.state.choose(self.driver_feature_select, value),
            0x20 => self.set_up(|queue| set_low(&mut queue.descriptors, value)),
            0x24 => self.set_up(|queue| set_high(&mut queue.descriptors, value)),
            0x28 => self.set_up(|queue| set_low(&mut queue.driver, value)),
            0x2c => self.set_up(|queue| set_high(&mut queue.driver, value)),
            0x30 => self.set_up(|queue| set_low(&mut queue.device, value)),
            0x34 => self.set_up(|queue| set_high(&mut queue.device, value)),
            _ => {}
        }
    }

    /// A queue is set up before it is enabled.
    fn set_up(&mut self, change: impl FnOnce(&mut QueueRegisters)) {
        let queue = self.state.queue_mut(self.queue_select.into());
        if let Some(queue) = queue.filter(|queue| !queue.ready) {
            change(queue);
        }
    }
}
