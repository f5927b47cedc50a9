//! PCI bus 0: a host bridge and the functions behind it. Guests reach it through memory (ECAM), or
//! through the ports 0xcf8 and 0xcfc, which Linux asks before it has read its tables.
//!
//! [`config`] is the configuration space of a function, [`msix`] its interrupts.
//! [`crate::virtio::transport::Pci`] says what a function does. There is no firmware: functions
//! come up with their BARs assigned ([`bar_base`]), and decode when the guest enables them. The
//! guest may move a BAR within the window of the host bridge; elsewhere it decodes nothing.

pub mod config;
pub mod msix;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use moirai_abi::machine::{PCI_ECAM_BASE, PCI_WINDOW_BASE};

use config::{ConfigSpace, Identity};

/// Port of the address register of configuration mechanism 1.
pub const ADDRESS_PORT: u16 = 0xcf8;
/// First of the four ports of its data register.
pub const DATA_PORT: u16 = 0xcfc;
/// Last of them.
pub const DATA_LAST: u16 = DATA_PORT + 3;

/// Size of the BAR of a function.
pub const BAR_BYTES: u32 = 0x4000;

/// A PCI Express host bridge as QEMU makes it: one without registers of its own.
const BRIDGE: Identity =
    Identity { vendor: 0x1b36, device: 0x0008, revision: 0, class: 0x0600, subsystem: 0x1100 };

/// The configuration space of a function that answers on the bus.
pub trait Function {
    /// Software reads from `register`, a byte offset below 4096.
    fn config_read(&self, register: usize, data: &mut [u8]);

    /// Software writes to `register`.
    fn config_write(&self, register: usize, data: &[u8]);
}

/// Where the BAR of function `index` is at first.
#[must_use]
pub fn bar_base(index: usize) -> u32 {
    // The window is in the first 4 GiB, and has room for far more functions than a bus.
    let base = PCI_WINDOW_BASE + (index as u64 % 32) * u64::from(BAR_BYTES);
    u32::try_from(base).unwrap_or(u32::MAX)
}

/// The host bridge. Function `n` of those behind it is device `n + 1` of the bus.
#[derive(Debug)]
pub struct HostBridge {
    config: Mutex<ConfigSpace>,
    address: AtomicU32,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self { config: Mutex::new(ConfigSpace::new(BRIDGE)), address: AtomicU32::new(0) }
    }
}

impl HostBridge {
    /// Software reads the configuration space at `address` of memory. Where no function is, all
    /// bits are one.
    pub fn memory_read<F: Function>(&self, functions: &[F], address: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some(offset) = address.checked_sub(PCI_ECAM_BASE) else { return };
        match Place::new(offset) {
            Some(Place { device: 0, register }) => {
                self.config.lock().unwrap_or_else(PoisonError::into_inner).read(register, data);
            }
            Some(Place { device, register }) => {
                if let Some(function) = functions.get(device - 1) {
                    function.config_read(register, data);
                }
            }
            None => {}
        }
    }

    /// Software writes the configuration space at `address` of memory.
    pub fn memory_write<F: Function>(&self, functions: &[F], address: u64, data: &[u8]) {
        let Some(offset) = address.checked_sub(PCI_ECAM_BASE) else { return };
        match Place::new(offset) {
            Some(Place { device: 0, register }) => {
                self.config.lock().unwrap_or_else(PoisonError::into_inner).write(register, data);
            }
            Some(Place { device, register }) => {
                if let Some(function) = functions.get(device - 1) {
                    function.config_write(register, data);
                }
            }
            None => {}
        }
    }

    /// Software reads from one of the ports.
    pub fn port_read<F: Function>(&self, functions: &[F], port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match port {
            ADDRESS_PORT => {
                if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
                    *word = self.address.load(Ordering::Relaxed).to_le_bytes();
                }
            }
            DATA_PORT..=DATA_LAST if data.len() <= 4 => {
                if let Some(address) = self.selected(port) {
                    self.memory_read(functions, address, data);
                }
            }
            _ => {}
        }
    }

    /// Software writes to one of the ports.
    pub fn port_write<F: Function>(&self, functions: &[F], port: u16, data: &[u8]) {
        match port {
            ADDRESS_PORT => {
                if let Ok(word) = data.try_into() {
                    self.address.store(u32::from_le_bytes(word), Ordering::Relaxed);
                }
            }
            DATA_PORT..=DATA_LAST if data.len() <= 4 => {
                if let Some(address) = self.selected(port) {
                    self.memory_write(functions, address, data);
                }
            }
            _ => {}
        }
    }

    /// The address in memory of what the data `port` shows, if the address register enables it.
    fn selected(&self, port: u16) -> Option<u64> {
        let address = self.address.load(Ordering::Relaxed);
        let enabled = address & 1 << 31 != 0;
        // Bus, device and function; the register's number of a word.
        let (function, word) = (address >> 8 & 0xffff, address & 0xfc);
        let offset = u64::from(function) << 12 | u64::from(word) | u64::from(port & 3);
        enabled.then_some(PCI_ECAM_BASE + offset)
    }
}

/// A register of the first function of a device on bus 0.
struct Place {
    device: usize,
    register: usize,
}

impl Place {
    /// What lies at `offset` of the ECAM: bus, device, function and register in 8, 5, 3 and 12
    /// bits.
    fn new(offset: u64) -> Option<Self> {
        let offset = usize::try_from(offset).ok()?;
        let (device, function, register) = (offset >> 15, offset >> 12 & 7, offset & 0xfff);
        (device < 32 && function == 0).then_some(Self { device, register })
    }
}

#[cfg(test)]
mod tests;
