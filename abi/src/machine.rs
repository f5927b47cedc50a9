//! The fixed addresses of Moirai's machine model. A library OS learns its devices from the command
//! line (`virtio_mmio.device=SIZE@BASE:IRQ`, as Linux, Firecracker and QEMU's microvm write it), a
//! distribution's kernel from ACPI. Only what neither can announce is a constant for guests.

/// First serial port (16550, COM1).
pub const SERIAL_PORT: u16 = 0x3f8;
/// GSI of the serial port.
pub const SERIAL_GSI: u32 = 4;

/// Guest physical address of the first virtio-mmio window; window `n` is at `+ n * SIZE`.
pub const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// Size of one virtio-mmio window.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// GSI (IOAPIC pin, edge-triggered) of the first virtio-mmio device; device `n` has `+ n`.
pub const VIRTIO_MMIO_FIRST_GSI: u32 = 5;
/// How many virtio-mmio devices a machine can have (the IOAPIC has 24 pins).
pub const VIRTIO_MMIO_MAX: usize = 16;

/// Vector of the first virtio-mmio device in an image with the ring-3 note; device `n` (in the
/// order of the command line) has `+ n % DEVICE_VECTORS`. Such an image takes them at the local
/// APIC with id 0 from its first instruction on, whether they come through the I/O APIC or as
/// messages.
pub const DEVICE_FIRST_VECTOR: u32 = 0x41;
/// How many vectors devices have; further ones share them.
pub const DEVICE_VECTORS: u32 = 7;

/// Guest physical address of the 32-bit window for the BARs of PCI functions.
pub const PCI_WINDOW_BASE: u64 = 0xc000_0000;
/// Size of that window.
pub const PCI_WINDOW_SIZE: u64 = 0x1000_0000;
/// Guest physical address of the configuration space of PCI bus 0 (ECAM), the only bus.
pub const PCI_ECAM_BASE: u64 = 0xe000_0000;
/// Size of that configuration space: 32 devices with 8 functions of 4 KiB.
pub const PCI_ECAM_SIZE: u64 = 0x10_0000;
/// Guest physical address of the I/O APIC.
pub const IOAPIC_BASE: u32 = 0xfec0_0000;
/// Guest physical address of the local APICs.
pub const LAPIC_BASE: u32 = 0xfee0_0000;

/// GSI (IOAPIC pin, edge-triggered) of the power button, behind those of the devices.
pub const POWER_BUTTON_GSI: u32 = 21;

/// ACPI sleep control register (hardware-reduced ACPI), an I/O port of one byte.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register, an I/O port of one byte.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// Value that powers the machine off: `SLP_EN | SLP_TYP = 5`.
pub const SLEEP_CONTROL_POWER_OFF: u8 = 0x20 | (5 << 2);

/// How the guest's work ended, an I/O port of one byte. What was written there last counts when the
/// guest powers itself off: 0, or nothing at all, for well; anything else for a failure.
pub const END_STATUS_PORT: u16 = 0x602;
/// Status of a guest whose arguments or devices are not what it needs.
pub const END_STATUS_FAILED: u8 = 1;
/// Status of a guest that met a panic or an exception, as Rust programs have it elsewhere.
pub const END_STATUS_PANIC: u8 = 101;

/// Keyboard controller command port; the classic way to reset.
pub const RESET_PORT: u16 = 0x64;
/// The command that resets the machine.
pub const RESET_COMMAND: u8 = 0xfe;

/// CPUID leaf with the TSC frequency (kHz, EAX) and the local APIC timer frequency (kHz, EBX), as
/// several hypervisors define it.
pub const CPUID_TIMING_LEAF: u32 = 0x4000_0010;

/// Word on the command line of an image: the bytes of data of every volume in order, with commas
/// between them. A volume whose data ends within a block shows zeros behind it that are none of it.
pub const VOLUME_BYTES_WORD: &str = "moirai.volume_bytes";
