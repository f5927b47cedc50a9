//! Descriptors of a peer: what they are, and how they are used without ever waiting for it.
//!
//! A peer may clear O_NONBLOCK of an eventfd and fill its counter at any time, also between a look
//! at it and a write. Reads therefore ask for RWF_NOWAIT. Writes have no such flag on eventfds, so
//! nobody writes: [`Signaller`] has the kernel notify, which never waits and stops counting at the
//! largest number. *Closing* a file can wait, too, for whoever serves its file system. So a session
//! keeps memfds and eventfds only, and gives all other files away to be closed elsewhere
//! ([`is_harmless`]).
#![allow(unsafe_code, reason = "Linux' asynchronous I/O has no safe interface")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::fcntl_get_seals;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Whether what can be done with a file, closing it included, waits for nobody: memfds, eventfds.
pub(super) fn is_harmless(file: &OwnedFd) -> bool {
    fcntl_get_seals(file).is_ok() || is_eventfd(file)
}

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

/// Adds one to the counter, unless it is full: then whoever polls it is woken all the same.
pub(super) fn notify(eventfd: &OwnedFd) -> io::Result<()> {
    Signaller::of_process()?.signal(eventfd)
}

/// Makes ready what is needed to notify anybody: opens a file, once in the life of the process.
///
/// # Errors
/// The kernel has no asynchronous I/O, or all of it is in use (`fs.aio-max-nr`).
pub fn prepare() -> io::Result<()> {
    Signaller::of_process().map(drop)
}

/// Has the kernel signal eventfds: each notification is an operation of Linux' asynchronous I/O
/// (`io_submit`) that does nothing, and whose end the kernel announces by the eventfd.
#[derive(Debug)]
struct Signaller {
    context: libc::c_ulong,
    nowhere: File,
}

/// Operations whose ends nobody has taken yet; they are taken when there are so many.
const OPERATIONS: usize = 1024;

/// `struct iocb` of linux/aio_abi.h on a little-endian machine.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

const IOCB_CMD_PWRITE: u16 = 1;
const IOCB_FLAG_RESFD: u32 = 1;
/// `struct io_event`: four words of 64 bits.
type IoEvent = [u64; 4];

impl Signaller {
    fn of_process() -> io::Result<&'static Self> {
        static ONE: OnceLock<Signaller> = OnceLock::new();
        if let Some(one) = ONE.get() {
            return Ok(one);
        }
        // Whoever comes second gives back what it made.
        let made = Self::new()?;
        Ok(ONE.get_or_init(|| made))
    }

    fn new() -> io::Result<Self> {
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one number, to a live place.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, OPERATIONS, &raw mut context) };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { context, nowhere })
    }

    fn signal(&self, eventfd: &OwnedFd) -> io::Result<()> {
        let number = |fd: i32| u32::try_from(fd).map_err(io::Error::other);
        let mut operation = Iocb {
            opcode: IOCB_CMD_PWRITE,
            file: number(self.nowhere.as_raw_fd())?,
            flags: IOCB_FLAG_RESFD,
            eventfd: number(eventfd.as_raw_fd())?,
            ..Iocb::default()
        };
        let mut list = [&raw mut operation];
        loop {
            // SAFETY: one operation, which writes no bytes; nothing refers to it after the call.
            let begun = unsafe {
                libc::syscall(libc::SYS_io_submit, self.context, list.len(), list.as_mut_ptr())
            };
            let error = io::Error::last_os_error();
            match begun {
                1 => return Ok(()),
                _ if error.raw_os_error() == Some(libc::EAGAIN) => self.take_ends()?,
                _ => return Err(error),
            }
        }
    }

    /// Takes the ends of all operations, which are over when they are begun.
    fn take_ends(&self) -> io::Result<()> {
        let mut ends: [IoEvent; OPERATIONS] = [[0; 4]; OPERATIONS];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: there is room for as many ends as are asked for.
        let taken = unsafe {
            let ends = ends.as_mut_ptr();
            libc::syscall(libc::SYS_io_getevents, self.context, 0, OPERATIONS, ends, &raw const now)
        };
        if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Signaller {
    fn drop(&mut self) {
        // SAFETY: the context is this value's own.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    fn count(eventfd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(eventfd, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    }

    #[test]
    fn every_notification_counts_also_when_there_are_more_than_the_kernel_keeps() {
        let bell = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let many = 3 * OPERATIONS as u64 + 7;
        (0..many).for_each(|_| notify(&bell).unwrap());
        assert_eq!(count(&bell), many);
        assert!(!drain(&bell).unwrap(), "empty");
    }

    /// The peer fills its eventfd and makes it blocking, as fast as it can, while it is notified.
    #[test]
    fn a_peer_that_fills_a_blocking_eventfd_makes_nobody_wait() {
        let bell = Arc::new(eventfd(0, EventfdFlags::empty()).unwrap());
        let over = Arc::new(AtomicBool::new(false));
        let (peer, stop) = (Arc::clone(&bell), Arc::clone(&over));
        let hostile = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = fcntl_setfl(&*peer, OFlags::NONBLOCK);
                let _ = count(&peer);
                let _ = rustix::io::write(&*peer, &(u64::MAX - 1).to_ne_bytes());
                let _ = fcntl_setfl(&*peer, OFlags::empty());
            }
        });
        let (done, ended) = channel();
        let rung = Arc::clone(&bell);
        std::thread::spawn(move || {
            (0..50_000).for_each(|_| notify(&rung).unwrap());
            let _ = done.send(());
        });
        let result = ended.recv_timeout(Duration::from_secs(60));
        over.store(true, Ordering::Relaxed);
        // Whoever waits in a read of the peer's or in a write of ours is let go.
        let _ = fcntl_setfl(&*bell, OFlags::NONBLOCK);
        notify(&bell).unwrap();
        hostile.join().unwrap();
        result.expect("a notification waited for its peer");
    }

    #[test]
    fn what_could_make_us_wait_is_no_harmless_file() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(!is_harmless(&reader));
        assert!(!is_harmless(&File::open("/proc/self/stat").unwrap().into()));
        assert!(is_harmless(&eventfd(0, EventfdFlags::empty()).unwrap()));
        let (_, memory) = crate::mock::shared_memory(4096);
        assert!(is_harmless(&memory.into()));
    }
}
