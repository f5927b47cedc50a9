//! Whether the command was started without a standard output (`moirai list >&-`).
//!
//! Before `main` the runtime of Rust opens /dev/null in the place of a descriptor that is closed.
//! From then on a command cannot tell that nobody gets what it writes. So this module looks before
//! the runtime does.
#![allow(unsafe_code, reason = "nothing safe runs before main")]

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether standard output was closed when the process started.
pub(super) fn was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: it takes numbers only; a descriptor that is not open is an error and nothing else.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    CLOSED.store(flags < 0, Ordering::Relaxed);
}

// SAFETY: the loader calls what this section holds, with arguments that `look` does not take, which
// the C calling convention allows. `look` needs nothing that is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
