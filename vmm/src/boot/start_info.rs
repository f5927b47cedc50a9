//! What the PVH boot protocol tells a guest: `hvm_start_info`, memory map, command line, initrd,
//! ACPI. A library OS that is entered in ring 3 is told the same.
//!
//! All of it lies in the [`BOOT_AREA`]; a guest may use that memory once it has read it.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::error::ImageError;
use super::memory_map::Kind;
use super::{BOOT_AREA, CMDLINE, MAX_LINE_BYTES};

/// Guest physical address of `hvm_start_info`.
pub const START_INFO: u64 = 0x6000;
/// The list of modules, which has one entry at most, behind the 56 bytes of `hvm_start_info`.
const MODULES: u64 = START_INFO + 64;
const MEMORY_MAP: u64 = 0x7000;
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;

/// What the guest is to be told.
#[derive(Clone, Debug)]
pub(super) struct Handover<'a> {
    pub(super) cmdline: &'a str,
    pub(super) initrd: Option<Range<u64>>,
    pub(super) map: &'a [(Range<u64>, Kind)],
    /// Address of the ACPI root pointer; 0 if there is none.
    pub(super) rsdp: u64,
}

/// Writes the start information.
///
/// # Errors
/// [`ImageError::StartInfo`] if memory or the boot area is too small.
pub(super) fn write(memory: &GuestMemoryMmap, handover: &Handover<'_>) -> Result<(), ImageError> {
    const { assert!(MODULES + 32 <= MEMORY_MAP && CMDLINE < BOOT_AREA.end) };
    let modules = handover.initrd.iter().map(|initrd| {
        let size = initrd.end.saturating_sub(initrd.start);
        let no_cmdline = 0;
        [initrd.start, size, no_cmdline, 0]
    });
    let modules: Vec<u8> = modules.flatten().flat_map(u64::to_le_bytes).collect();

    let mut info = Vec::with_capacity(56);
    let (flags, count) = (0, u32::from(handover.initrd.is_some()));
    for word in [MAGIC, VERSION, flags, count] {
        info.extend(word.to_le_bytes());
    }
    let list = if modules.is_empty() { 0 } else { MODULES };
    for address in [list, CMDLINE, handover.rsdp, MEMORY_MAP] {
        info.extend(address.to_le_bytes());
    }
    let entries = u32::try_from(handover.map.len()).map_err(|_| ImageError::StartInfo)?;
    info.extend(entries.to_le_bytes());
    info.extend([0; 4]);

    let mut table = Vec::new();
    for (range, kind) in handover.map {
        table.extend(range.start.to_le_bytes());
        table.extend(range.end.saturating_sub(range.start).to_le_bytes());
        table.extend((*kind as u32).to_le_bytes());
        table.extend([0; 4]);
    }
    let mut line = handover.cmdline.as_bytes().to_vec();
    line.push(0);
    if line.len() > MAX_LINE_BYTES || table.len() as u64 > CMDLINE - MEMORY_MAP {
        return Err(ImageError::StartInfo);
    }
    let parts = [(START_INFO, info), (MODULES, modules), (MEMORY_MAP, table), (CMDLINE, line)];
    for (address, bytes) in parts {
        let written = memory.write_slice(&bytes, GuestAddress(address));
        written.map_err(|_| ImageError::StartInfo)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Handover, Kind, MAX_LINE_BYTES, START_INFO, write};
    use moirai_abi::machine::VIRTIO_MMIO_MAX;
    use moirai_launch::spec::MAX_CMDLINE_BYTES;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap()
    }

    fn handover(cmdline: &str) -> Handover<'_> {
        Handover { cmdline, initrd: None, map: &[], rsdp: 0 }
    }

    #[test]
    fn start_info_points_to_command_line_and_memory_map() {
        let memory = memory();
        let map = [(0..0x9_fc00, Kind::Ram), (0x10_0000..0x40_0000, Kind::Ram)];
        write(&memory, &Handover { map: &map, ..handover("hello=1") }).unwrap();
        let word = |at: u64| memory.read_obj::<u64>(GuestAddress(START_INFO + at)).unwrap();
        assert_eq!(word(0), 0x1_336e_c578);
        assert_eq!([word(8), word(16), word(32)], [0, 0, 0], "no module, no ACPI");
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
    fn an_initrd_is_the_first_module() {
        let memory = memory();
        let told = Handover { initrd: Some(0x30_0000..0x30_1234), rsdp: 0xe_0000, ..handover("") };
        write(&memory, &told).unwrap();
        let word = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        assert_eq!(word(START_INFO + 8), 1 << 32, "one module");
        assert_eq!(word(START_INFO + 32), 0xe_0000);
        let module = word(START_INFO + 16);
        assert_eq!([word(module), word(module + 8), word(module + 16)], [0x30_0000, 0x1234, 0]);
    }

    #[test]
    fn the_longest_command_line_fits_with_the_words_of_all_devices() {
        let line =
            crate::boot::cmdline::with_devices(&"x".repeat(MAX_CMDLINE_BYTES), VIRTIO_MMIO_MAX);
        assert!(line.len() < MAX_LINE_BYTES);
        write(&memory(), &handover(&line)).unwrap();
        assert!(write(&memory(), &handover(&"x".repeat(MAX_LINE_BYTES))).is_err());
    }
}
