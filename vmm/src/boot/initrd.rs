//! Puts the initrd into guest memory: as high below the hole for devices as it fits, because the
//! kernel unpacks itself in low memory.

use std::fs::File;
use std::ops::Range;

use rustix::fs::fstat;
use vm_memory::GuestMemoryMmap;

use super::error::ImageError;
use super::file::{self, ReadError};

const PAGE: u64 = 4096;

/// Loads `initrd` between `floor`, the end of the kernel, and `ceiling`; returns where it is.
///
/// # Errors
/// [`ImageError::InitrdTooBig`], or the file cannot be read.
pub(super) fn load(
    initrd: &File,
    memory: &GuestMemoryMmap,
    floor: u64,
    ceiling: u64,
) -> Result<Range<u64>, ImageError> {
    let stat = fstat(initrd).map_err(|errno| {
        ImageError::InitrdRead(ReadError::Io { offset: 0, error: errno.into() })
    })?;
    let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    let start = place(size_bytes, floor, ceiling).ok_or(ImageError::InitrdTooBig {
        size_bytes,
        room_bytes: ceiling.saturating_sub(floor),
    })?;
    file::copy(initrd, 0, size_bytes, memory, start).map_err(ImageError::InitrdRead)?;
    Ok(start..start.saturating_add(size_bytes))
}

/// The highest page that leaves room for `size_bytes` below `ceiling` and is not below `floor`.
fn place(size_bytes: u64, floor: u64, ceiling: u64) -> Option<u64> {
    let start = ceiling.checked_sub(size_bytes)? / PAGE * PAGE;
    (start >= floor).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn an_initrd_lies_as_high_as_it_fits_on_a_page_of_its_own() {
        assert_eq!(place(1, 0, 0x10_0000), Some(0xf_f000));
        assert_eq!(place(0x1000, 0, 0x10_0000), Some(0xf_f000));
        assert_eq!(place(0x1001, 0, 0x10_0000), Some(0xf_e000));
        assert_eq!(place(0x1001, 0xf_e000, 0x10_0000), Some(0xf_e000));
        assert_eq!(place(0x1001, 0xf_e001, 0x10_0000), None);
        assert_eq!(place(u64::MAX, 0, 0x10_0000), None);
    }
}
