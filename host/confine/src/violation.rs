//! What is answered to a forbidden system call, and who has made one.
//!
//! The kernel does not make the call and sends SIGSYS to its thread. The handler notes thread and
//! call and has the call return EPERM. It takes no lock and allocates nothing.
#![allow(unsafe_code, reason = "signal handlers have no safe interface")]

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A system call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The thread, by the kernel's number.
    pub thread: u32,
    /// The number of the call.
    pub call: u32,
}

/// Violations that are remembered until somebody looks.
const PLACES: usize = 64;

/// The thread, and the call in the lower half; zero: nothing.
static SEEN: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
/// How many there were since somebody looked.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// What was refused since the last look, and how many there were: more than can be remembered, if
/// there were many.
#[must_use]
pub fn violations() -> (Vec<Violation>, usize) {
    let made = MADE.swap(0, Ordering::Relaxed);
    let seen = SEEN.iter().map(|place| place.swap(0, Ordering::Relaxed)).filter(|it| *it != 0);
    let low = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
    (seen.map(|it| Violation { thread: low(it >> 32), call: low(it) }).collect(), made)
}

/// From now on a forbidden call is refused and noted, in all threads.
pub(crate) fn handle() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = refuse;
    // SAFETY: all zeros is a valid sigaction; its set of signals is emptied by the call meant for
    // that; the handler is a function of the kind that SA_SIGINFO promises, and lives for ever.
    let set = unsafe {
        let action = action.assume_init_mut();
        libc::sigemptyset(&raw mut action.sa_mask);
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGSYS, std::ptr::from_ref(action), std::ptr::null_mut())
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn refuse(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    /// `SYS_SECCOMP` of asm-generic/siginfo.h.
    const BY_A_FILTER: libc::c_int = 1;
    // SAFETY: the kernel passes a siginfo and a context that live until the handler returns, to
    // this thread alone.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    // Anybody who may can send the signal.
    if info.si_code != BY_A_FILTER {
        return;
    }
    // The kernel has put the number of the call back to where its result is taken from.
    let result = &mut context.uc_mcontext.gregs[libc::REG_RAX as usize];
    let call = result.cast_unsigned() & u64::from(u32::MAX);
    *result = i64::from(-libc::EPERM);
    // SAFETY: gettid has no preconditions.
    let thread = u64::from(unsafe { libc::gettid() }.cast_unsigned());
    let place = MADE.fetch_add(1, Ordering::Relaxed) % PLACES;
    if let Some(seen) = SEEN.get(place) {
        seen.store(thread << 32 | call, Ordering::Relaxed);
    }
}
