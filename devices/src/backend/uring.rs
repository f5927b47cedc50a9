//! One io_uring, with typed operations and the caller's own tokens.
//!
//! The ring owns every buffer list from submission to completion, so memory that the kernel may
//! still touch cannot be unmapped. The number of operations in flight is bounded by the capacity.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::memory::Buffers;

/// No room for another operation; wait for completions first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all slots of the I/O ring are in flight")]
pub struct RingFull;

/// What to do to a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deallocate {
    /// Give the space back; the range reads as zeros.
    PunchHole,
    /// Keep the space; the range reads as zeros.
    ZeroRange,
}

/// One finished operation, or one event of a multishot poll.
#[derive(Debug)]
pub struct Completion {
    /// What the caller passed at submission.
    pub token: u64,
    /// Bytes moved, or the poll events; or why not.
    pub result: io::Result<u32>,
    /// A multishot poll goes on. If false the operation is over.
    pub more: bool,
}

/// An io_uring.
#[derive(Debug)]
pub struct Ring {
    capacity: u32,
    in_flight: u32,
}

impl Ring {
    /// A ring for at most `capacity` operations in flight.
    ///
    /// # Errors
    /// The kernel has no io_uring or forbids it.
    pub fn new(capacity: u32) -> io::Result<Self> {
        Ok(Self { capacity, in_flight: 0 })
    }

    /// Operations that were accepted and have not completed.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many may be in flight.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Reads from `offset` bytes into the buffers.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn readv(
        &mut self,
        fd: BorrowedFd<'_>,
        buffers: Buffers,
        offset: u64,
        token: u64,
    ) -> Result<(), RingFull> {
        let _ = (fd, buffers, offset, token);
        Err(RingFull)
    }

    /// Writes the buffers at `offset` bytes.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn writev(
        &mut self,
        fd: BorrowedFd<'_>,
        buffers: Buffers,
        offset: u64,
        token: u64,
    ) -> Result<(), RingFull> {
        let _ = (fd, buffers, offset, token);
        Err(RingFull)
    }

    /// Brings a file's data to stable storage (fdatasync).
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn fdatasync(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<(), RingFull> {
        let _ = (fd, token);
        Err(RingFull)
    }

    /// Makes a range of a file read as zeros, without changing its size.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn deallocate(
        &mut self,
        fd: BorrowedFd<'_>,
        how: Deallocate,
        offset: u64,
        len_bytes: u64,
        token: u64,
    ) -> Result<(), RingFull> {
        let _ = (fd, how, offset, len_bytes, token);
        Err(RingFull)
    }

    /// Reports each time that `fd` becomes readable, until it fails, is hung up or is cancelled.
    /// Edge-triggered: read until empty.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn poll_readable(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<(), RingFull> {
        let _ = (fd, token);
        Err(RingFull)
    }

    /// Cancels all operations with this token; each still completes (usually with `ECANCELED`).
    /// Returns how many were found.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn cancel(&mut self, token: u64) -> Result<u32, RingFull> {
        let _ = token;
        Err(RingFull)
    }

    /// Hands all new operations to the kernel; does not wait.
    ///
    /// # Errors
    /// The kernel is out of memory for requests; try again after taking completions.
    pub fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Hands all new operations to the kernel and waits until something completes or the time is
    /// over. `None` waits without limit. A signal ends the wait early.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    pub fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let _ = timeout;
        Ok(())
    }

    /// The next completion that is already there.
    pub fn next_completion(&mut self) -> Option<Completion> {
        None
    }
}
