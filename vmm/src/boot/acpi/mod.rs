//! ACPI tables: how a kernel that was not made for this VMM learns what machine it is on.
//!
//! Hardware-reduced ACPI (6.5, section 4.1): no SCI, no PM timer, no PIC. Sleep control and reset
//! are ports of [`crate::machine`]; everything else is in the DSDT ([`dsdt`]). The tables lie where
//! a BIOS would have them, in addresses that the memory map does not call RAM.

mod dsdt;

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use moirai_abi::machine::{
    IOAPIC_BASE, LAPIC_BASE, PCI_ECAM_BASE, RESET_COMMAND, RESET_PORT, SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT, VIRTIO_MMIO_MAX,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::ImageError;
use super::firmware::RESET_VECTOR;
use moirai_launch::Transport;

/// Guest physical addresses of the tables; the last bytes are the reset vector's.
pub const AREA: Range<u64> = 0xe_0000..0x10_0000;
/// Guest physical address of the root pointer.
pub const RSDP: u64 = AREA.start;

const OEM: [u8; 6] = *b"MOIRAI";
const OEM_TABLE: [u8; 8] = *b"MOIRAIVM";
const OEM_REVISION: u32 = 1;
/// Where the first table lies; every table begins at such a boundary.
const ALIGNMENT: usize = 64;
/// `IAPC_BOOT_ARCH`: no VGA adapter, no CMOS clock; that other bits are zero denies an 8042 and
/// devices on a bus that nothing announces.
const NO_VGA: u16 = 1 << 2;
const NO_CLOCK: u16 = 1 << 5;

/// The machine to be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Number of vCPUs; their local APICs are numbered from 0.
    pub vcpus: u8,
    /// How virtio devices are found.
    pub transport: Transport,
    /// Number of virtio devices. Only windows are named one by one; a bus is asked.
    pub devices: usize,
}

/// Writes the tables that describe `machine`.
///
/// # Errors
/// More devices than a machine has, or guest memory that ends below the tables.
pub fn write(machine: &Machine, memory: &GuestMemoryMmap) -> Result<(), ImageError> {
    if machine.devices > VIRTIO_MMIO_MAX {
        return Err(ImageError::TooManyDevices(machine.devices));
    }
    let tables = build(machine);
    if tables.len() as u64 > RESET_VECTOR - AREA.start {
        return Err(ImageError::StartInfo);
    }
    memory.write_slice(&tables, GuestAddress(AREA.start)).map_err(|_| ImageError::StartInfo)
}

/// All tables as they lie in memory from [`RSDP`] on: the root pointer, what it leads to behind it.
#[must_use]
pub fn build(machine: &Machine) -> Vec<u8> {
    let mut tables = vec![0; ALIGNMENT];
    let mut add = |table: &dyn Aml| {
        let address = AREA.start + tables.len() as u64;
        table.to_aml_bytes(&mut tables);
        tables.resize(tables.len().next_multiple_of(ALIGNMENT), 0);
        address
    };
    let dsdt = add(&table(*b"DSDT", 2, &dsdt::body(machine)));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(add(&fadt(dsdt)));
    xsdt.add_entry(add(&madt(machine.vcpus)));
    if machine.transport == Transport::Pci {
        let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
        mcfg.add_ecam(PCI_ECAM_BASE, 0, 0, 0);
        xsdt.add_entry(add(&mcfg));
    }
    let xsdt = add(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    tables.iter_mut().zip(rsdp).for_each(|(to, from)| *to = from);
    tables
}

/// A table with the common header in front of `body`.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    const HEADER_LEN: u32 = 36;
    let mut table = Sdt::new(signature, HEADER_LEN, revision, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(body);
    table
}

fn port(number: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, number.into())
}

/// Fixed description (section 5.2.9): a machine whose only fixed hardware is power-off and reset.
/// The flag for the power button says that it is a device of the DSDT.
fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::HwReducedAcpi);
    fadt.iapc_boot_arch = (NO_VGA | NO_CLOCK).into();
    (fadt.reset_reg, fadt.reset_value) = (port(RESET_PORT), RESET_COMMAND);
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt.finalize()
}

/// Interrupt controllers (section 5.2.12): a local APIC per vCPU, whose NMI comes in on LINT1, and
/// one I/O APIC whose pins are the interrupt numbers of this machine.
fn madt(vcpus: u8) -> Sdt {
    const ALL_PROCESSORS: u8 = 0xff;
    let mut body = LAPIC_BASE.to_le_bytes().to_vec();
    let no_pic = 0u32;
    body.extend(no_pic.to_le_bytes());
    for id in 0..vcpus {
        ProcessorLocalApic::new(id, id, EnabledStatus::Enabled).to_aml_bytes(&mut body);
    }
    IoApic::new(0, IOAPIC_BASE, 0).to_aml_bytes(&mut body);
    let (nmi, len, lint) = (4, 6, 1);
    body.extend([nmi, len, ALL_PROCESSORS, 0, 0, lint]);
    table(*b"APIC", 5, &body)
}

#[cfg(test)]
mod tests;
