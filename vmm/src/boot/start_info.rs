//! What the PVH boot protocol tells a guest: `hvm_start_info`, memory map, command line.
//!
//! All of it lies in the [`BOOT_AREA`], a few pages of low memory that no image may claim; a guest
//! may use them once it has read them.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::elf::ImageError;

/// Guest physical addresses of everything that the VMM writes.
pub const BOOT_AREA: Range<u64> = 0x6000..0xa000;
/// Guest physical address of `hvm_start_info`.
pub const START_INFO: u64 = 0x6000;
const MEMORY_MAP: u64 = 0x7000;
const CMDLINE: u64 = 0x8000;
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const TYPE_RAM: u32 = 1;

/// End of the low memory that a PC leaves to programs; the rest up to 1 MiB is for firmware and
/// adapters, and kernels expect it not to be RAM.
const LOW_END: u64 = 0x9_fc00;
const HIGH_START: u64 = 0x10_0000;

/// Writes the start information.
///
/// # Errors
/// [`ImageError::StartInfo`] if memory or the boot area is too small.
pub fn write(memory: &GuestMemoryMmap, cmdline: &str) -> Result<(), ImageError> {
    let map = memory_map(memory);
    let mut info = Vec::with_capacity(56);
    for word in [MAGIC, VERSION, 0, 0] {
        info.extend(word.to_le_bytes());
    }
    let (no_modules, no_rsdp) = (0u64, 0u64);
    for address in [no_modules, CMDLINE, no_rsdp, MEMORY_MAP] {
        info.extend(address.to_le_bytes());
    }
    let entries = u32::try_from(map.len()).map_err(|_| ImageError::StartInfo)?;
    info.extend(entries.to_le_bytes());
    info.extend([0; 4]);

    let mut table = Vec::new();
    for range in map {
        table.extend(range.start.to_le_bytes());
        table.extend((range.end - range.start).to_le_bytes());
        table.extend(TYPE_RAM.to_le_bytes());
        table.extend([0; 4]);
    }
    let mut line = cmdline.as_bytes().to_vec();
    line.push(0);
    if line.len() as u64 > BOOT_AREA.end - CMDLINE {
        return Err(ImageError::StartInfo);
    }
    for (address, bytes) in [(START_INFO, info), (MEMORY_MAP, table), (CMDLINE, line)] {
        let written = memory.write_slice(&bytes, GuestAddress(address));
        written.map_err(|_| ImageError::StartInfo)?;
    }
    Ok(())
}

/// The ranges of RAM that a guest may use.
fn memory_map(memory: &GuestMemoryMmap) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    for region in memory.iter() {
        let start = region.start_addr().0;
        let end = start.saturating_add(region.len());
        if start == 0 {
            ranges.extend([0..LOW_END, HIGH_START..end]);
        } else {
            ranges.push(start..end);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::{BOOT_AREA, CMDLINE, START_INFO, write};
    use crate::launch::spec::MAX_CMDLINE_BYTES;
    use moirai_abi::machine::VIRTIO_MMIO_MAX;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap()
    }

    #[test]
    fn start_info_points_to_command_line_and_memory_map() {
        let memory = memory();
        write(&memory, "hello=1").unwrap();
        let word = |at: u64| memory.read_obj::<u64>(GuestAddress(START_INFO + at)).unwrap();
        assert_eq!(word(0), 0x1_336e_c578);
        let mut line = [0; 8];
        memory.read_slice(&mut line, GuestAddress(word(24))).unwrap();
        assert_eq!(&line, b"hello=1\0");
        assert_eq!(word(48), 2, "two ranges of RAM");
        let map = word(40);
        let ram = |at| memory.read_obj::<u64>(GuestAddress(map + at)).unwrap();
        assert_eq!([ram(0), ram(8), ram(16)], [0, 0x9fc00, 1]);
        assert_eq!([ram(24), ram(32), ram(40)], [0x10_0000, 3 << 20, 1]);
    }

    #[test]
    fn the_longest_command_line_fits_with_the_words_of_all_devices() {
        let line = crate::boot::cmdline(&"x".repeat(MAX_CMDLINE_BYTES), VIRTIO_MMIO_MAX);
        assert!((line.len() as u64) < BOOT_AREA.end - CMDLINE);
        write(&memory(), &line).unwrap();
        assert!(write(&memory(), &"x".repeat(0x2000)).is_err());
    }
}
