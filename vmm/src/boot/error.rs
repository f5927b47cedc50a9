//! Why an image cannot be booted: one variant per broken rule.

use moirai_abi::machine::VIRTIO_MMIO_MAX;
use thiserror::Error;

use super::file::ReadError;

/// Most bytes of notes that are read.
pub(super) const MAX_NOTES_BYTES: u64 = 64 << 10;

/// Why an image cannot be booted.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file is shorter than its headers promise, or cannot be read.
    #[error("the image {0}")]
    Read(#[from] ReadError),
    /// Another kind of file.
    #[error("the image is neither an ELF file nor a bzImage: {0}")]
    NotAKernel(&'static str),
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
    /// Two segments claim the same bytes, or one claims an area of the VMM.
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
    #[error(
        "the image has neither a PVH note nor a ring-3 note, and is no bzImage: there is no way to \
         enter it"
    )]
    NoEntry,
    /// PVH was asked for.
    #[error("the image has no PVH note")]
    NoPvhNote,
    /// Ring 3 was asked for.
    #[error("the image has no ring-3 note of a version that this VMM knows")]
    NoRing3Note,
    /// A library OS has no driver for the bus.
    #[error("the image is entered in ring 3 and finds its devices on the command line only")]
    Ring3OnPci,
    /// A bzImage that cannot be entered.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
    /// The kernel does not fit guest memory.
    #[error("the kernel needs memory at {start:#x}..{end:#x}, below 3 GiB")]
    KernelOutsideMemory {
        /// First byte.
        start: u64,
        /// End.
        end: u64,
    },
    /// The command line is longer than the kernel takes.
    #[error("the command line of {len} bytes is too long: this kernel takes {max}")]
    CmdlineTooLong {
        /// Its length with the words for the devices.
        len: usize,
        /// The kernel's limit.
        max: u64,
    },
    /// The initrd cannot be read.
    #[error("the initrd {0}")]
    InitrdRead(ReadError),
    /// The initrd does not fit between the kernel and the hole for devices.
    #[error("the initrd of {size_bytes} bytes does not fit: {room_bytes} bytes are left for it")]
    InitrdTooBig {
        /// Its size.
        size_bytes: u64,
        /// Memory between the end of the kernel and where an initrd may end.
        room_bytes: u64,
    },
    /// More devices than the tables can name.
    #[error("{0} devices: at most {VIRTIO_MMIO_MAX}")]
    TooManyDevices(usize),
    /// What the VMM tells the guest does not fit guest memory.
    #[error("the start information does not fit guest memory")]
    StartInfo,
}

impl ImageError {
    /// What an operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read(ReadError::Io { .. }) => {
                "make the image a readable regular file; it is opened by the host service"
            }
            Self::OutsideMemory { .. } => "give the tenant more memory, or link the image lower",
            Self::KernelOutsideMemory { .. } | Self::StartInfo => "give the tenant more memory",
            Self::InitrdTooBig { .. } => {
                "give the tenant more memory (an initrd lies below 3 GiB), or make a smaller initrd"
            }
            Self::InitrdRead(_) => "make the initrd a readable regular file",
            Self::CmdlineTooLong { .. } => "shorten the command line",
            Self::Ring3OnPci => "give a library OS transport = \"mmio\"",
            Self::BzImage(_) => "give a 64-bit Linux kernel, version 3.8 or later",
            Self::NoPvhNote | Self::NoRing3Note => "let boot = \"auto\" choose",
            _ => {
                "give an ELF64 image with a PVH or a ring-3 note, as `make` builds, or the vmlinuz \
                 of a distribution"
            }
        }
    }
}

/// Why a bzImage cannot be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BzImageError {
    /// Before Linux 3.8.
    #[error(
        "the bzImage speaks boot protocol {}.{}: 2.12 is the first with a 64-bit entry point",
        .0 >> 8, .0 & 0xff
    )]
    OldProtocol(u16),
    /// A header that ends before the fields of its protocol.
    #[error("the setup header of the bzImage ends at byte {0:#x}, before its own fields")]
    ShortHeader(usize),
    /// A 32-bit kernel.
    #[error("the bzImage has no 64-bit entry point")]
    No64BitEntry,
    /// A zImage, or a kernel that wants to lie where the machine has no memory for it.
    #[error("the bzImage wants to be loaded below 1 MiB")]
    NotHigh,
    /// No kernel after the setup code.
    #[error("the bzImage has no kernel in it")]
    Empty,
}
