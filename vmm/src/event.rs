//! Eventfds, by which KVM, backends and threads wake each other.
#![allow(unsafe_code, reason = "vmm-sys-util's EventFd does not implement AsFd")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// An eventfd that never blocks its writer.
pub(crate) fn new() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

/// Borrows the descriptor of an eventfd.
pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor stays open as long as `event` lives, which the lifetime covers.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
