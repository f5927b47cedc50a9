//! Where the interrupts of virtio devices go, for the whole VM.
//!
//! An irqfd on a pin of the I/O APIC does not interrupt the guest by itself: KVM hands it to a
//! kernel worker, a thread of the fair class on the core of the thread that signalled. Behind a
//! busy I/O domain that worker waits for milliseconds, and every guarantee of the guest waits with
//! it. KVM delivers an irqfd on a message at once. So two kinds of device send messages: PCI
//! functions (MSI-X), and the windows of an image with the ring-3 note, because the note fixes
//! their vectors (`moirai_abi::machine`). The windows of any other image use the pins that ACPI or
//! its command line names.

use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use moirai_abi::machine::{DEVICE_FIRST_VECTOR, DEVICE_VECTORS, LAPIC_BASE, VIRTIO_MMIO_FIRST_GSI};
use vmm_sys_util::errno;

use crate::pci::msix::Message;

/// Pins of the I/O APIC; messages have the numbers above.
const PINS: u32 = 24;

/// The interrupt numbers of a VM. Numbers below 24 are the pins of the I/O APIC, those from there
/// on are handed out here.
#[derive(Debug)]
pub struct Interrupts {
    vm: Arc<VmFd>,
    messages: Mutex<Vec<Option<Message>>>,
}

impl Interrupts {
    /// A VM with its pins, and no messages.
    #[must_use]
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, messages: Mutex::new(Vec::new()) }
    }

    /// The VM that they interrupt.
    #[must_use]
    pub fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// Hands out `count` numbers in a row, without messages; returns the first.
    pub fn reserve(&self, count: u16) -> u32 {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let first = messages.len();
        messages.resize(first + usize::from(count), None);
        // Devices and their queues are few: `LaunchSpec::validate`.
        PINS.saturating_add(u32::try_from(first).unwrap_or(u32::MAX))
    }

    /// Gives a number from [`Interrupts::reserve`] its message.
    ///
    /// # Errors
    /// KVM refuses; the number keeps what it had.
    pub fn set(&self, gsi: u32, message: Message) -> Result<(), errno::Error> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let index = gsi.checked_sub(PINS).and_then(|index| usize::try_from(index).ok());
        let entry = index.and_then(|index| messages.get_mut(index));
        let entry = entry.ok_or(errno::Error::new(libc::EINVAL))?;
        let before = entry.replace(message);
        let result = if before == Some(message) { Ok(()) } else { route(&self.vm, &messages) };
        if result.is_err()
            && let Some(entry) = index.and_then(|index| messages.get_mut(index))
        {
            *entry = before;
        }
        result
    }

    /// The first number of `devices` virtio-mmio windows; the others follow. In an image that runs
    /// in ring 3 they are messages, all routed at once: KVM waits for a grace period each time.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn windows(&self, in_ring3: bool, devices: u32) -> Result<u32, errno::Error> {
        if !in_ring3 || devices == 0 {
            return Ok(VIRTIO_MMIO_FIRST_GSI);
        }
        let first = self.reserve(0);
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.extend((0..devices).map(|index| {
            let data = DEVICE_FIRST_VECTOR + index % DEVICE_VECTORS;
            Some(Message { address: LAPIC_BASE, data })
        }));
        route(&self.vm, &messages)?;
        Ok(first)
    }
}

fn route(vm: &VmFd, messages: &[Option<Message>]) -> Result<(), errno::Error> {
    let messages = (PINS..).zip(messages).filter_map(|(gsi, m)| Some(send(gsi, (*m)?)));
    let entries: Vec<_> = (0..PINS).map(pin).chain(messages).collect();
    let routing =
        KvmIrqRouting::from_entries(&entries).map_err(|_| errno::Error::new(libc::ENOMEM))?;
    vm.set_gsi_routing(&routing)
}

fn pin(gsi: u32) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin: gsi };
    entry
}

fn send(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    let Message { address, data } = message;
    entry.u.msi = kvm_irq_routing_msi { address_lo: address, data, ..Default::default() };
    entry
}
