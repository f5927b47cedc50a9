//! Where the interrupts of virtio devices go.
//!
//! An irqfd on a pin of the I/O APIC does not interrupt the guest by itself: KVM hands it to a
//! kernel worker, a thread of the fair class on the core of whoever signalled. Behind a busy I/O
//! domain that worker waits for milliseconds, and with it every guarantee of the guest. An irqfd on
//! a message is delivered at once. So the devices of an image with the ring-3 note, whose vectors
//! are part of that agreement (`moirai_abi::machine`), send messages; those of any other image use
//! the pins that its command line names.

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use moirai_abi::machine::{DEVICE_FIRST_VECTOR, DEVICE_VECTORS, VIRTIO_MMIO_FIRST_GSI};
use vmm_sys_util::errno;

use crate::boot::Entry;

/// Pins of the I/O APIC; messages have the numbers above.
const PINS: u32 = 24;
/// Address of the local APIC with id 0, physical destination, fixed delivery.
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

/// The interrupt number of device `index` for an image that is entered by `entry`.
#[must_use]
pub fn gsi(entry: &Entry, index: u32) -> u32 {
    if entry.in_ring3() { PINS + index } else { VIRTIO_MMIO_FIRST_GSI + index }
}

/// Prepares the messages of `devices` devices, if `entry` is of the kind that has them.
///
/// # Errors
/// KVM refuses.
pub fn route(vm: &VmFd, entry: &Entry, devices: u32) -> Result<(), errno::Error> {
    if !entry.in_ring3() || devices == 0 {
        return Ok(());
    }
    let entries: Vec<_> = (0..PINS).map(pin).chain((0..devices).map(message)).collect();
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

fn message(index: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi: PINS + index,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: MESSAGE_ADDRESS,
        data: DEVICE_FIRST_VECTOR + index % DEVICE_VECTORS,
        ..Default::default()
    };
    entry
}
