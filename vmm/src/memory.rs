//! Guest memory: one sealed memfd, mapped below and above the hole for devices under 4 GiB.
//!
//! The backends of the devices map the same memfd. It is sealed against resizing, so that no
//! process that maps it can make another one fault.
#![allow(unsafe_code, reason = "KVM takes the address of the mapping; madvise works on it")]

use std::fs::File;
use std::io;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, madvise};
use thiserror::Error;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

/// Start of the hole for devices.
pub const HOLE_START: u64 = 0xc000_0000;
/// End of the hole for devices.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// How guest memory is to be had.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOptions {
    /// Size, a multiple of the page size.
    pub size_bytes: u64,
    /// Allocate all of it now.
    pub prefault: bool,
    /// Ask for huge pages.
    pub huge_pages: bool,
}

/// Guest memory and the file behind it.
#[derive(Debug)]
pub struct GuestRam {
    /// The mapping in this process.
    pub map: GuestMemoryMmap,
}

/// What can go wrong with guest memory.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The file behind guest memory cannot be made.
    #[error("cannot make a memfd of {size_bytes} bytes: {error}")]
    Create {
        /// Size asked for.
        size_bytes: u64,
        /// What the kernel said.
        error: io::Error,
    },
    /// The memory cannot be mapped.
    #[error("cannot map {size_bytes} bytes of guest memory: {error}")]
    Map {
        /// Size of the part.
        size_bytes: u64,
        /// What was said.
        error: String,
    },
    /// There is not enough memory to prefault.
    #[error("cannot allocate {size_bytes} bytes of guest memory ahead: {error}")]
    Prefault {
        /// Size of the part.
        size_bytes: u64,
        /// What the kernel said.
        error: io::Error,
    },
    /// KVM refused the memory.
    #[error("KVM refuses guest memory at {guest:#x}: {error}")]
    Slot {
        /// Guest physical address.
        guest: u64,
        /// What KVM said.
        error: kvm_ioctls::Error,
    },
}

impl GuestRam {
    /// Allocates and maps guest memory.
    ///
    /// # Errors
    /// The kernel's refusals.
    pub fn new(tenant: &str, options: MemoryOptions) -> Result<Self, MemoryError> {
        let size_bytes = options.size_bytes;
        let file = create(tenant, size_bytes)
            .map_err(|error| MemoryError::Create { size_bytes, error })?;
        let mut regions = Vec::new();
        for (guest, offset, len) in layout(size_bytes) {
            regions.push(map_region(&file, guest, offset, len, options)?);
        }
        let map = GuestMemoryMmap::from_regions(regions)
            .map_err(|e| MemoryError::Map { size_bytes, error: e.to_string() })?;
        Ok(Self { map })
    }

    /// Gives the memory to a VM, one slot per region.
    ///
    /// # Errors
    /// [`MemoryError::Slot`].
    pub fn register(&self, vm: &VmFd) -> Result<(), MemoryError> {
        for (slot, region) in (0..).zip(self.map.iter()) {
            let guest = region.start_addr().0;
            let kvm_region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: guest,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is one live mapping of this length; it stays mapped until the
            // process ends (`GuestRam` outlives the VM), and slots do not overlap.
            unsafe { vm.set_user_memory_region(kvm_region) }
                .map_err(|error| MemoryError::Slot { guest, error })?;
        }
        Ok(())
    }
}

/// The regions of a memory of `size_bytes`: guest address, offset in the file, length.
fn layout(size_bytes: u64) -> Vec<(u64, u64, u64)> {
    let low = size_bytes.min(HOLE_START);
    let mut regions = vec![(0, 0, low)];
    if size_bytes > low {
        regions.push((HOLE_END, low, size_bytes - low));
    }
    regions
}

fn create(tenant: &str, size_bytes: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create(format!("moirai:{tenant}"), flags)?;
    ftruncate(&fd, size_bytes)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd.into())
}

fn map_region(
    file: &File,
    guest: u64,
    offset: u64,
    size_bytes: u64,
    options: MemoryOptions,
) -> Result<GuestRegionMmap, MemoryError> {
    let map_error = |error: String| MemoryError::Map { size_bytes, error };
    let len = usize::try_from(size_bytes).map_err(|e| map_error(e.to_string()))?;
    let file = file.try_clone().map_err(|e| map_error(e.to_string()))?;
    let mapping = MmapRegionBuilder::new(len)
        .with_file_offset(FileOffset::new(file, offset))
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
        .build()
        .map_err(|e| map_error(e.to_string()))?;
    let start = mapping.as_ptr().cast();
    if options.huge_pages {
        // SAFETY: the range is the mapping made above. That the host has no huge pages to give is
        // no reason to fail: this is advice.
        let _ = unsafe { madvise(start, len, Advice::LinuxHugepage) };
    }
    if options.prefault {
        // SAFETY: as above; populating changes no content.
        unsafe { madvise(start, len, Advice::LinuxPopulateWrite) }
            .map_err(|e| MemoryError::Prefault { size_bytes, error: e.into() })?;
    }
    GuestRegionMmap::new(mapping, GuestAddress(guest))
        .ok_or_else(|| map_error(format!("{guest:#x} is no place for it")))
}

#[cfg(test)]
mod tests {
    use super::{GuestRam, HOLE_END, HOLE_START, MemoryOptions, layout};
    use rustix::fs::ftruncate;
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn memory_above_three_gibibytes_continues_behind_the_hole() {
        assert_eq!(layout(64 << 20), [(0, 0, 64 << 20)]);
        assert_eq!(layout(HOLE_START), [(0, 0, HOLE_START)]);
        let four = layout(4 << 30);
        assert_eq!(four, [(0, 0, HOLE_START), (HOLE_END, HOLE_START, 1 << 30)]);
    }

    #[test]
    fn nobody_can_resize_guest_memory() {
        let options = MemoryOptions { size_bytes: 4 << 20, prefault: true, huge_pages: true };
        let ram = GuestRam::new("test", options).unwrap();
        let region = ram.map.iter().next().unwrap();
        let file = region.file_offset().unwrap().file();
        assert!(ftruncate(file, 0).is_err());
        assert!(ftruncate(file, 8 << 20).is_err());
    }
}
