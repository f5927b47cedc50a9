use super::{AREA, Machine, RSDP, build, write};
use crate::boot::ImageError;
use moirai_launch::Transport;
use std::process::Command;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const MACHINE: Machine = Machine { vcpus: 4, transport: Transport::Mmio, devices: 3 };

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table at a guest physical address, if its length and checksum are right.
fn table_at(tables: &[u8], address: u64) -> &[u8] {
    let from = &tables[usize::try_from(address - RSDP).unwrap()..];
    let table = &from[..u32_at(from, 4)];
    assert_eq!(sum(table), 0, "{}", String::from_utf8_lossy(&table[..4]));
    table
}

/// Follows the pointers as a kernel does: FADT, MADT, (MCFG) and at the end DSDT.
fn walk(tables: &[u8]) -> Vec<&[u8]> {
    assert_eq!(&tables[..8], b"RSD PTR ");
    assert_eq!((sum(&tables[..20]), sum(&tables[..36])), (0, 0));
    let xsdt = table_at(tables, u64_at(tables, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    let mut found: Vec<_> =
        xsdt[36..].chunks_exact(8).map(|entry| table_at(tables, u64_at(entry, 0))).collect();
    found.push(table_at(tables, u64_at(found[0], 140)));
    found
}

fn signatures(found: &[&[u8]]) -> Vec<String> {
    found.iter().map(|table| String::from_utf8_lossy(&table[..4]).into_owned()).collect()
}

#[test]
fn every_table_can_be_reached_and_has_its_checksum() {
    let tables = build(&MACHINE);
    assert_eq!(signatures(&walk(&tables)), ["FACP", "APIC", "DSDT"]);
    let tables = build(&Machine { transport: Transport::Pci, ..MACHINE });
    assert_eq!(signatures(&walk(&tables)), ["FACP", "APIC", "MCFG", "DSDT"]);
}

#[test]
fn the_fixed_description_names_reset_and_sleep_registers() {
    let tables = build(&MACHINE);
    let fadt = walk(&tables)[0];
    let flags = u32_at(fadt, 112);
    assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10, "hardware-reduced, with reset");
    assert_eq!((u64_at(fadt, 120), fadt[128]), (0x64, 0xfe));
    assert_eq!((u64_at(fadt, 248), u64_at(fadt, 260)), (0x600, 0x601));
    assert_eq!((fadt[116], fadt[244], fadt[256]), (1, 1, 1), "all of them ports");
}

#[test]
fn every_vcpu_has_a_local_apic_in_the_tables() {
    let tables = build(&MACHINE);
    let madt = walk(&tables)[1];
    let mut rest = &madt[44..];
    let mut kinds = Vec::new();
    while let [kind, len, ..] = *rest {
        kinds.push(kind);
        rest = &rest[usize::from(len)..];
    }
    assert_eq!(kinds, [0, 0, 0, 0, 1, 4]);
}

#[test]
fn the_largest_machine_fits() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
    let machine = Machine { vcpus: 8, devices: 16, ..MACHINE };
    assert!((build(&machine).len() as u64) < AREA.end - AREA.start);
    write(&machine, &memory).unwrap();
    let too_many = Machine { devices: 17, ..machine };
    assert!(matches!(write(&too_many, &memory), Err(ImageError::TooManyDevices(17))));
}

/// An independent reader of AML: Intel's disassembler, and its compiler over what that wrote.
#[test]
fn the_reference_compiler_understands_the_tables() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("SKIPPED: no iasl here; images/packages.sh installs acpica-tools");
        return;
    }
    for transport in [Transport::Mmio, Transport::Pci] {
        let folder = tempfile::tempdir().unwrap();
        let iasl = |arguments: &[&str]| {
            let output =
                Command::new("iasl").args(arguments).current_dir(&folder).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{text}");
            text
        };
        let tables = build(&Machine { transport, ..MACHINE });
        for (name, table) in signatures(&walk(&tables)).iter().zip(walk(&tables)) {
            std::fs::write(folder.path().join(format!("{name}.aml")), table).unwrap();
            iasl(&["-d", &format!("{name}.aml")]);
        }
        let dsdt = std::fs::read_to_string(folder.path().join("DSDT.dsl")).unwrap();
        let (bus, windows) = (dsdt.contains("PNP0A08"), dsdt.matches("LNRO0005").count());
        assert_eq!(
            (bus, windows),
            if transport == Transport::Pci { (true, 0) } else { (false, 3) }
        );
        assert!(dsdt.contains("PNP0501") && dsdt.contains("PNP0C0C") && dsdt.contains("ACPI0013"));
        let compiled = iasl(&["DSDT.dsl"]);
        assert!(compiled.contains(" 0 Errors, 0 Warnings"), "{compiled}");
    }
}
