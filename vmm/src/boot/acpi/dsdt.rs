//! The DSDT: the devices of the machine that no bus announces, in AML.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, Equal, IO, If, Interrupt,
    Memory32Fixed, Method, Name, Notify, Package, Path, ResourceTemplate, Scope,
};
use moirai_abi::machine::{
    PCI_ECAM_BASE, PCI_ECAM_SIZE, PCI_WINDOW_BASE, PCI_WINDOW_SIZE, POWER_BUTTON_GSI, SERIAL_GSI,
    SERIAL_PORT, SLEEP_CONTROL_POWER_OFF, VIRTIO_MMIO_BASE, VIRTIO_MMIO_FIRST_GSI,
    VIRTIO_MMIO_SIZE,
};

use super::Machine;
use moirai_launch::Transport;

/// `Notify` value of a power button that was pressed (section 4.8.2.2).
const PRESSED: u8 = 0x80;
/// Sleep type of power-off, as the sleep control register wants it.
const SLEEP_TYPE_OFF: u8 = SLEEP_CONTROL_POWER_OFF >> 2 & 7;

/// Everything behind the header of the table.
pub(super) fn body(machine: &Machine) -> Vec<u8> {
    let mut devices = Vec::new();
    serial(&mut devices);
    power_button(&mut devices);
    match machine.transport {
        Transport::Mmio => (0..machine.devices).for_each(|index| virtio(index, &mut devices)),
        Transport::Pci => pci(&mut devices),
    }
    let mut body = Scope::raw(Path::new("\\_SB_"), devices);
    let off = Package::new(vec![&SLEEP_TYPE_OFF, &SLEEP_TYPE_OFF]);
    Name::new(Path::new("\\_S5_"), &off).to_aml_bytes(&mut body);
    body
}

/// The interrupt of a pin of the I/O APIC: an eventfd of KVM makes edges.
fn edge(pin: u32) -> Interrupt {
    let (consumer, edge_triggered, active_low, shared) = (true, true, false, false);
    Interrupt::new(consumer, edge_triggered, active_low, shared, pin)
}

fn serial(out: &mut Vec<u8>) {
    let ports = IO::new(SERIAL_PORT, SERIAL_PORT, 0, 8);
    let name = |name, value: &dyn Aml| Name::new(Path::new(name), value);
    Device::new(
        Path::new("COM1"),
        vec![
            &name("_HID", &EISAName::new("PNP0501")),
            &name("_UID", &1u8),
            &name("_CRS", &ResourceTemplate::new(vec![&edge(SERIAL_GSI), &ports])),
        ],
    )
    .to_aml_bytes(out);
}

/// A power button without hardware of its own: the generic event device passes its interrupt on
/// (section 5.6.9).
fn power_button(out: &mut Vec<u8>) {
    let name = |name, value: &dyn Aml| Name::new(Path::new(name), value);
    Device::new(
        Path::new("PWRB"),
        vec![&name("_HID", &EISAName::new("PNP0C0C")), &name("_UID", &0u8)],
    )
    .to_aml_bytes(out);
    let button = Path::new("\\_SB_.PWRB");
    let notify = Notify::new(&button, &PRESSED);
    let is_button = Equal::new(&Arg(0), &POWER_BUTTON_GSI);
    let pass_on = If::new(&is_button, vec![&notify]);
    Device::new(
        Path::new("GEDV"),
        vec![
            &name("_HID", &"ACPI0013"),
            &name("_UID", &0u8),
            &name("_CRS", &ResourceTemplate::new(vec![&edge(POWER_BUTTON_GSI)])),
            &Method::new(Path::new("_EVT"), 1, true, vec![&pass_on]),
        ],
    )
    .to_aml_bytes(out);
}

/// A virtio-mmio window (virtio 1.2, section 4.2.1).
fn virtio(index: usize, out: &mut Vec<u8>) {
    // The caller has no more than `VIRTIO_MMIO_MAX`.
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let base = VIRTIO_MMIO_BASE.saturating_add(u64::from(number).saturating_mul(VIRTIO_MMIO_SIZE));
    let window = Memory32Fixed::new(true, low_half(base), low_half(VIRTIO_MMIO_SIZE));
    let interrupt = edge(VIRTIO_MMIO_FIRST_GSI.saturating_add(number));
    let name = |name, value: &dyn Aml| Name::new(Path::new(name), value);
    Device::new(
        Path::new(&format!("VM{:02X}", index & 0xff)),
        vec![
            &name("_HID", &"LNRO0005"),
            &name("_UID", &number),
            &name("_CRS", &ResourceTemplate::new(vec![&window, &interrupt])),
        ],
    )
    .to_aml_bytes(out);
}

/// The root of the bus with its window, and the owner of its configuration space. No routing of
/// interrupts: functions send messages.
fn pci(out: &mut Vec<u8>) {
    let name = |name, value: &dyn Aml| Name::new(Path::new(name), value);
    let buses = AddressSpace::new_bus_number(0u16, 0);
    let window = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        low_half(PCI_WINDOW_BASE),
        low_half(PCI_WINDOW_BASE + PCI_WINDOW_SIZE - 1),
        None,
    );
    Device::new(
        Path::new("PCI0"),
        vec![
            &name("_HID", &EISAName::new("PNP0A08")),
            &name("_CID", &EISAName::new("PNP0A03")),
            &name("_UID", &0u8),
            &name("_SEG", &0u8),
            &name("_BBN", &0u8),
            &name("_CRS", &ResourceTemplate::new(vec![&buses, &window])),
        ],
    )
    .to_aml_bytes(out);
    let ecam = Memory32Fixed::new(true, low_half(PCI_ECAM_BASE), low_half(PCI_ECAM_SIZE));
    Device::new(
        Path::new("ECAM"),
        vec![
            &name("_HID", &EISAName::new("PNP0C02")),
            &name("_UID", &0u8),
            &name("_CRS", &ResourceTemplate::new(vec![&ecam])),
        ],
    )
    .to_aml_bytes(out);
}

/// Constants of the machine that lie below 4 GiB.
fn low_half(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
