//! The seam between storage and the kernel: operations go in, completions come out.
//!
//! [`super::uring::Uring`] is the real one; tests bring one of their own, with completions in the
//! order and at the time that they choose.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::memory::Buffers;

/// Why something was not begun. Nothing happened; try again when what it waits for has come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Deferred {
    /// The ring has as many operations in flight as it takes. Any completion makes room.
    #[error("all slots of the I/O ring are in flight")]
    RingFull,
    /// There is no memory for it. Nothing announces that there is some again: only time helps.
    #[error("there is no memory for the operation")]
    OutOfMemory,
    /// Other requests of the same volume change the same blocks. The completion of one of them
    /// helps.
    #[error("other requests have the blocks")]
    BlocksTaken,
    /// Another request of the same image has it to itself, or this one wants to. The completion of
    /// one of them helps.
    #[error("other requests have the image")]
    ImageTaken,
    /// The worker of the image has as many tasks as it takes. Its next answer makes room.
    #[error("the image's worker is full")]
    WorkerFull,
}

impl Deferred {
    /// Whether a completion is sure to come that helps. Where none is, the owner tries again after
    /// a time.
    #[must_use]
    pub fn is_announced(self) -> bool {
        match self {
            Self::BlocksTaken | Self::ImageTaken | Self::WorkerFull => true,
            // What fills a ring may be polls, which complete when somebody else wants it.
            Self::RingFull | Self::OutOfMemory => false,
        }
    }
}

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

/// What a storage may ask a ring to do. Each call begins one operation, which completes with its
/// token.
///
/// # Errors
/// Of all of them: [`Deferred::RingFull`] and [`Deferred::OutOfMemory`].
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Operations {
    /// Reads from `offset` bytes into the buffers.
    fn readv(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        token: u64,
    ) -> Result<(), Deferred>;

    /// Writes the buffers at `offset` bytes; with `durable` they are on stable storage when the
    /// operation completes.
    fn writev(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        durable: bool,
        token: u64,
    ) -> Result<(), Deferred>;

    /// The next operation goes to the kernel's workers at once: on its file system, whoever begins
    /// it may have to wait.
    fn next_by_worker(&mut self) {}

    /// Brings a file's data to stable storage (fdatasync).
    fn fdatasync(&mut self, file: &Arc<File>, token: u64) -> Result<(), Deferred>;

    /// Makes a range of a file read as zeros, without changing its size.
    fn deallocate(
        &mut self,
        file: &Arc<File>,
        how: Deallocate,
        offset: u64,
        len_bytes: u64,
        token: u64,
    ) -> Result<(), Deferred>;

    /// Does nothing, but completes like any other operation.
    fn nop(&mut self, token: u64) -> Result<(), Deferred>;

    /// Completes when `file` is readable, once.
    fn wait_readable(&mut self, file: &Arc<File>, token: u64) -> Result<(), Deferred>;
}

/// A ring as its owner sees it.
pub trait Ring: Operations {
    /// From now on reads and writes of at least so many bytes go to the kernel's workers at once,
    /// instead of being begun on this thread. For buffers whose pages may not be present: to fault
    /// them in takes microseconds each, which the thread that owns the ring may not have.
    fn set_offload(&mut self, from_bytes: u64);

    /// Whether the next `submit` hands something to the kernel's workers: threads of this process
    /// that have class and priority of the thread that first needs them. Flushes, discards and
    /// zeroing always go to them.
    fn offloads(&self) -> bool;

    /// Reports each time that `fd` becomes readable, until it fails, is hung up or is cancelled.
    /// Edge-triggered: read until empty. Submit before closing `fd`; if it is closed earlier, the
    /// poll may report events of whatever has its number next.
    ///
    /// # Errors
    /// [`Deferred::RingFull`] and [`Deferred::OutOfMemory`].
    fn poll_readable(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<(), Deferred>;

    /// Cancels all polls with this token; each still completes (usually with `ECANCELED`).
    /// Returns how many were found.
    ///
    /// # Errors
    /// [`Deferred::RingFull`] and [`Deferred::OutOfMemory`].
    fn cancel(&mut self, token: u64) -> Result<u32, Deferred>;

    /// Hands all new operations to the kernel; does not wait. Costs nothing if there are none.
    ///
    /// # Errors
    /// The kernel is out of memory for requests; try again after taking completions.
    fn submit(&mut self) -> io::Result<()>;

    /// Hands all new operations to the kernel and waits until something completes or the time is
    /// over. `None` waits without limit. A signal ends the wait early.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// The next completion that is already there.
    fn next_completion(&mut self) -> Option<Completion>;
}
