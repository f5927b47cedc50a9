//! Which guest physical addresses are memory. Both boot protocols tell the guest this map.

use std::ops::Range;

use moirai_abi::machine::{PCI_ECAM_BASE, PCI_ECAM_SIZE};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::memory::HOLE_START;

/// End of the low memory that a PC leaves to programs; the rest up to 1 MiB is for firmware and
/// adapters, and kernels expect it not to be RAM.
const LOW_END: u64 = 0x9_fc00;
const HIGH_START: u64 = 0x10_0000;

/// What is at a range of addresses; the numbers are those of e820 and of `hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// The ranges that a guest has to know. `ecam`: it has a PCI bus, whose configuration space Linux
/// uses only if it is reserved here.
pub(super) fn memory_map(memory: &GuestMemoryMmap, ecam: bool) -> Vec<(Range<u64>, Kind)> {
    let mut ranges = Vec::new();
    for region in memory.iter() {
        let start = region.start_addr().0;
        let end = start.saturating_add(region.len());
        if start == 0 {
            ranges.extend([(0..LOW_END, Kind::Ram), (HIGH_START..end, Kind::Ram)]);
        } else {
            ranges.push((start..end, Kind::Ram));
        }
    }
    if ecam {
        ranges.push((PCI_ECAM_BASE..PCI_ECAM_BASE + PCI_ECAM_SIZE, Kind::Reserved));
    }
    ranges
}

/// End of the memory below the hole for devices.
pub(super) fn low_end(memory: &GuestMemoryMmap) -> u64 {
    let low = memory.iter().find(|region| region.start_addr().0 == 0);
    low.map_or(0, |region| region.len().min(HOLE_START))
}

#[cfg(test)]
mod tests {
    use super::{Kind, low_end, memory_map};
    use crate::memory::{GuestRam, MemoryOptions};

    #[test]
    fn six_gibibytes_are_told_around_the_hole() {
        let options = MemoryOptions { size_bytes: 6 << 30, prefault: false, huge_pages: false };
        let ram = GuestRam::new("test", options).unwrap();
        assert_eq!(low_end(&ram.map), 3 << 30);
        let map = memory_map(&ram.map, true);
        assert_eq!(
            map,
            [
                (0..0x9_fc00, Kind::Ram),
                (1 << 20..3 << 30, Kind::Ram),
                (4 << 30..7 << 30, Kind::Ram),
                (0xe000_0000..0xe010_0000, Kind::Reserved),
            ]
        );
    }
}
