//! The machine that vCPUs see around them: ports, device windows, and how it all ends.
//!
//! State is shared by all vCPU threads, each device behind its own lock. The main thread only ever
//! tries these locks (see [`crate::vcpu::gate`]).

use std::sync::{Mutex, OnceLock, PoisonError};

use moirai_abi::machine::{
    RESET_COMMAND, RESET_PORT, SERIAL_PORT, SLEEP_CONTROL_PORT, SLEEP_CONTROL_POWER_OFF,
    VIRTIO_MMIO_BASE, VIRTIO_MMIO_SIZE,
};
use vmm_sys_util::eventfd::EventFd;

use crate::console::SerialPort;
use crate::launch::ExitReason;
use crate::virtio::Device;

const SERIAL_LAST: u16 = SERIAL_PORT + 7;

/// Everything outside of vCPUs and memory.
#[derive(Debug)]
pub struct Machine {
    serial: Mutex<SerialPort>,
    devices: Vec<Device>,
    ended: OnceLock<ExitReason>,
    end_event: EventFd,
}

impl Machine {
    /// A machine with these devices. `end_event` is signalled when it ends.
    #[must_use]
    pub fn new(serial: SerialPort, devices: Vec<Device>, end_event: EventFd) -> Self {
        Self { serial: Mutex::new(serial), devices, ended: OnceLock::new(), end_event }
    }

    /// The guest writes `data` to `port`; a string instruction brings many bytes at once. Returns
    /// why the machine ends, if it does.
    pub fn port_write(&self, port: u16, data: &[u8]) -> Option<ExitReason> {
        match (port, data.last()) {
            (SERIAL_PORT..=SERIAL_LAST, _) => {
                let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
                for &byte in data {
                    // Fails only if the interrupt cannot be raised, which nobody can repair.
                    let _ = serial.write(serial_register(port), byte);
                }
                if port == SERIAL_PORT {
                    serial.writer_mut().batch_done();
                }
                None
            }
            (SLEEP_CONTROL_PORT, Some(&SLEEP_CONTROL_POWER_OFF)) => Some(ExitReason::PowerOff),
            (RESET_PORT, Some(&RESET_COMMAND)) => Some(ExitReason::Reset),
            _ => None,
        }
    }

    /// The guest reads from `port`. Where nothing is, all bits are one.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match port {
            SERIAL_PORT..=SERIAL_LAST => {
                let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
                for byte in data {
                    *byte = serial.read(serial_register(port));
                }
            }
            // Keyboard controller: both buffers empty, ready for a command.
            RESET_PORT => data.fill(0),
            _ => {}
        }
    }

    /// The guest reads device memory. Where nothing is, all bits are one.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.device_at(address) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes device memory.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.device_at(address) {
            device.write(offset, data);
        }
    }

    fn device_at(&self, address: u64) -> Option<(&Device, u64)> {
        let offset = address.checked_sub(VIRTIO_MMIO_BASE)?;
        let index = usize::try_from(offset / VIRTIO_MMIO_SIZE).ok()?;
        Some((self.devices.get(index)?, offset % VIRTIO_MMIO_SIZE))
    }

    /// The virtio devices.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Runs `f` on the serial port, unless a vCPU is using it.
    pub fn try_serial<T>(&self, f: impl FnOnce(&mut SerialPort) -> T) -> Option<T> {
        self.serial.try_lock().ok().map(|mut serial| f(&mut serial))
    }

    /// Ends the machine; the first reason stands.
    pub fn end(&self, reason: ExitReason) {
        // A second reason is of no interest.
        let _ = self.ended.set(reason);
        let _ = self.end_event.write(1);
    }

    /// Why the machine has ended.
    #[must_use]
    pub fn ended(&self) -> Option<&ExitReason> {
        self.ended.get()
    }
}

/// Register number of a port from [`SERIAL_PORT`] to [`SERIAL_LAST`].
fn serial_register(port: u16) -> u8 {
    // Eight registers, aligned to eight.
    port.to_le_bytes()[0] & 7
}
