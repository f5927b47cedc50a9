//! A fault in memory that a peer has handed over is that peer's failure, not the end of this
//! process.
//!
//! If a mapped file cannot serve an access (the file was cut short, no huge page is free, the file
//! system behind it fails), the kernel sends SIGBUS, which ends the process. So every mapping of a
//! peer's file is watched from before its first access until it is unmapped. On a fault in it, the
//! handler puts zeros in the place of the *whole* mapping and notes that the mapping is lost; the
//! access goes on. Whoever owns the session looks at the notes ([`faults`], then
//! [`GuestMemory::is_lost`](super::GuestMemory::is_lost)) and ends it: what it read since is zeros,
//! what it wrote is lost. A fault anywhere else still ends the process.
//!
//! The handler runs in the thread that has met the fault. It takes no lock and allocates nothing:
//! it reads a table of atomics and makes one system call.
#![allow(unsafe_code, reason = "signal handlers have no safe interface")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Mappings that can be watched at the same time: a thousand peers of eight regions.
const PLACES: usize = 8192;

/// Where a watched mapping is; `end` is 0 while nothing is watched here.
struct Place {
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Place; PLACES] = [const {
    Place { start: AtomicUsize::new(0), end: AtomicUsize::new(0), lost: AtomicBool::new(false) }
}; PLACES];
/// Places that nobody uses, once the table has been set up.
static FREE: Mutex<Option<Vec<usize>>> = Mutex::new(None);
/// Mappings lost since the start.
static FAULTS: AtomicU64 = AtomicU64::new(0);
/// What handled the signal before.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// How many mappings were lost since the start of the process. While it stays the same, no session
/// has lost its memory.
#[must_use]
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Acquire)
}

/// Watches a mapping for as long as it lives. Drop it before the mapping goes.
#[derive(Debug)]
pub(crate) struct Watch {
    place: usize,
}

impl Watch {
    /// Watches `bytes` at `start`, both as the kernel has mapped them: multiples of the page size
    /// of the file.
    ///
    /// # Errors
    /// The handler cannot be installed, or too many mappings are watched.
    pub(crate) fn new(start: usize, bytes: usize) -> io::Result<Self> {
        static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
        INSTALLED.get_or_init(install).map_err(io::Error::from_raw_os_error)?;
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let free = free.get_or_insert_with(|| (0..PLACES).rev().collect());
        let full = || io::Error::other(format!("{PLACES} mappings of peers are open already"));
        let place = free.pop().ok_or_else(full)?;
        let entry = TABLE.get(place).ok_or_else(full)?;
        entry.lost.store(false, Ordering::Relaxed);
        entry.start.store(start, Ordering::Release);
        entry.end.store(start.saturating_add(bytes), Ordering::Release);
        Ok(Self { place })
    }

    /// Whether the mapping has been lost.
    pub(crate) fn is_lost(&self) -> bool {
        TABLE.get(self.place).is_some_and(|place| place.lost.load(Ordering::Acquire))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(place) = TABLE.get(self.place) else { return };
        place.end.store(0, Ordering::Release);
        place.start.store(0, Ordering::Release);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.get_or_insert_default().push(self.place);
    }
}

fn install() -> Result<(), i32> {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut before: Box<libc::sigaction> = Box::new(unsafe { std::mem::zeroed() });
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the stack for signals where a thread has one: Rust's own handler, which this one passes on
    // to, finds overflows of the other stack.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: both point to live structures; the handler does only what a handler may.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut *before) } != 0 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL));
    }
    BEFORE.store(Box::into_raw(before), Ordering::Release);
    Ok(())
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a handler installed with SA_SIGINFO a valid structure; for a fault,
    // whose codes are positive, it holds an address.
    let (code, addr) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code > 0 && TABLE.iter().any(|place| place.replace(addr)) {
        return;
    }
    pass_on(signal, info, context);
}

impl Place {
    /// If `addr` lies in this mapping: puts zeros in its place. Called by the handler.
    fn replace(&self, addr: usize) -> bool {
        let end = self.end.load(Ordering::Acquire);
        if addr >= end {
            return false;
        }
        let start = self.start.load(Ordering::Acquire);
        fence(Ordering::Acquire);
        // The entry may have become another's between the two looks; that one is not about `addr`.
        if addr < start || self.end.load(Ordering::Relaxed) != end {
            return false;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let place = start as *mut libc::c_void;
        // SAFETY: errno belongs to the thread; what was interrupted may be about to read it.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: the range is one whole mapping of a peer's file, which its `Watch` says is
        // mapped; all accesses to it are volatile ones, which expect any value.
        let made = unsafe { libc::mmap(place, end - start, protection, flags, -1, 0) };
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        if made == libc::MAP_FAILED {
            return false;
        }
        self.lost.store(true, Ordering::Release);
        FAULTS.fetch_add(1, Ordering::AcqRel);
        true
    }
}

/// Lets whoever handled the signal before decide.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.load(Ordering::Acquire);
    // SAFETY: either null or a structure that is never freed.
    let action = unsafe { before.as_ref() }
        .map_or((libc::SIG_DFL, 0), |action| (action.sa_sigaction, action.sa_flags));
    match action {
        (libc::SIG_DFL | libc::SIG_IGN, _) => {
            // The access is tried again when the handler returns, and ends the process.
            // SAFETY: restoring the default is what a handler may do.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        (handler, flags) if flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: it was installed as a handler of three arguments.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        (handler, _) => {
            // SAFETY: it was installed as a handler of one argument.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
