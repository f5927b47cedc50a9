//! A virtio device as a PCI function (virtio 1.2, section 4.1): its configuration space, and the
//! registers behind its BAR.
//!
//! Owns which vector each source of interrupts has. [`Wires`] has KVM do the rest. A doorbell is an
//! ioeventfd at the address of its queue, which follows the BAR. A message is an irqfd, which is
//! taken away while its vector is masked: the eventfd itself is then the pending bit, and no
//! interrupt is lost.

use super::common::{CommonConfig, NO_VECTOR};
use super::function::{self, ACCESS_DATA, ACCESS_HEAD, AccessWindow, Layout, Region};
use super::state::State;
use crate::pci::config::ConfigSpace;
use crate::pci::msix::{CONTROL_ENABLE, CONTROL_MASK, Message, Table};
use crate::virtio::Backend;

/// What carries kicks and interrupts between the function, its backend and the guest.
pub trait Wires {
    /// From now on a write of any width at `first` plus four times its number kicks a queue; `None`
    /// for no such addresses. Where that cannot be had, the write arrives as a register access, and
    /// kicks none the less.
    fn doorbells(&mut self, first: Option<u64>);

    /// From now on `source` interrupts by this message, also because of what is pending; `None`
    /// keeps what comes pending. Sources are the queues, then the configuration space.
    fn connect(&mut self, source: usize, message: Option<Message>);

    /// Whether `source` has wanted to interrupt while it could not.
    fn is_pending(&self, source: usize) -> bool;
}

/// A virtio device on a PCI bus.
#[derive(Debug)]
pub struct Pci<B, W> {
    common: CommonConfig<B>,
    config: ConfigSpace,
    layout: Layout,
    table: Table,
    pub(super) wires: W,
    /// Where the BAR decodes; what the doorbells have been told.
    bar: Option<u64>,
}

impl<B: Backend, W: Wires> Pci<B, W> {
    /// Function after reset, with its BAR at `base`.
    pub fn new(state: State<B>, wires: W, base: u32) -> Self {
        let vectors = state.interrupt_sources();
        let (config, layout) = function::describe(state.device_id(), vectors, base);
        let table = Table::new(vectors);
        Self { common: CommonConfig::new(state), config, layout, table, wires, bar: None }
    }

    /// The device that the registers show.
    pub fn state(&self) -> &State<B> {
        &self.common.state
    }

    /// See [`Pci::state`].
    pub fn state_mut(&mut self) -> &mut State<B> {
        &mut self.common.state
    }

    /// Where the BAR decodes, if it does.
    pub fn bar(&self) -> Option<u64> {
        self.bar
    }

    /// The driver reads its configuration space.
    pub fn config_read(&mut self, register: usize, data: &mut [u8]) {
        let at = self.layout.access;
        if register == at + ACCESS_DATA
            && let Some(AccessWindow { offset, len }) = self.access_window()
        {
            let mut window = [0; 4];
            if let Some(bytes) = window.get_mut(..len) {
                self.read(offset, bytes);
            }
            data.fill(0);
            data.iter_mut().zip(window).for_each(|(byte, value)| *byte = value);
            return;
        }
        self.config.read(register, data);
    }

    /// The driver writes its configuration space.
    pub fn config_write(&mut self, register: usize, data: &[u8]) {
        self.config.write(register, data);
        if register == self.layout.access + ACCESS_DATA
            && let Some(AccessWindow { offset, len }) = self.access_window()
            && let Some(bytes) = data.get(..len)
        {
            self.write(offset, bytes);
        }
        let bar = self.config.bar();
        if bar != self.bar {
            self.bar = bar;
            self.wires.doorbells(bar.map(|base| base + Region::Notify.offset()));
        }
        self.connect();
    }

    fn access_window(&self) -> Option<AccessWindow> {
        let mut head = [0; ACCESS_HEAD];
        self.config.read(self.layout.access, &mut head);
        AccessWindow::new(&head)
    }

    /// The driver reads `data.len()` bytes at `offset` of the BAR.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match Region::at(offset) {
            Some((Region::Common, at)) => self.common.read(at, data),
            Some((Region::Isr, 0)) => {
                let state = self.state();
                if let Some(byte) = data.first_mut() {
                    *byte = state.interrupt_status();
                    state.events().config.acknowledge();
                }
            }
            Some((Region::Device, at)) => self.state().backend.read_config(at, data),
            Some((Region::Table, at)) => self.table.read(at, data),
            Some((Region::Pending, at)) => self.read_pending(at, data),
            // Doorbells read as zero.
            _ => {}
        }
    }

    /// The driver writes `data` at `offset` of the BAR. Writes that mean nothing are ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        match Region::at(offset) {
            Some((Region::Common, at)) => {
                self.common.write(at, data);
                self.connect();
            }
            Some((Region::Device, at)) => self.state_mut().backend.write_config(at, data),
            Some((Region::Notify, at)) => self.state().kick(at / function::NOTIFY_STRIDE),
            Some((Region::Table, at)) => {
                self.table.write(at, data);
                self.connect();
            }
            _ => {}
        }
    }

    /// Tells the wires what every source may send now.
    fn connect(&mut self) {
        let control = self.control();
        let sends = control & CONTROL_ENABLE != 0 && control & CONTROL_MASK == 0;
        for (source, &vector) in self.common.vectors().iter().enumerate() {
            let message = self.table.message(vector).filter(|_| sends);
            self.wires.connect(source, message);
        }
    }

    /// Upper byte of the MSI-X message control register.
    fn control(&self) -> u8 {
        let [.., upper] = self.config.dword(self.layout.msix).to_le_bytes();
        upper
    }

    /// The pending bits: a source that waits for its vector.
    fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (byte, first) in data.iter_mut().zip((offset.saturating_mul(8)..).step_by(8)) {
            for bit in 0..8 {
                let vector = u16::try_from(first + bit).unwrap_or(NO_VECTOR);
                *byte |= u8::from(self.vector_pending(vector)) << bit;
            }
        }
    }

    fn vector_pending(&self, vector: u16) -> bool {
        let mut sources = self.common.vectors().iter().enumerate();
        vector != NO_VECTOR && sources.any(|(n, &v)| v == vector && self.wires.is_pending(n))
    }
}
