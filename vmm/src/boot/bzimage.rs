//! Loads a bzImage by the 64-bit Linux boot protocol (the kernel's
//! Documentation/arch/x86/boot.rst).
//!
//! The tenant writes the setup header: the loader reads it once and uses only checked copies of its
//! fields. The kernel gets all of it back in its zero page ([`super::zero_page`]), as the protocol
//! wants.

use std::fs::File;

use vm_memory::GuestMemoryMmap;

use super::error::{BzImageError, ImageError};
use super::file::{self, ReadError, read_at, u8_at, u16_at, u32_at, u64_at};
use super::memory_map::low_end;

/// Where the setup header begins, in the file and in the zero page.
pub(super) const HEADER_START: usize = 0x1f1;
/// Where the fields of other things begin in the zero page.
pub(super) const HEADER_LIMIT: usize = 0x290;
/// Protocol 2.12 is the first that names a 64-bit entry point (`xloadflags`).
const MIN_PROTOCOL: u16 = 0x20c;
/// `loadflags`: the kernel belongs at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: there is a 64-bit entry point at [`ENTRY_OFFSET`].
const KERNEL_64: u16 = 1;
const ENTRY_OFFSET: u64 = 0x200;
const SECTOR: u64 = 512;
const LOWEST: u64 = 0x10_0000;

/// What the setup header says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The header's bytes, for the zero page.
    pub(super) bytes: Vec<u8>,
    /// Where the kernel begins in the file.
    offset: u64,
    /// How long it is there.
    len: u64,
    /// Where it wants to be.
    start: u64,
    /// How much memory it needs there until it reads its memory map.
    init_size: u64,
    /// Longest command line without the terminating zero.
    cmdline_max: u64,
    /// End of the addresses at which it finds an initrd.
    initrd_limit: u64,
}

/// A kernel in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) header: Vec<u8>,
    /// 64-bit entry point.
    pub(super) entry: u64,
    /// End of the memory that the kernel needs to start.
    pub(super) end: u64,
    pub(super) initrd_limit: u64,
    pub(super) cmdline_max: u64,
}

impl Header {
    /// Reads the first [`HEADER_LIMIT`] bytes of a file.
    ///
    /// # Errors
    /// It is no bzImage, or not one for the 64-bit protocol.
    pub fn parse(image: &[u8]) -> Result<Self, ImageError> {
        if u16_at(image, 0x1fe) != 0xaa55 || image.get(0x202..0x206) != Some(b"HdrS") {
            return Err(ImageError::NotAKernel("no magic number of either"));
        }
        let protocol = u16_at(image, 0x206);
        if protocol < MIN_PROTOCOL {
            return Err(BzImageError::OldProtocol(protocol).into());
        }
        // The header ends where the jump over it leads; its last field that is used is init_size.
        let end = 0x202 + usize::from(u8_at(image, 0x201));
        let bytes = image.get(HEADER_START..end.min(HEADER_LIMIT)).unwrap_or_default().to_vec();
        if end < 0x264 || bytes.is_empty() {
            return Err(BzImageError::ShortHeader(end).into());
        }
        if u8_at(image, 0x211) & LOADED_HIGH == 0 || u64_at(image, 0x258) < LOWEST {
            return Err(BzImageError::NotHigh.into());
        }
        if u16_at(image, 0x236) & KERNEL_64 == 0 {
            return Err(BzImageError::No64BitEntry.into());
        }
        // Zero means four, for the sake of very old kernels; the boot sector comes on top.
        let setup_sectors = match u8_at(image, HEADER_START) {
            0 => 5,
            sectors => u64::from(sectors) + 1,
        };
        let len = u64::from(u32_at(image, 0x1f4)) * 16;
        if len <= ENTRY_OFFSET {
            return Err(BzImageError::Empty.into());
        }
        Ok(Self {
            bytes,
            offset: setup_sectors * SECTOR,
            len,
            start: u64_at(image, 0x258),
            init_size: u32_at(image, 0x260).into(),
            cmdline_max: u32_at(image, 0x238).into(),
            initrd_limit: u64::from(u32_at(image, 0x22c)) + 1,
        })
    }
}

/// Loads `image` into `memory` at the address that it prefers.
///
/// # Errors
/// The first broken rule; `memory` then holds part of the image.
pub(super) fn load(image: &File, memory: &GuestMemoryMmap) -> Result<Loaded, ImageError> {
    let mut first = [0; HEADER_LIMIT];
    match read_at(image, 0, &mut first) {
        Err(ReadError::Truncated { .. }) => {
            return Err(ImageError::NotAKernel("it is too short for one"));
        }
        read => read?,
    }
    let header = Header::parse(&first)?;
    let (start, size) = (header.start, header.init_size.max(header.len));
    let end = start.saturating_add(size);
    if end > low_end(memory) {
        return Err(ImageError::KernelOutsideMemory { start, end });
    }
    file::copy(image, header.offset, header.len, memory, start)?;
    Ok(Loaded {
        entry: start + ENTRY_OFFSET,
        end,
        initrd_limit: header.initrd_limit,
        cmdline_max: header.cmdline_max,
        header: header.bytes,
    })
}
