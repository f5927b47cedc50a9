//! Eventfds of a peer, which may clear O_NONBLOCK and fill their counters at any time.
//!
//! Reads therefore ask for RWF_NOWAIT; writes, which have no such flag on eventfds, are made only
//! when poll says that they fit.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Anything else could block us when read or written.
pub(super) fn is_eventfd(file: &OwnedFd) -> bool {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventfd]")
}

/// Empties the counter; `false` if it was empty.
pub(super) fn drain(eventfd: &OwnedFd) -> io::Result<bool> {
    let mut count = [0; 8];
    let mut buffers = [io::IoSliceMut::new(&mut count)];
    match preadv2(eventfd, &mut buffers, u64::MAX, ReadWriteFlags::NOWAIT) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Adds one to the counter; `false` if it is full, which means that nobody listens.
pub(super) fn notify(eventfd: &OwnedFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(eventfd, PollFlags::OUT)];
    match poll(&mut fds, Some(&now)) {
        // A poll that finds nothing says so by EINTR if a signal is pending.
        Ok(0) | Err(Errno::INTR) => return Ok(false),
        Ok(_) => {}
        Err(errno) => return Err(errno.into()),
    }
    match rustix::io::write(eventfd, &1_u64.to_ne_bytes()) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
