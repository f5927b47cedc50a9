//! The gate: where a vCPU stands while its contract gives it no time (`docs/design/0001-seams.md`).
//!
//! The host writes 0 into the vCPU's word of the shared gate page and sends `SIGRTMIN` to its
//! thread; the handler, wherever it meets the thread, waits until the word is 1. Because a thread
//! can be stopped while it holds a lock, the main thread never waits for a lock that a vCPU takes.
#![allow(unsafe_code, reason = "maps the shared page; a signal handler reads it")]

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use rustix::fs::fstat;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::thread::futex;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use moirai_abi::gate::{self, Word};
use moirai_launch::spec::MAX_VCPUS;

const PAGE_BYTES: usize = 4096;

/// A word of the mapped page.
struct Shared<'a>(&'a AtomicU32);

/// The mapped page; null until [`Gates::map`]. One process has one tenant, hence one page.
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());

thread_local! {
    /// The word of this thread; null on threads that are no vCPU.
    static WORD: Cell<*const AtomicU32> = const { Cell::new(null()) };
}

/// The gates of this process, mapped and with their signal handler in place.
#[derive(Clone, Copy, Debug)]
pub struct Gates {
    _mapped: (),
}

impl Gates {
    /// Maps the gate page for good and installs the handler.
    ///
    /// # Errors
    /// A file that is shorter than a page, or what the kernel says.
    pub fn map(page: &OwnedFd) -> io::Result<Self> {
        if fstat(page)?.st_size < PAGE_BYTES as i64 {
            return Err(io::Error::other("the gate page is shorter than a page"));
        }
        // SAFETY: a new shared mapping at a place of the kernel's choice.
        let mapped = unsafe {
            mmap(
                null_mut(),
                PAGE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                page,
                0,
            )
        }?;
        PAGE.store(mapped.cast(), Ordering::Release);
        register_signal_handler(SIGRTMIN(), on_signal).map_err(io::Error::from)?;
        Ok(Self { _mapped: () })
    }

    /// Makes the calling thread vCPU `vcpu` and waits until its gate is open.
    pub fn enter(self, vcpu: u8) {
        debug_assert!(vcpu < MAX_VCPUS);
        // SAFETY: `map` stored a page that stays mapped; `vcpu` is below `MAX_VCPUS` (the launch
        // message is validated), so the word lies in it.
        let word = unsafe { PAGE.load(Ordering::Acquire).add(usize::from(vcpu)) };
        WORD.set(word);
        wait_until_open();
    }
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    wait_until_open();
}

/// Safe in a signal handler: one load and raw futex calls that leave `errno` alone.
fn wait_until_open() {
    // SAFETY: null, or a word of the page that stays mapped (see `enter`).
    let Some(word) = (unsafe { WORD.get().as_ref() }) else { return };
    gate::pass(&Shared(word));
}

impl Word for Shared<'_> {
    fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    fn store(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    fn wait(&self, expected: u32) {
        // An error means that the word has changed or a signal came: look again.
        let _ = futex::wait(self.0, futex::Flags::empty(), expected, None);
    }

    fn wake(&self) {
        let _ = futex::wake(self.0, futex::Flags::empty(), u32::MAX);
    }
}
