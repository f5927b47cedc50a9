//! What the VMM tells at boot: `hvm_start_info` of the PVH boot protocol (memory map, command
//! line).
//!
//! Parsing is over byte slices and pure; [`crate::boot`] finds the bytes.

/// `hvm_start_info.magic`.
const MAGIC: u32 = 0x336e_c578;
/// `hvm_memmap_table_entry.type` of usable memory.
const USABLE: u32 = 1;
/// Length of an entry of the memory map.
const ENTRY_LEN: usize = 24;

/// Length of `hvm_start_info` with the memory map fields (version 1).
pub const START_INFO_LEN: usize = 56;
/// Most entries of the memory map that are looked at.
pub const MAX_MEMORY_RANGES: usize = 32;

/// Where the pieces are, in physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartInfo {
    /// Zero-terminated command line; 0: none.
    pub command_line: u64,
    /// The memory map; 0: none.
    pub memory_map: u64,
    /// Length of the memory map in bytes, at most [`MAX_MEMORY_RANGES`] entries.
    pub memory_map_len: usize,
}

/// A range of usable memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl StartInfo {
    /// Reads the structure; `None` if it is none, or of version 0 (which has no memory map).
    #[must_use]
    pub fn parse(bytes: &[u8; START_INFO_LEN]) -> Option<Self> {
        let version = read_u32(bytes, 4)?;
        if read_u32(bytes, 0)? != MAGIC || version == 0 {
            return None;
        }
        let entries = usize::try_from(read_u32(bytes, 48)?).ok()?.min(MAX_MEMORY_RANGES);
        Some(Self {
            command_line: read_u64(bytes, 24)?,
            memory_map: read_u64(bytes, 40)?,
            memory_map_len: entries * ENTRY_LEN,
        })
    }
}

/// The usable ranges of a memory map.
pub fn usable_ranges(memory_map: &[u8]) -> impl Iterator<Item = MemoryRange> {
    memory_map.chunks_exact(ENTRY_LEN).filter_map(|entry| {
        let (start, len) = (read_u64(entry, 0)?, read_u64(entry, 8)?);
        let end = start.checked_add(len)?;
        (read_u32(entry, 16)? == USABLE).then_some(MemoryRange { start, end })
    })
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_info(magic: u32, version: u32, entries: u32) -> [u8; START_INFO_LEN] {
        let mut bytes = [0; START_INFO_LEN];
        bytes[0..4].copy_from_slice(&magic.to_le_bytes());
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x2_0000u64.to_le_bytes());
        bytes[40..48].copy_from_slice(&0x7000u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&entries.to_le_bytes());
        bytes
    }

    #[test]
    fn start_info_names_command_line_and_memory_map() {
        let info = StartInfo::parse(&start_info(MAGIC, 1, 2));
        let expected =
            StartInfo { command_line: 0x2_0000, memory_map: 0x7000, memory_map_len: 2 * ENTRY_LEN };
        assert_eq!(info, Some(expected));
    }

    #[test]
    fn absurd_number_of_ranges_is_cut() {
        let info = StartInfo::parse(&start_info(MAGIC, 1, u32::MAX)).unwrap();
        assert_eq!(info.memory_map_len, MAX_MEMORY_RANGES * ENTRY_LEN);
    }

    #[test]
    fn wrong_magic_or_version_is_refused() {
        assert_eq!(StartInfo::parse(&start_info(1, 1, 0)), None);
        assert_eq!(StartInfo::parse(&start_info(MAGIC, 0, 0)), None);
    }

    #[test]
    fn only_usable_ranges_that_do_not_wrap_are_given() {
        let mut map = Vec::new();
        for (start, len, kind) in [(0u64, 0x1000u64, 1u32), (0x1000, 0x1000, 2), (u64::MAX, 2, 1)] {
            map.extend(start.to_le_bytes());
            map.extend(len.to_le_bytes());
            map.extend(kind.to_le_bytes());
            map.extend([0; 4]);
        }
        let ranges: Vec<_> = usable_ranges(&map).collect();
        assert_eq!(ranges, [MemoryRange { start: 0, end: 0x1000 }]);
    }
}
