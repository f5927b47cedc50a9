//! The memory that this process shares with the host service.
#![allow(unsafe_code, reason = "memory that two processes have is mapped by hand")]

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use moirai_image_wire::{ARENA_BYTES, DATA_BYTES, WINDOW_BYTES, WINDOWS_AT};
use rustix::fs::fstat;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The mapped arena. While this process has a task, the host service leaves it alone; it has none
/// to lose by that, as it is the host that is believed.
pub(crate) struct Arena {
    start: NonNull<u8>,
}

impl Arena {
    /// Maps the arena.
    pub(crate) fn map(fd: impl AsFd) -> io::Result<Self> {
        if !u64::try_from(fstat(&fd)?.st_size).is_ok_and(|size| size >= ARENA_BYTES as u64) {
            return Err(io::Error::other("the arena is too small"));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so no memory of ours is replaced.
        let start =
            unsafe { mmap(ptr::null_mut(), ARENA_BYTES, protection, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { start })
    }

    /// The first bytes of the half for data, at most all of it.
    pub(crate) fn data(&mut self, len: u64) -> &mut [u8] {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(DATA_BYTES);
        // SAFETY: the mapping is longer and stays as long as `self`, which is borrowed. The file is
        // sealed against becoming shorter. The host touches it only while no task is here.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), len) }
    }

    /// The place of window number `index` of an answer; `None` if there is none.
    pub(crate) fn window(&mut self, index: u64) -> Option<&mut [u8]> {
        let at = usize::try_from(index).ok()?.checked_mul(WINDOW_BYTES)?;
        let at = at.checked_add(WINDOWS_AT).filter(|at| at + WINDOW_BYTES <= ARENA_BYTES)?;
        // SAFETY: as in `data`; the place was checked to lie in the mapping.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), WINDOW_BYTES) })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `map` made this mapping, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), ARENA_BYTES) };
    }
}
