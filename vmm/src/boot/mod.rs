//! Puts an image into guest memory and says how to enter it.
//!
//! [`elf`] loads an untrusted ELF64 file, [`start_info`] writes what the PVH boot protocol tells
//! the guest. The image is the tenant's: every field of it is hostile.

pub mod elf;
pub mod start_info;

use std::fs::File;

use moirai_abi::boot::Ring3Note;
use moirai_abi::machine::{VIRTIO_MMIO_BASE, VIRTIO_MMIO_FIRST_GSI, VIRTIO_MMIO_SIZE};
use vm_memory::GuestMemoryMmap;

use crate::launch::Boot;
pub use elf::ImageError;

/// How the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode at this address, start information in `ebx`.
    Pvh(u32),
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

/// Loads `image` and writes the start information beside it.
///
/// # Errors
/// An image that cannot be loaded or cannot be entered as `boot` asks.
pub fn load(
    image: &File,
    memory: &GuestMemoryMmap,
    boot: Boot,
    cmdline: &str,
) -> Result<Entry, ImageError> {
    let loaded = elf::load(image, memory)?;
    start_info::write(memory, cmdline)?;
    let ring3 = || loaded.ring3.map(Entry::Ring3);
    let pvh = || loaded.pvh_entry.map(Entry::Pvh);
    match boot {
        Boot::Auto => ring3().or_else(pvh).ok_or(ImageError::NoEntry),
        Boot::Pvh => pvh().ok_or(ImageError::NoPvhNote),
        Boot::Ring3 => ring3().ok_or(ImageError::NoRing3Note),
    }
}

/// The command line with a word for each of `devices` virtio-mmio windows.
#[must_use]
pub fn cmdline(words: &str, devices: usize) -> String {
    let mut line = words.to_owned();
    let windows = (0..).map(|n| VIRTIO_MMIO_BASE + n * VIRTIO_MMIO_SIZE);
    for (base, gsi) in windows.zip(VIRTIO_MMIO_FIRST_GSI..).take(devices) {
        let separator = if line.is_empty() { "" } else { " " };
        line += &format!("{separator}virtio_mmio.device=4K@{base:#x}:{gsi}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::cmdline;

    #[test]
    fn every_device_gets_its_word_on_the_command_line() {
        assert_eq!(cmdline("", 0), "");
        assert_eq!(
            cmdline("ip=10.0.0.2/24", 2),
            "ip=10.0.0.2/24 virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"
        );
    }
}
