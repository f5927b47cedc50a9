//! The gate: a page shared with a tenant process through which its vCPUs are stopped.
//!
//! Word `n` belongs to vCPU `n`: 1 is open, 0 is closed. A closed vCPU waits on its word as a
//! futex, inside the handler of the signal that told it to look. The tenant can write the page too:
//! what it writes is never believed, only overwritten, and a tenant that ignores its gate runs in
//! the fair class, where it takes slack but never guaranteed time.
#![allow(unsafe_code, reason = "maps a shared page and wakes futexes on it")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use moirai_abi::gate::{self, OPEN, Word};

const PAGE_BYTES: usize = 4096;

/// One tenant's gates.
#[derive(Clone, Debug)]
pub struct GatePage {
    mapping: Arc<Mapping>,
}

/// The gate of one vCPU.
#[derive(Clone, Debug)]
pub struct GateWord {
    page: GatePage,
    index: usize,
}

#[derive(Debug)]
struct Mapping {
    base: NonNull<AtomicU32>,
}

// SAFETY: the mapping is a plain shared page that lives as long as the value; it is only touched
// through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl GatePage {
    /// How many gates a page holds.
    pub const WORDS: usize = PAGE_BYTES / size_of::<AtomicU32>();

    /// Makes a page with all gates closed: no vCPU runs before its dispatcher lets it. The
    /// descriptor goes to the tenant process.
    ///
    /// # Errors
    /// What the kernel says when memory or descriptors are short.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let fd = rustix::fs::memfd_create(
            "moirai:gate",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::ftruncate(&fd, PAGE_BYTES as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: a new mapping of a whole sealed page at an address of the kernel's choice; the
        // seal keeps it from being truncated under us.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd.as_fd(),
                0,
            )
        }?;
        let base = NonNull::new(base.cast::<AtomicU32>())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // A new page is zero, and zero is closed.
        Ok((Self { mapping: Arc::new(Mapping { base }) }, fd))
    }

    /// The gate of vCPU `index`, `None` beyond the page.
    #[must_use]
    pub fn word(&self, index: usize) -> Option<GateWord> {
        (index < Self::WORDS).then(|| GateWord { page: self.clone(), index })
    }

    fn atomic(&self, index: usize) -> &AtomicU32 {
        assert!(index < Self::WORDS, "gate words are only made for indices inside the page");
        // SAFETY: in bounds by the assertion; the page is mapped as long as `self.mapping` lives,
        // and shared memory is only ever accessed atomically.
        unsafe { self.mapping.base.add(index).as_ref() }
    }
}

impl GateWord {
    /// Lets the vCPU through and wakes it if it waits.
    pub fn open(&self) {
        gate::open(self);
    }

    /// Closes the gate. The vCPU stops at it when it handles the signal sent next.
    pub fn close(&self) {
        gate::close(self);
    }

    /// Whether the word says open; for tests.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.load() == OPEN
    }

    fn atomic(&self) -> &AtomicU32 {
        self.page.atomic(self.index)
    }

    /// One call of futex on the word, without a timeout.
    fn futex(&self, operation: i32, value: u32) {
        // SAFETY: FUTEX_WAKE looks at the address as a key only, FUTEX_WAIT reads it; it is a
        // mapped, aligned word, and there is no timeout to be read.
        unsafe {
            let timeout = std::ptr::null::<libc::timespec>();
            libc::syscall(libc::SYS_futex, self.atomic().as_ptr(), operation, value, timeout);
        }
    }
}

impl Word for GateWord {
    fn load(&self) -> u32 {
        self.atomic().load(Ordering::Acquire)
    }

    fn store(&self, value: u32) {
        self.atomic().store(value, Ordering::Release);
    }

    fn wait(&self, expected: u32) {
        self.futex(libc::FUTEX_WAIT, expected);
    }

    fn wake(&self) {
        self.futex(libc::FUTEX_WAKE, i32::MAX.cast_unsigned());
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `create` mapped; no reference outlives the last owner.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), PAGE_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_page_has_all_gates_closed_and_each_word_is_its_own() {
        let (page, _fd) = GatePage::create().unwrap();
        let (first, last) = (page.word(0).unwrap(), page.word(GatePage::WORDS - 1).unwrap());
        assert!(!first.is_open() && !last.is_open());
        first.open();
        assert!(first.is_open());
        assert!(!last.is_open());
        first.close();
        assert!(!first.is_open());
        assert!(page.word(GatePage::WORDS).is_none());
    }

    #[test]
    fn a_tenant_cannot_shrink_the_page_under_the_host() {
        let (_page, fd) = GatePage::create().unwrap();
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    }
}
