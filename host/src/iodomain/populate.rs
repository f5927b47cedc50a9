//! Makes a guest's memory present before the loop needs it.
//!
//! The loop hands guest pages to the kernel; a page that is not in this process's page table is
//! faulted in right then, on the loop's time, and a megabyte of them takes long enough for a link to
//! fall silent. So when a guest's memory arrives, a thread of its own touches all of it. It allocates
//! nothing: memory that the tenant did not ask to have from the beginning is left alone, and its
//! large requests go to the kernel's workers instead ([`OFFLOAD_BYTES`]).
#![allow(unsafe_code, reason = "madvise on a mapping")]

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::background::background;
use moirai_devices::memory::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// How much is populated by one system call: the address space is not locked for long.
const STEP_BYTES: usize = 512 << 10;
/// The pause after each step, so that the rest of the core is not shut out.
const PAUSE: Duration = Duration::from_micros(200);
/// Requests of this size are not begun on the loop unless their memory is known to be present. What
/// is smaller costs at most sixteen page faults.
pub(super) const OFFLOAD_BYTES: u64 = 64 << 10;
/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Whether a guest's memory is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nobody knows: pages may have to be faulted in.
    Unknown,
    /// It is being made present; the guest's requests wait until it is.
    Coming,
    /// All of it is.
    Present,
}

/// The presence of one guest's memory, as its populating thread reports it.
#[derive(Clone, Debug, Default)]
pub(super) struct Report(Arc<AtomicU8>);

impl Report {
    pub(super) fn get(&self) -> Presence {
        match self.0.load(Ordering::Acquire) {
            1 => Presence::Coming,
            2 => Presence::Present,
            _ => Presence::Unknown,
        }
    }

    fn set(&self, presence: Presence) {
        let number = match presence {
            Presence::Unknown => 0,
            Presence::Coming => 1,
            Presence::Present => 2,
        };
        self.0.store(number, Ordering::Release);
    }
}

/// Populates `memory` in the background.
pub(super) fn populate(core: Option<usize>, memory: &Arc<GuestMemory>) -> Report {
    let memory = Arc::clone(memory);
    let presence = Report::default();
    presence.set(Presence::Coming);
    let report = presence.clone();
    background("populate", core, move || {
        let all = memory.iter().all(|region| {
            let allocated = region.file_offset().and_then(|file| file.file().metadata().ok());
            // Allocated to the last page but a few: the tenant asked for it.
            let whole = allocated.is_some_and(|file| file.blocks() * BLOCK_BYTES >= file.size());
            let length = usize::try_from(region.len()).unwrap_or(0);
            whole && touch(region.as_ptr() as usize, length)
        });
        report.set(if all { Presence::Present } else { Presence::Unknown });
    });
    presence
}

fn touch(base: usize, length: usize) -> bool {
    (0..length).step_by(STEP_BYTES).all(|offset| {
        let step = STEP_BYTES.min(length - offset);
        let start = (base + offset) as *mut libc::c_void;
        // SAFETY: the range lies inside a live mapping (the caller holds its memory); populating
        // changes no contents. If the kernel is too old for it, pages are faulted in when used.
        let done = unsafe { libc::madvise(start, step, libc::MADV_POPULATE_WRITE) == 0 };
        std::thread::sleep(PAUSE);
        done
    })
}
