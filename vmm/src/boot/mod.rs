//! Puts a kernel into guest memory and says how to enter it.
//!
//! [`elf`] loads an untrusted ELF64 file and [`bzimage`] a compressed Linux kernel; [`start_info`]
//! and [`zero_page`] write what the PVH and the 64-bit Linux boot protocol tell the guest, and
//! [`acpi`] the tables that describe the machine. Image and initrd are the tenant's: every
//! field of them is hostile.

pub mod acpi;
pub mod bzimage;
pub mod cmdline;
pub mod elf;
mod error;
pub mod file;
pub mod firmware;
mod initrd;
mod memory_map;
pub mod start_info;
pub mod zero_page;

use std::fs::File;
use std::ops::Range;

use moirai_abi::boot::Ring3Note;
use vm_memory::GuestMemoryMmap;

pub use error::{BzImageError, ImageError};
use file::{ReadError, read_at};
use memory_map::{low_end, memory_map};
use moirai_launch::{Boot, Transport};

/// Guest physical addresses of everything that the boot protocols tell. No image may claim them.
pub const BOOT_AREA: Range<u64> = 0x6000..0x1_0000;
/// Guest physical address of the command line.
pub(crate) const CMDLINE: u64 = 0x8000;
/// Room for the command line with its terminating zero.
const MAX_LINE_BYTES: usize = 0x2000;

/// Longest command line that Linux takes on this architecture. The PVH protocol has no field for
/// it, and Linux silently leaves out the rest.
const PVH_LINE_MAX: usize = 2047;

/// What is to be booted, and what it has to know.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// The kernel: an ELF file or a bzImage.
    pub image: &'a File,
    /// Its initrd.
    pub initrd: Option<&'a File>,
    /// How to enter it.
    pub boot: Boot,
    /// Its command line, without the words for devices.
    pub cmdline: &'a str,
    /// Number of vCPUs.
    pub vcpus: u8,
    /// How it finds its devices.
    pub transport: Transport,
    /// Number of its virtio devices.
    pub devices: usize,
}

/// How the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode at this address, start information in `ebx`.
    Pvh(u32),
    /// 64-bit mode in ring 0 at this address with identity page tables, zero page in `rsi`.
    Linux64(u64),
    /// Straight into ring 3, start information in `rdi`.
    Ring3(Ring3Note),
}

impl Entry {
    /// Whether the guest is a library OS that this VMM puts straight into ring 3. Any other guest
    /// sees a machine: ACPI tables, pins of the I/O APIC, a power button.
    #[must_use]
    pub fn in_ring3(self) -> bool {
        matches!(self, Self::Ring3(_))
    }
}

/// Loads the guest's image and writes beside it what it has to know. `memory` has to be all zero.
///
/// # Errors
/// An image that cannot be loaded or cannot be entered as `boot` asks; an initrd or a command line
/// that it cannot have.
pub fn load(guest: &Guest<'_>, memory: &GuestMemoryMmap) -> Result<Entry, ImageError> {
    let mut magic = [0; 4];
    let entry = match read_at(guest.image, 0, &mut magic) {
        Ok(()) if &magic == elf::MAGIC => load_elf(guest, memory)?,
        // Too short even for that is too short for a bzImage, which says so.
        Ok(()) | Err(ReadError::Truncated { .. }) => load_bzimage(guest, memory)?,
        Err(error) => return Err(error.into()),
    };
    if !entry.in_ring3() {
        let machine = acpi::Machine {
            vcpus: guest.vcpus,
            transport: guest.transport,
            devices: guest.devices,
        };
        acpi::write(&machine, memory)?;
        firmware::write(memory)?;
    }
    Ok(entry)
}

fn load_elf(guest: &Guest<'_>, memory: &GuestMemoryMmap) -> Result<Entry, ImageError> {
    let loaded = elf::load(guest.image, memory)?;
    let ring3 = || loaded.ring3.map(Entry::Ring3);
    let pvh = || loaded.pvh_entry.map(Entry::Pvh);
    let entry = match guest.boot {
        Boot::Auto => ring3().or_else(pvh).ok_or(ImageError::NoEntry),
        Boot::Pvh => pvh().ok_or(ImageError::NoPvhNote),
        Boot::Ring3 => ring3().ok_or(ImageError::NoRing3Note),
    }?;
    let pci = guest.transport == Transport::Pci;
    if entry.in_ring3() && pci {
        return Err(ImageError::Ring3OnPci);
    }
    let load = |file| initrd::load(file, memory, loaded.end, low_end(memory));
    let initrd = guest.initrd.map(load).transpose()?;
    // The library OS and kernels made for small VMMs learn of their devices here. An initrd marks a
    // distribution's kernel: that has ACPI and ignores such words, and its command line is short of
    // room.
    let words = if pci || initrd.is_some() { 0 } else { guest.devices };
    let line = cmdline::with_devices(guest.cmdline, words);
    if !entry.in_ring3() && line.len() > PVH_LINE_MAX {
        let (len, max) = (line.len(), PVH_LINE_MAX as u64);
        return Err(ImageError::CmdlineTooLong { len, max });
    }
    let handover = start_info::Handover {
        cmdline: &line,
        initrd,
        map: &memory_map(memory, pci),
        rsdp: if entry.in_ring3() { 0 } else { acpi::RSDP },
    };
    start_info::write(memory, &handover)?;
    Ok(entry)
}

fn load_bzimage(guest: &Guest<'_>, memory: &GuestMemoryMmap) -> Result<Entry, ImageError> {
    let loaded = bzimage::load(guest.image, memory)?;
    match guest.boot {
        Boot::Auto => {}
        Boot::Pvh => return Err(ImageError::NoPvhNote),
        Boot::Ring3 => return Err(ImageError::NoRing3Note),
    }
    let len = guest.cmdline.len();
    if len as u64 > loaded.cmdline_max {
        return Err(ImageError::CmdlineTooLong { len, max: loaded.cmdline_max });
    }
    let limit = low_end(memory).min(loaded.initrd_limit);
    let load = |file| initrd::load(file, memory, loaded.end, limit);
    let handover = zero_page::Handover {
        header: &loaded.header,
        cmdline: guest.cmdline,
        initrd: guest.initrd.map(load).transpose()?,
        map: &memory_map(memory, guest.transport == Transport::Pci),
        rsdp: acpi::RSDP,
    };
    zero_page::write(memory, &handover)?;
    Ok(Entry::Linux64(loaded.entry))
}
