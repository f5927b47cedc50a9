//! Makes a guest's memory present before the loop needs it.
//!
//! The loop hands guest pages to the kernel; a page that is not in this process's page table is
//! faulted in right then, on the loop's time, and a megabyte of them takes long enough for a link
//! to fall silent. So when a guest's memory arrives, a thread of its own touches all of it. It
//! allocates nothing: memory that the tenant did not ask to have from the beginning is left alone,
//! and its large requests go to the kernel's workers instead ([`OFFLOAD_BYTES`]).
//!
//! Memory that was present can go away: a guest gives pages back by its balloon, and its tenant
//! process punches holes into the file that both map. So before a large request the file is asked
//! whether it is still whole ([`Report::holds`]); once it is not, its memory counts as unknown,
//! also when the pages come back.
#![allow(unsafe_code, reason = "madvise on a mapping")]

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use crate::seams::Machine;
use moirai_devices::memory::GuestMemory;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// How much is populated by one system call: the address space is not locked for long.
const STEP_BYTES: usize = 512 << 10;
/// The pause after each step, so that the rest of the core is not shut out.
const PAUSE: Duration = Duration::from_micros(200);
/// Requests of this size are not begun on the loop unless their memory is known to be present. What
/// is smaller costs at most sixteen page faults.
pub(crate) const OFFLOAD_BYTES: u64 = 64 << 10;
/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Whether a guest's memory is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nobody knows: pages may have to be faulted in.
    Unknown,
    /// It is being made present; the guest's requests wait until it is.
    Coming,
    /// All of it is.
    Present,
}

/// The presence of one guest's memory, as its populating thread reports it. When it goes, so does
/// the wish to have that memory present.
#[derive(Debug, Default)]
pub(crate) struct Report {
    shared: Arc<Shared>,
    memory: Option<Arc<GuestMemory>>,
}

/// What the loop and the populating thread say to each other.
#[derive(Debug, Default)]
struct Shared {
    presence: AtomicU8,
    cancelled: AtomicBool,
}

impl Shared {
    fn set(&self, presence: Presence) {
        let number = match presence {
            Presence::Unknown => 0,
            Presence::Coming => 1,
            Presence::Present => 2,
        };
        self.presence.store(number, Ordering::Release);
    }

    fn is_wanted(&self) -> bool {
        !self.cancelled.load(Ordering::Relaxed)
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }
}

/// The work of one populating thread. Memory whose thread could not be had, or died, is not waited
/// for: its presence is unknown then.
struct Work {
    shared: Arc<Shared>,
    memory: Arc<GuestMemory>,
    presence: Presence,
}

impl Work {
    fn run(mut self) {
        let shared = &self.shared;
        let all = is_whole(&self.memory)
            && self.memory.iter().all(|region| {
                let length = usize::try_from(region.len()).unwrap_or(0);
                touch(region.as_ptr() as usize, length, &|| shared.is_wanted())
            });
        self.presence = if all { Presence::Present } else { Presence::Unknown };
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.shared.set(self.presence);
    }
}

impl Report {
    pub(crate) fn get(&self) -> Presence {
        match self.shared.presence.load(Ordering::Acquire) {
            1 => Presence::Coming,
            2 => Presence::Present,
            _ => Presence::Unknown,
        }
    }

    /// Whether buffers of `len_bytes` may be given to the kernel on the loop: they are small, or
    /// present now.
    pub(crate) fn holds(&self, len_bytes: u64) -> bool {
        if len_bytes < OFFLOAD_BYTES {
            return true;
        }
        if self.get() != Presence::Present {
            return false;
        }
        let whole = self.memory.as_ref().is_some_and(|memory| is_whole(memory));
        if !whole {
            self.shared.set(Presence::Unknown);
        }
        whole
    }
}

/// Populates `memory` in the background. `before` is about the memory that this one takes the place
/// of: its thread ends at its next step, and what it held is unmapped there or here, not on the
/// loop.
pub(crate) fn populate(
    machine: &impl Machine,
    memory: &Arc<GuestMemory>,
    before: Report,
) -> Report {
    before.shared.cancelled.store(true, Ordering::Relaxed);
    let shared = Arc::new(Shared::default());
    shared.set(Presence::Coming);
    let report = Report { shared: Arc::clone(&shared), memory: Some(Arc::clone(memory)) };
    let work = Work { shared, memory: Arc::clone(memory), presence: Presence::Unknown };
    let errand = move || {
        drop(before);
        work.run();
    };
    machine.send_off("populate", Box::new(errand));
    report
}

/// Whether the files behind the memory are allocated to the last page: the tenant asked for it, and
/// has given nothing back.
fn is_whole(memory: &GuestMemory) -> bool {
    memory.iter().all(|region| {
        let allocated = region.file_offset().and_then(|file| file.file().metadata().ok());
        allocated.is_some_and(|file| file.blocks() * BLOCK_BYTES >= file.size())
    })
}

/// Populates as long as it is wanted; whether all of it is there.
fn touch(base: usize, length: usize, wanted: &dyn Fn() -> bool) -> bool {
    (0..length).step_by(STEP_BYTES).all(|offset| {
        if !wanted() {
            return false;
        }
        let step = STEP_BYTES.min(length - offset);
        let start = (base + offset) as *mut libc::c_void;
        // SAFETY: the range lies inside a live mapping (the caller holds its memory); populating
        // changes no contents. If the kernel is too old for it, pages are faulted in when used.
        let done = unsafe { libc::madvise(start, step, libc::MADV_POPULATE_WRITE) == 0 };
        std::thread::sleep(PAUSE);
        done
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;
    use std::time::Duration;

    use moirai_devices::memory::GuestMemory;
    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
    use vm_memory::{FileOffset, GuestAddress};

    use super::{OFFLOAD_BYTES, Presence, Report, populate};
    use crate::seams::Linux;

    const BYTES: usize = 1 << 20;

    #[test]
    fn memory_that_a_balloon_has_taken_does_not_count_as_present_any_more() {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(BYTES as u64).unwrap();
        let range = (GuestAddress(0), BYTES, Some(FileOffset::new(file.try_clone().unwrap(), 0)));
        let memory = Arc::new(GuestMemory::from_ranges_with_files([range]).unwrap());
        fallocate(&file, FallocateFlags::empty(), 0, BYTES as u64).unwrap();
        let report = populate(&Linux { core: None, turns: None }, &memory, Report::default());
        let begun = moirai_runtime::instant();
        while report.get() == Presence::Coming
            && moirai_runtime::since(begun) < Duration::from_secs(20)
        {
            std::thread::yield_now();
        }
        assert_eq!(report.get(), Presence::Present);
        assert!(report.holds(OFFLOAD_BYTES));
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, hole, 0x8000, 4096).unwrap();
        assert!(report.holds(OFFLOAD_BYTES - 1), "what is small is begun at once in any case");
        assert!(!report.holds(OFFLOAD_BYTES));
        fallocate(&file, FallocateFlags::empty(), 0, BYTES as u64).unwrap();
        assert!(!report.holds(OFFLOAD_BYTES), "nobody has put it into the page table");
    }
}
