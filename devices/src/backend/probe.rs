//! What a file or block device can do: its size, and whether and how it takes O_DIRECT.

use std::fs::File;
use std::io::{self, IoSliceMut, Seek, SeekFrom};
use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, OFlags, StatxFlags, fallocate, fcntl_getfl, fcntl_setfl,
    fstat, fstatfs, statx,
};
use rustix::io::preadv;

/// A block of every file system.
const BEHIND_BYTES: u64 = 64 << 10;

/// Larger blocks are left to the page cache.
const MAX_BLOCK_BYTES: u32 = 64 << 10;

/// What O_DIRECT wants of a request; powers of two, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Of every address.
    pub(super) memory: u32,
    /// Of every length and of the offset.
    pub(super) offset: u32,
}

/// Size in bytes, or `None` if it is neither a regular file nor a block device.
pub(super) fn size(file: &File) -> io::Result<Option<u64>> {
    let stat = fstat(file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(u64::try_from(stat.st_size).ok()),
        FileType::BlockDevice => (&*file).seek(SeekFrom::End(0)).map(Some),
        _ => Ok(None),
    }
}

/// Whether a file system makes whoever begins a request wait, though it was told not to. FUSE
/// does: it takes the lock of a file first, which another request has until a process has answered
/// it.
pub(super) fn makes_wait(file: &File) -> bool {
    const FUSE_SUPER_MAGIC: u32 = 0x6573_5546;
    fstatfs(file).is_ok_and(|stat| u32::try_from(stat.f_type) == Ok(FUSE_SUPER_MAGIC))
}

/// Clears O_NONBLOCK, with which io_uring gives up instead of waiting for the device.
pub(super) fn make_blocking(file: &File) -> io::Result<()> {
    Ok(fcntl_setfl(file, fcntl_getfl(file)? - OFlags::NONBLOCK)?)
}

/// Switches the file to O_DIRECT if its file system has it; what it then wants.
pub(super) fn make_direct(file: &File) -> Option<Alignment> {
    let flags = fcntl_getfl(file).ok()?;
    fcntl_setfl(file, flags | OFlags::DIRECT).ok()?;
    let known = reported(file)
        .filter(|it| it.offset.max(it.memory) <= MAX_BLOCK_BYTES && reads(file, it.offset, 0));
    let alignment = known.or_else(|| probed(file));
    if alignment.is_none() {
        // Nobody gets to see the file before this; a failure shows in its first request.
        let _ = fcntl_setfl(file, flags - OFlags::DIRECT);
    }
    alignment
}

/// What the kernel says (since Linux 6.1, not for every file system).
fn reported(file: &File) -> Option<Alignment> {
    let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let known = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    let usable = known && memory.is_power_of_two() && offset.is_power_of_two();
    usable.then_some(Alignment { memory, offset: offset.max(512) })
}

/// The smallest block that can be read, where there is data: a hole can be read in any way.
fn probed(file: &File) -> Option<Alignment> {
    let data = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)).unwrap_or(0);
    let place = data - data % 4096;
    let works = [512, 4096].into_iter().find(|block| reads(file, *block, place));
    works.map(|block| Alignment { memory: block, offset: block })
}

/// Whether a block of that size can be read at that place.
fn reads(file: &File, block: u32, place: u64) -> bool {
    let len = block as usize;
    let mut bytes = vec![0_u8; len.saturating_mul(2)];
    let start = bytes.as_ptr().align_offset(len);
    let Some(aligned) = bytes.get_mut(start..start.saturating_add(len)) else { return false };
    preadv(file, &mut [IoSliceMut::new(aligned)], place).is_ok()
}

/// The same file once more with its own status flags: through the page cache.
pub(super) fn reopen(file: &File, read_only: bool) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    File::options().read(true).write(!read_only).open(path)
}

/// Whether the space behind a range can be given back. Asked of a range behind the end of a file,
/// where there is nothing to lose; a block device says it in sysfs.
pub(super) fn punches(file: &File, size_bytes: u64) -> bool {
    let Ok(stat) = fstat(file) else { return false };
    if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let device = format!("/sys/dev/block/{major}:{minor}");
        // A partition has the queue of its disk.
        return ["queue", "../queue"].iter().any(|queue| {
            let limit = std::fs::read_to_string(format!("{device}/{queue}/discard_max_bytes"));
            limit.is_ok_and(|limit| limit.trim().parse().is_ok_and(|bytes: u64| bytes > 0))
        });
    }
    let Some(behind) = size_bytes.checked_next_multiple_of(BEHIND_BYTES) else { return false };
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, hole, behind, BEHIND_BYTES).is_ok()
}
