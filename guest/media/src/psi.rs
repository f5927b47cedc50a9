//! Program tables (ISO/IEC 13818-1, section 2.4.4): which program has which clock. Sections may
//! span packets. The parser ignores sections with a wrong checksum, and those that are not valid
//! yet.

use crate::ts::Packet;
use alloc::vec::Vec;

/// The packet identifier of the program association table.
pub const PAT_PID: u16 = 0;
/// A program map table that names this has no clock.
pub const NO_PID: u16 = 0x1fff;
const PAT: u8 = 0;
const PMT: u8 = 2;
/// Sections of these tables are no longer (section 2.4.4.3).
const SECTION_MAX: usize = 1024;
const HEADER_LEN: usize = 8;
const CHECKSUM_LEN: usize = 4;
/// More programs than a table of one section can have are not remembered.
const LISTED_MAX: usize = 253;

/// Puts a section together.
#[derive(Clone, Debug, Default)]
pub struct Section(Vec<u8>);

impl Section {
    /// Takes the next packet of the table; gives the section when it is whole.
    pub fn add(&mut self, packet: &Packet<'_>) -> Option<&[u8]> {
        let mut payload = packet.payload;
        if packet.unit_start {
            let (&pointer, rest) = payload.split_first()?;
            payload = rest.get(usize::from(pointer)..)?;
            self.0.clear();
        } else if self.0.is_empty() {
            return None;
        }
        let room = SECTION_MAX.saturating_sub(self.0.len()).min(payload.len());
        self.0.extend_from_slice(payload.get(..room)?);
        let &[_, high, low] = self.0.first_chunk()?;
        let len = 3 + usize::from(u16::from_be_bytes([high & 0x0f, low]));
        if self.0.len() < len {
            return None;
        }
        let section = self.0.get(..len)?;
        let current = section.get(5)? & 1 == 1;
        let whole = len >= HEADER_LEN + CHECKSUM_LEN && crc32(section) == 0;
        (current && whole).then_some(section)
    }

    /// Forgets what has come so far.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The programs of a program association table: number and identifier of their map tables.
pub fn programs(section: &[u8]) -> impl Iterator<Item = (u16, u16)> {
    let is_table = section.first() == Some(&PAT);
    let end = section.len().saturating_sub(CHECKSUM_LEN);
    let entries = section.get(HEADER_LEN..end).filter(|_| is_table).unwrap_or_default();
    let entries = entries.chunks_exact(4).filter_map(|entry| {
        let &[a, b, c, d] = entry.first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c & 0x1f, d])))
    });
    // Program 0 is the network information table.
    entries.filter(|&(number, _)| number != 0)
}

/// The programs that a film has, of all sections of its program association table.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Version of the table and number of its last section.
    table: Option<(u8, u8)>,
    /// Which sections have come.
    seen: [u64; 4],
    numbers: Vec<u16>,
}

impl Listed {
    /// Takes a section of the table.
    pub fn add(&mut self, section: &[u8]) {
        let (Some(&PAT), Some(&[version, number, last])) =
            (section.first(), section.get(5..HEADER_LEN).and_then(<[u8]>::first_chunk))
        else {
            return;
        };
        if self.table != Some((version, last)) {
            *self = Self { table: Some((version, last)), ..Self::default() };
        }
        if let Some(word) = self.seen.get_mut(usize::from(number / 64)) {
            *word |= 1 << (number % 64);
        }
        for (number, _) in programs(section) {
            if self.numbers.len() < LISTED_MAX && !self.numbers.contains(&number) {
                self.numbers.push(number);
            }
        }
    }

    /// Has a section come at all?
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.table.is_some()
    }

    /// Have all sections come?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let sections: u32 = self.seen.iter().map(|word| word.count_ones()).sum();
        self.table.is_some_and(|(_, last)| sections == u32::from(last) + 1)
    }

    /// The numbers of the programs, in the order in which they came.
    #[must_use]
    pub fn numbers(&self) -> &[u16] {
        &self.numbers
    }
}

/// The identifier of the packets with the clock, of the map table of `program`.
#[must_use]
pub fn clock_pid(section: &[u8], program: u16) -> Option<u16> {
    let &[table, _, _, a, b, _, _, _, high, low] = section.first_chunk()?;
    let ours = table == PMT && u16::from_be_bytes([a, b]) == program;
    let pid = u16::from_be_bytes([high & 0x1f, low]);
    (ours && pid != NO_PID).then_some(pid)
}

/// The checksum of annex A: zero over a section with its checksum.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ (u32::from(byte) << 24), |sum, _| {
            (sum << 1) ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}
