//! Memory tables: validated, mapped, and searched for ring addresses.
//!
//! An access to memory of a peer fails by SIGBUS if the peer cuts its file short, or if a huge page
//! is missing. So the file has to be a memfd of ordinary pages, sealed against shrinking, unless
//! the profile trusts the peer. (A hugetlb memfd can be sealed and still fails when no huge page is
//! free.) Whatever the file is, a fault in its mapping only ends the session
//! ([`crate::memory::faults`]).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, SealFlags, fcntl_get_seals, fstat, fstatfs};
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion, VolatileMemory as _, VolatileSlice,
};

use crate::memory::GuestMemory;
use crate::memory::watch::Watch;

/// `f_type` of memfds with ordinary pages.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// `f_type` of memfds with huge pages.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
/// Regions may begin at multiples of this offset in their file.
const PAGE_BYTES: u64 = 4096;

/// A rule for memory tables that the peer broke.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Zero length, or an address range that wraps around.
    #[error("memory region {0} is empty or overflows")]
    BadRange(usize),
    /// The offset in the file is no multiple of the page size.
    #[error("memory region {0} does not begin at a page of its file")]
    Unaligned(usize),
    /// All regions together exceed the limit of the profile.
    #[error("memory table of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Sum of the regions.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The file is shorter than the region says.
    #[error("memory region {index} ends at {end} of a file of {size} bytes")]
    FileTooShort {
        /// Which region.
        index: usize,
        /// End of the region in the file.
        end: u64,
        /// Size of the file.
        size: u64,
    },
    /// The file could shrink under the mapping.
    #[error(
        "memory region {0} is no memfd with F_SEAL_SHRINK; seal it (QEMU: memory-backend-memfd)"
    )]
    NotSealed(usize),
    /// Its pages may be missing when they are needed.
    #[error(
        "memory region {0} is not in ordinary pages, so that they may be missing when they are \
         needed (QEMU: memory-backend-memfd without hugetlb)"
    )]
    NotOrdinary(usize),
    /// Two regions share guest or user addresses.
    #[error("memory regions overlap")]
    Overlap,
    /// The kernel refuses the mapping.
    #[error("memory region {index} cannot be mapped: {reason}")]
    Map {
        /// Which region.
        index: usize,
        /// Why.
        reason: String,
    },
}

/// What a peer may hand us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_bytes: u64,
    pub(super) allow_unsealed: bool,
}

/// A region as the VMM sees it, and where the guest sees the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alias {
    user_addr: u64,
    guest_addr: u64,
    len: u64,
}

/// The guest's memory and the addresses that its VMM knows it by.
#[derive(Debug)]
pub(super) struct MemoryTable {
    pub(super) guest: Arc<GuestMemory>,
    aliases: Vec<Alias>,
}

impl MemoryTable {
    /// Checks and maps the regions; `files` are theirs, in order.
    pub(super) fn map(
        regions: &[VhostUserMemoryRegion],
        files: Vec<OwnedFd>,
        limits: Limits,
    ) -> Result<Self, MemoryError> {
        let mut total = 0_u64;
        for (index, region) in regions.iter().enumerate() {
            check_range(index, region)?;
            total = total.saturating_add(region.memory_size);
        }
        if total > limits.max_bytes {
            return Err(MemoryError::TooLarge { bytes: total, limit: limits.max_bytes });
        }
        if user_addresses_overlap(regions) {
            return Err(MemoryError::Overlap);
        }
        let mut mapped = Vec::with_capacity(regions.len());
        let mut watched = Vec::with_capacity(regions.len());
        for (index, (region, file)) in regions.iter().zip(files).enumerate() {
            let (mapping, watch) = map_region(index, region, file.into(), limits)?;
            mapped.push(mapping);
            watched.push(watch);
        }
        mapped.sort_by_key(|region| GuestMemoryRegion::start_addr(region).0);
        let guest = GuestMemory::of_peer(mapped, watched).map_err(|_| MemoryError::Overlap)?;
        let aliases = regions
            .iter()
            .map(|region| Alias {
                user_addr: region.user_addr,
                guest_addr: region.guest_phys_addr,
                len: region.memory_size,
            })
            .collect();
        Ok(Self { guest: Arc::new(guest), aliases })
    }

    /// Whether this is the table of these regions, in these files, already. VMMs send the table at
    /// every start of a device; a guest that resets its devices all the time shall not make us map
    /// and unmap its memory each time.
    pub(super) fn is_of(&self, regions: &[VhostUserMemoryRegion], files: &[OwnedFd]) -> bool {
        let known = |(region, file): (&VhostUserMemoryRegion, &OwnedFd)| {
            let alias = Alias {
                user_addr: region.user_addr,
                guest_addr: region.guest_phys_addr,
                len: region.memory_size,
            };
            let mapped = self.guest.find_region(GuestAddress(alias.guest_addr));
            let mapped = mapped.and_then(GuestMemoryRegion::file_offset);
            self.aliases.contains(&alias)
                && mapped.is_some_and(|mapped| {
                    mapped.start() == region.mmap_offset && is_same_file(mapped.file(), file)
                })
        };
        self.aliases.len() == regions.len() && regions.iter().zip(files).all(known)
    }

    /// Whether any of it was lost.
    pub(super) fn is_lost(&self) -> bool {
        self.guest.is_lost()
    }

    /// The guest physical address of an address in the VMM's own address space.
    pub(super) fn guest_address(&self, user_addr: u64) -> Option<GuestAddress> {
        self.aliases.iter().find_map(|alias| {
            let offset = user_addr.checked_sub(alias.user_addr).filter(|o| *o < alias.len)?;
            alias.guest_addr.checked_add(offset).map(GuestAddress)
        })
    }
}

/// The mapping holds its file, so that its number cannot be another's by now.
fn is_same_file(one: &File, other: &OwnedFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

fn check_range(index: usize, region: &VhostUserMemoryRegion) -> Result<(), MemoryError> {
    let VhostUserMemoryRegion { guest_phys_addr, memory_size, user_addr, mmap_offset } = *region;
    let starts = [guest_phys_addr, user_addr, mmap_offset];
    if memory_size == 0 || starts.iter().any(|start| start.checked_add(memory_size).is_none()) {
        return Err(MemoryError::BadRange(index));
    }
    if !mmap_offset.is_multiple_of(PAGE_BYTES) {
        return Err(MemoryError::Unaligned(index));
    }
    Ok(())
}

fn user_addresses_overlap(regions: &[VhostUserMemoryRegion]) -> bool {
    let mut ranges: Vec<_> = regions
        .iter()
        .map(|region| (region.user_addr, region.user_addr.saturating_add(region.memory_size)))
        .collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| matches!(pair, [(_, end), (start, _)] if end > start))
}

fn map_region(
    index: usize,
    region: &VhostUserMemoryRegion,
    file: File,
    limits: Limits,
) -> Result<(GuestRegionMmap, Watch), MemoryError> {
    let file = FileOffset::new(file, region.mmap_offset);
    let Mapping { watch, region: mapping } = map_file(index, file, region.memory_size, limits)?;
    let region = GuestRegionMmap::new(mapping, GuestAddress(region.guest_phys_addr))
        .ok_or(MemoryError::BadRange(index))?;
    Ok((region, watch))
}

/// A part of a peer's file, mapped.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Goes before the region does.
    watch: Watch,
    region: MmapRegion,
}

impl Mapping {
    /// Whether the file could not be read where it was mapped.
    pub(super) fn is_lost(&self) -> bool {
        self.watch.is_lost()
    }

    pub(super) fn bytes(&self) -> VolatileSlice<'_> {
        self.region.as_volatile_slice()
    }
}

/// Maps `bytes` of a peer's file; `index` is for the report.
pub(super) fn map_file(
    index: usize,
    file: FileOffset,
    bytes: u64,
    limits: Limits,
) -> Result<Mapping, MemoryError> {
    let refused = |reason: String| MemoryError::Map { index, reason };
    let page = page_bytes(index, file.file(), limits)?;
    if !file.start().is_multiple_of(page) {
        return Err(MemoryError::Unaligned(index));
    }
    let stat = fstat(file.file()).map_err(|errno| refused(errno.to_string()))?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let end = file.start().saturating_add(bytes);
    if end > size {
        return Err(MemoryError::FileTooShort { index, end, size });
    }
    let length = |bytes: u64| usize::try_from(bytes).map_err(|e| refused(e.to_string()));
    let region: MmapRegion =
        MmapRegion::from_file(file, length(bytes)?).map_err(|e| refused(e.to_string()))?;
    let mapped = bytes.checked_next_multiple_of(page).unwrap_or(bytes);
    let watch = Watch::new(region.as_ptr() as usize, length(mapped)?)
        .map_err(|error| refused(error.to_string()))?;
    Ok(Mapping { watch, region })
}

/// The size of the file's pages, if it is a file that may be mapped. What cannot shrink stays as
/// long as it is when it is measured afterwards.
fn page_bytes(index: usize, file: &File, limits: Limits) -> Result<u64, MemoryError> {
    let refused = |reason: String| MemoryError::Map { index, reason };
    let stat = fstat(file).map_err(|errno| refused(errno.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused("not a regular file".to_owned()));
    }
    let sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    if !sealed && !limits.allow_unsealed {
        return Err(MemoryError::NotSealed(index));
    }
    let kind = fstatfs(file).map_err(|errno| refused(errno.to_string()))?;
    if kind.f_type != TMPFS_MAGIC && !limits.allow_unsealed {
        return Err(MemoryError::NotOrdinary(index));
    }
    let huge = u64::try_from(kind.f_bsize).ok().filter(|_| kind.f_type == HUGETLBFS_MAGIC);
    Ok(huge.unwrap_or(PAGE_BYTES))
}
