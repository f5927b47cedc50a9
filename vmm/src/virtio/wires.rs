//! The [`Wires`] of a PCI function, made of KVM's ioeventfds and irqfds.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::EventFd;

use super::DeviceEvents;
use super::transport::function::NOTIFY_STRIDE;
use super::transport::pci::Wires;
use crate::event;
use crate::interrupts::Interrupts;
use crate::pci::msix::Message;

/// The wires of one device.
#[derive(Debug)]
pub struct KvmWires {
    interrupts: Arc<Interrupts>,
    events: Arc<DeviceEvents>,
    /// Addresses of the doorbells that KVM watches, by queue.
    doorbells: Vec<Option<u64>>,
    /// Interrupt number of the first source; the others follow.
    first_gsi: u32,
    /// Which sources have an irqfd.
    connected: Vec<bool>,
}

impl KvmWires {
    /// Wires for a device with these eventfds; nothing is connected yet.
    #[must_use]
    pub fn new(interrupts: Arc<Interrupts>, events: Arc<DeviceEvents>) -> Self {
        let doorbells = vec![None; events.kicks.len()];
        let connected = vec![false; events.interrupts().count()];
        let sources = u16::try_from(connected.len()).unwrap_or(u16::MAX);
        let first_gsi = interrupts.reserve(sources);
        Self { interrupts, events, doorbells, first_gsi, connected }
    }

    fn source(&self, index: usize) -> Option<&EventFd> {
        self.events.interrupts().nth(index)
    }
}

impl Wires for KvmWires {
    fn doorbells(&mut self, first: Option<u64>) {
        let vm = self.interrupts.vm();
        for ((index, kick), now) in (0..).zip(&self.events.kicks).zip(&mut self.doorbells) {
            if let Some(before) = now.take() {
                // Cannot fail: it was registered just so.
                let _ = vm.unregister_ioevent(kick, &IoEventAddress::Mmio(before), NoDatamatch);
            }
            let Some(first) = first else { continue };
            let address = first + index * NOTIFY_STRIDE;
            // Fails where the guest has put two functions at one place.
            let registered =
                vm.register_ioevent(kick, &IoEventAddress::Mmio(address), NoDatamatch).is_ok();
            *now = registered.then_some(address);
        }
    }

    fn connect(&mut self, source: usize, message: Option<Message>) {
        let Some(gsi) = u32::try_from(source).ok().and_then(|n| self.first_gsi.checked_add(n))
        else {
            return;
        };
        // A message that KVM does not take interrupts nobody.
        let wanted = message.is_some_and(|message| self.interrupts.set(gsi, message).is_ok());
        if self.connected.get(source) == Some(&wanted) {
            return;
        }
        let vm = self.interrupts.vm();
        let done = self.source(source).map(|event| match wanted {
            // What is pending interrupts at once.
            true => vm.register_irqfd(event, gsi),
            false => vm.unregister_irqfd(event, gsi),
        });
        if let (Some(Ok(())), Some(connected)) = (done, self.connected.get_mut(source)) {
            *connected = wanted;
        }
    }

    fn is_pending(&self, source: usize) -> bool {
        let Some(event) = self.source(source) else { return false };
        let mut fds = [PollFd::from_borrowed_fd(event::borrow(event), PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_readable = poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0);
        self.connected.get(source) == Some(&false) && is_readable
    }
}

#[cfg(test)]
mod tests;
