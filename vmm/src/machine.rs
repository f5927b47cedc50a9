//! The machine that vCPUs see around them: ports, device windows, and how it all ends.
//!
//! State is shared by all vCPU threads, each device behind its own lock. The main thread only ever
//! tries these locks (see [`crate::vcpu::gate`]).

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use moirai_abi::machine::{
    END_STATUS_PORT, RESET_COMMAND, RESET_PORT, SERIAL_PORT, SLEEP_CONTROL_PORT,
    SLEEP_CONTROL_POWER_OFF, SLEEP_STATUS_PORT,
};
use vmm_sys_util::eventfd::EventFd;

use crate::console::SerialPort;
use crate::pci::{self, HostBridge};
use crate::virtio::Device;
use moirai_launch::{ExitReason, Transport};

const SERIAL_LAST: u16 = SERIAL_PORT + 7;

/// Everything outside of vCPUs and memory.
#[derive(Debug)]
pub struct Machine {
    serial: Mutex<SerialPort>,
    devices: Vec<Device>,
    /// The bus that the devices are on, if they are on one.
    bus: Option<HostBridge>,
    /// What the guest says of its work; counts when it powers itself off.
    end_status: AtomicU8,
    ended: OnceLock<ExitReason>,
    end_event: EventFd,
}

impl Machine {
    /// A machine with these devices. `end_event` is signalled when it ends.
    #[must_use]
    pub fn new(
        serial: SerialPort,
        devices: Vec<Device>,
        transport: Transport,
        end_event: EventFd,
    ) -> Self {
        let bus = (transport == Transport::Pci).then(HostBridge::default);
        Self {
            serial: Mutex::new(serial),
            devices,
            bus,
            end_status: AtomicU8::new(0),
            ended: OnceLock::new(),
            end_event,
        }
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
            (END_STATUS_PORT, Some(&status)) => {
                // Nothing else is published by it.
                self.end_status.store(status, Ordering::Relaxed);
                None
            }
            (SLEEP_CONTROL_PORT, Some(&SLEEP_CONTROL_POWER_OFF)) => Some(self.powered_off()),
            (RESET_PORT, Some(&RESET_COMMAND)) => Some(ExitReason::Reset),
            (pci::ADDRESS_PORT..=pci::DATA_LAST, _) => {
                if let Some(bus) = &self.bus {
                    bus.port_write(&self.devices, port, data);
                }
                None
            }
            _ => None,
        }
    }

    fn powered_off(&self) -> ExitReason {
        match self.end_status.load(Ordering::Relaxed) {
            0 => ExitReason::PowerOff,
            status => ExitReason::Failed { status },
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
            // Keyboard controller: both buffers empty, ready for a command. Sleep: it never slept.
            RESET_PORT | SLEEP_CONTROL_PORT | SLEEP_STATUS_PORT => data.fill(0),
            pci::ADDRESS_PORT..=pci::DATA_LAST => {
                if let Some(bus) = &self.bus {
                    bus.port_read(&self.devices, port, data);
                }
            }
            _ => {}
        }
    }

    /// The guest reads device memory. Where nothing is, all bits are one.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match (&self.bus, self.device_at(address)) {
            (_, Some((device, offset))) => device.read(offset, data),
            (Some(bus), None) => bus.memory_read(&self.devices, address, data),
            (None, None) => data.fill(0xff),
        }
    }

    /// The guest writes device memory.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        match (&self.bus, self.device_at(address)) {
            (_, Some((device, offset))) => device.write(offset, data),
            (Some(bus), None) => bus.memory_write(&self.devices, address, data),
            (None, None) => {}
        }
    }

    fn device_at(&self, address: u64) -> Option<(&Device, u64)> {
        self.devices.iter().find_map(|device| Some((device, device.offset_of(address)?)))
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
