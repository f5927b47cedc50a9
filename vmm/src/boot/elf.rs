//! Loads an ELF64 executable by its physical addresses and reads its notes.
//!
//! Nothing in the file is trusted: headers are read into locals and checked before use, segments
//! must lie in guest memory, must not overlap, and must leave the boot area alone.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use moirai_abi::boot::{NOTE_NAME, NOTE_TYPE_RING3, Ring3Note};
use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::start_info::BOOT_AREA;

const HEADER_LEN: usize = 64;
const SEGMENT_LEN: usize = 56;
const MAX_SEGMENTS: u16 = 64;
const MAX_NOTES_BYTES: u64 = 64 << 10;
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
}

/// Why an image cannot be booted.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file cannot be read.
    #[error("the image cannot be read at byte {offset}: {error}")]
    Read {
        /// Where.
        offset: u64,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file ends before what its headers promise.
    #[error("the image is truncated: it ends before byte {end}")]
    Truncated {
        /// First byte after what is missing.
        end: u64,
    },
    /// Another kind of file.
    #[error("the image is not an ELF file")]
    NotElf,
    /// An ELF file for something else.
    #[error("the image is not a 64-bit little-endian x86-64 executable ({0})")]
    WrongKind(&'static str),
    /// The program headers cannot be right.
    #[error("the image has a bad table of program headers ({count} of {size} bytes)")]
    BadHeaders {
        /// Number of headers.
        count: u16,
        /// Size of each.
        size: u16,
    },
    /// Nothing to load.
    #[error("the image has no segment to load")]
    NoSegments,
    /// More bytes in the file than in memory, or sizes that overflow.
    #[error("segment {index} of the image has impossible sizes")]
    BadSegment {
        /// Index of the program header.
        index: usize,
    },
    /// A segment outside guest memory.
    #[error("segment {index} of the image ({start:#x}..{end:#x}) is outside guest memory")]
    OutsideMemory {
        /// Index of the program header.
        index: usize,
        /// First byte.
        start: u64,
        /// End.
        end: u64,
    },
    /// Two segments claim the same bytes, or one claims the boot area.
    #[error(
        "segment {index} of the image ({start:#x}..{end:#x}) overlaps another or the boot area"
    )]
    Overlap {
        /// Index of the program header.
        index: usize,
        /// First byte.
        start: u64,
        /// End.
        end: u64,
    },
    /// The notes are too long to be read.
    #[error("the image has {0} bytes of notes: at most {MAX_NOTES_BYTES}")]
    LongNotes(u64),
    /// Neither note.
    #[error("the image has neither a PVH note nor a ring-3 note: there is no way to enter it")]
    NoEntry,
    /// PVH was asked for.
    #[error("the image has no PVH note")]
    NoPvhNote,
    /// Ring 3 was asked for.
    #[error("the image has no ring-3 note of a version that this VMM knows")]
    NoRing3Note,
    /// The start information does not fit guest memory.
    #[error("the start information does not fit guest memory")]
    StartInfo,
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
    let mut taken: Vec<Range<u64>> = vec![BOOT_AREA];
    for (index, segment) in read_segments(image)?.into_iter().enumerate() {
        match segment.kind {
            PT_LOAD if segment.memory_len > 0 => {
                let range = place(index, segment, memory, &taken)?;
                copy(image, segment, memory, index)?;
                taken.push(range);
            }
            PT_NOTE => read_notes(image, index, segment, &mut loaded)?,
            _ => {}
        }
    }
    if taken.len() == 1 { Err(ImageError::NoSegments) } else { Ok(loaded) }
}

fn read_at(image: &File, offset: u64, bytes: &mut [u8]) -> Result<(), ImageError> {
    image.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { end: offset.saturating_add(bytes.len() as u64) }
        }
        _ => ImageError::Read { offset, error },
    })
}

fn read_segments(image: &File) -> Result<Vec<Segment>, ImageError> {
    let mut magic = [0; 4];
    match read_at(image, 0, &mut magic) {
        Ok(()) if &magic == b"\x7fELF" => {}
        Ok(()) | Err(ImageError::Truncated { .. }) => return Err(ImageError::NotElf),
        Err(error) => return Err(error),
    }
    let mut header = [0; HEADER_LEN];
    read_at(image, 0, &mut header)?;
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

/// Copies the file's part of a segment; the rest is zero already. A segment that [`place`] let
/// through lies in guest memory as a whole.
fn copy(
    image: &File,
    segment: Segment,
    memory: &GuestMemoryMmap,
    index: usize,
) -> Result<(), ImageError> {
    const CHUNK: u64 = 16 << 10;
    let mut buffer = vec![0; segment.file_len.min(CHUNK) as usize];
    let mut done = 0;
    while done < segment.file_len {
        let len = (segment.file_len - done).min(CHUNK) as usize;
        let Some(chunk) = buffer.get_mut(..len) else { break };
        read_at(image, segment.offset + done, chunk)?;
        let outside = |_| ImageError::BadSegment { index };
        let target = memory.get_slice(GuestAddress(segment.physical + done), len);
        target.map_err(outside)?.copy_from(chunk);
        done += len as u64;
    }
    Ok(())
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

/// Little-endian field at `offset`; zero if the bytes are too short, which callers rule out.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(field(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(field(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(field(bytes, offset))
}
