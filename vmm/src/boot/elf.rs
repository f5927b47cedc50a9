//! Loads an ELF64 executable by its physical addresses and reads its notes.
//!
//! Nothing in the file is trusted: headers are read into locals and checked before use, segments
//! must lie in guest memory, must not overlap, and must leave the boot area alone.

use std::fs::File;
use std::ops::Range;

use moirai_abi::boot::{NOTE_NAME, NOTE_TYPE_RING3, Ring3Note};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::error::{ImageError, MAX_NOTES_BYTES};
use super::file::{self, read_at, u16_at, u32_at, u64_at};
use super::{BOOT_AREA, acpi};
use crate::memory::HOLE_START;

/// What an ELF file begins with.
pub(super) const MAGIC: &[u8; 4] = b"\x7fELF";

const HEADER_LEN: usize = 64;
const SEGMENT_LEN: usize = 56;
const MAX_SEGMENTS: u16 = 64;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Name and type of the note with the PVH entry point (Xen's `XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_NOTE: (&[u8], u32) = (b"Xen\0", 18);

/// What an image holds, once it is in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Entry point of the PVH note.
    pub pvh_entry: Option<u32>,
    /// The ring-3 note, if there is one of the version that we know.
    pub ring3: Option<Ring3Note>,
    /// End of its highest segment below the hole for devices.
    pub end: u64,
}

/// One program header, as far as loading needs it.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    offset: u64,
    physical: u64,
    file_len: u64,
    memory_len: u64,
    align: u64,
}

/// Loads `image` into `memory`, which has to be all zero.
///
/// # Errors
/// The first broken rule; `memory` then holds part of the image.
pub fn load(image: &File, memory: &GuestMemoryMmap) -> Result<Loaded, ImageError> {
    let mut loaded = Loaded::default();
    let mut taken: Vec<Range<u64>> = vec![BOOT_AREA, acpi::AREA];
    for (index, segment) in read_segments(image)?.into_iter().enumerate() {
        match segment.kind {
            PT_LOAD if segment.memory_len > 0 => {
                let range = place(index, segment, memory, &taken)?;
                file::copy(image, segment.offset, segment.file_len, memory, segment.physical)?;
                if range.end <= HOLE_START {
                    loaded.end = loaded.end.max(range.end);
                }
                taken.push(range);
            }
            PT_NOTE => read_notes(image, index, segment, &mut loaded)?,
            _ => {}
        }
    }
    if taken.len() == 2 { Err(ImageError::NoSegments) } else { Ok(loaded) }
}

fn read_segments(image: &File) -> Result<Vec<Segment>, ImageError> {
    let mut header = [0; HEADER_LEN];
    read_at(image, 0, &mut header)?;
    if header.get(..4) != Some(MAGIC) {
        return Err(ImageError::WrongKind("not an ELF file"));
    }
    if header.get(4..7) != Some(&[2, 1, 1]) {
        return Err(ImageError::WrongKind("class, byte order or version"));
    }
    if u16_at(&header, 16) != ET_EXEC {
        return Err(ImageError::WrongKind("not a fixed-address executable"));
    }
    if u16_at(&header, 18) != EM_X86_64 {
        return Err(ImageError::WrongKind("machine"));
    }
    let (table, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if usize::from(size) != SEGMENT_LEN || !(1..=MAX_SEGMENTS).contains(&count) {
        return Err(ImageError::BadHeaders { count, size });
    }
    let mut bytes = vec![0; SEGMENT_LEN * usize::from(count)];
    read_at(image, table, &mut bytes)?;
    Ok(bytes.chunks_exact(SEGMENT_LEN).map(Segment::parse).collect())
}

impl Segment {
    fn parse(bytes: &[u8]) -> Self {
        Self {
            kind: u32_at(bytes, 0),
            offset: u64_at(bytes, 8),
            physical: u64_at(bytes, 24),
            file_len: u64_at(bytes, 32),
            memory_len: u64_at(bytes, 40),
            align: u64_at(bytes, 48),
        }
    }
}

/// Where a segment goes, if it may.
fn place(
    index: usize,
    segment: Segment,
    memory: &GuestMemoryMmap,
    taken: &[Range<u64>],
) -> Result<Range<u64>, ImageError> {
    let start = segment.physical;
    let end = start.checked_add(segment.memory_len).ok_or(ImageError::BadSegment { index })?;
    if segment.file_len > segment.memory_len
        || segment.offset.checked_add(segment.file_len).is_none()
    {
        return Err(ImageError::BadSegment { index });
    }
    let len = usize::try_from(segment.memory_len).map_err(|_| ImageError::BadSegment { index })?;
    if !memory.check_range(GuestAddress(start), len) {
        return Err(ImageError::OutsideMemory { index, start, end });
    }
    if taken.iter().any(|other| start < other.end && other.start < end) {
        return Err(ImageError::Overlap { index, start, end });
    }
    Ok(start..end)
}

fn read_notes(
    image: &File,
    index: usize,
    segment: Segment,
    loaded: &mut Loaded,
) -> Result<(), ImageError> {
    if segment.file_len > MAX_NOTES_BYTES {
        return Err(ImageError::LongNotes(segment.file_len));
    }
    let len = usize::try_from(segment.file_len).map_err(|_| ImageError::BadSegment { index })?;
    let mut bytes = vec![0; len];
    read_at(image, segment.offset, &mut bytes)?;
    let align = if segment.align == 8 { 8 } else { 4 };
    for note in (Notes { rest: &bytes, align }) {
        if (note.name, note.kind) == PVH_NOTE {
            loaded.pvh_entry = note.desc.get(..4).map(|desc| u32_at(desc, 0));
        } else if note.name == NOTE_NAME.as_slice() && note.kind == NOTE_TYPE_RING3 {
            loaded.ring3 = Ring3Note::decode(note.desc);
        }
    }
    Ok(())
}

/// The notes of a segment, up to the first that does not fit.
struct Notes<'a> {
    rest: &'a [u8],
    align: usize,
}

struct Note<'a> {
    name: &'a [u8],
    kind: u32,
    desc: &'a [u8],
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let header = self.rest.get(..12)?;
        let name_len = usize::try_from(u32_at(header, 0)).ok()?;
        let desc_len = usize::try_from(u32_at(header, 4)).ok()?;
        let kind = u32_at(header, 8);
        let name = self.rest.get(12..)?.get(..name_len)?;
        let desc_start = name_len.checked_add(12)?.checked_next_multiple_of(self.align)?;
        let desc = self.rest.get(desc_start..)?.get(..desc_len)?;
        let end = desc_start.checked_add(desc_len)?.checked_next_multiple_of(self.align)?;
        self.rest = self.rest.get(end..).unwrap_or_default();
        Some(Note { name, kind, desc })
    }
}
