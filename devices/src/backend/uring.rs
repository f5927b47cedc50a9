//! One io_uring, with typed operations and the caller's own tokens.
//!
//! The ring owns every buffer list and every file from submission to completion: memory that the
//! kernel may still touch cannot be unmapped, and a descriptor number that waits in the submission
//! queue cannot come to mean another file. The number of operations in flight is bounded by the
//! capacity.
#![allow(unsafe_code, reason = "the kernel reads and writes memory by address")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::memory::Buffers;

/// Marks the completions of cancellations, which are nobody's.
const CANCELLATION: u64 = u64::MAX;

/// How often `drop` waits for what is in flight, and how long each time.
const DROP_WAITS: u32 = 50;
const DROP_WAIT: Duration = Duration::from_millis(100);

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

/// An operation in flight.
#[derive(Debug)]
struct Slot {
    token: u64,
    /// The file it is about; none for polls and for operations on nothing.
    _file: Option<Arc<File>>,
    /// Memory that the kernel uses, and the address list that it was given.
    buffers: Option<Buffers>,
}

/// An io_uring.
pub struct Ring {
    io: IoUring,
    /// Never grows, so that the address lists in it stay where they are.
    slots: Box<[Option<Slot>]>,
    free: Vec<u32>,
    offload_from: u64,
    /// Something that the kernel's workers do waits to be submitted.
    offloads: bool,
}

impl Ring {
    /// A ring for at most `capacity` operations in flight.
    ///
    /// # Errors
    /// The kernel has no io_uring or forbids it.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let io = IoUring::builder().setup_clamp().dontfork().build(capacity.max(1))?;
        let slots = (0..capacity).map(|_| None).collect();
        Ok(Self {
            io,
            slots,
            free: (0..capacity).rev().collect(),
            offload_from: u64::MAX,
            offloads: false,
        })
    }

    /// From now on reads and writes of at least so many bytes go to the kernel's workers at once,
    /// instead of being begun on this thread. For buffers whose pages may not be present: to fault
    /// them in takes microseconds each, which the thread that owns the ring may not have.
    pub fn set_offload(&mut self, from_bytes: u64) {
        self.offload_from = from_bytes;
    }

    /// Whether the next `submit` hands something to the kernel's workers: threads of this process that
    /// have class and priority of the thread that first needs them. Flushes, discards and zeroing always go
    /// to them.
    pub fn offloads(&self) -> bool {
        self.offloads
    }

    /// Operations that were accepted and have not completed.
    pub fn in_flight(&self) -> u32 {
        self.capacity() - u32::try_from(self.free.len()).unwrap_or(u32::MAX)
    }

    /// How many may be in flight.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Reads from `offset` bytes into the buffers.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn readv(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        token: u64,
    ) -> Result<(), RingFull> {
        let flags = self.worker_flags(&buffers);
        self.start(token, Some(file), Some(buffers), |fd, list, count| {
            opcode::Readv::new(fd, list, count).offset(offset).build().flags(flags)
        })
    }

    /// Writes the buffers at `offset` bytes; with `durable` they are on stable storage when the
    /// operation completes.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn writev(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        durable: bool,
        token: u64,
    ) -> Result<(), RingFull> {
        let durable = if durable { libc::RWF_DSYNC } else { 0 };
        let flags = self.worker_flags(&buffers);
        self.start(token, Some(file), Some(buffers), |fd, list, count| {
            let write = opcode::Writev::new(fd, list, count).offset(offset).rw_flags(durable);
            write.build().flags(flags)
        })
    }

    fn worker_flags(&mut self, buffers: &Buffers) -> squeue::Flags {
        if buffers.len_bytes() >= self.offload_from {
            self.offloads = true;
            squeue::Flags::ASYNC
        } else {
            squeue::Flags::empty()
        }
    }

    /// Brings a file's data to stable storage (fdatasync).
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn fdatasync(&mut self, file: &Arc<File>, token: u64) -> Result<(), RingFull> {
        self.offloads = true;
        self.start(token, Some(file), None, |fd, _, _| {
            opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build()
        })
    }

    /// Makes a range of a file read as zeros, without changing its size.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn deallocate(
        &mut self,
        file: &Arc<File>,
        how: Deallocate,
        offset: u64,
        len_bytes: u64,
        token: u64,
    ) -> Result<(), RingFull> {
        let mode = libc::FALLOC_FL_KEEP_SIZE
            | match how {
                Deallocate::PunchHole => libc::FALLOC_FL_PUNCH_HOLE,
                Deallocate::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
            };
        self.offloads = true;
        self.start(token, Some(file), None, |fd, _, _| {
            opcode::Fallocate::new(fd, len_bytes).offset(offset).mode(mode).build()
        })
    }

    /// Does nothing, but completes like any other operation.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn nop(&mut self, token: u64) -> Result<(), RingFull> {
        self.start(token, None, None, |_, _, _| opcode::Nop::new().build())
    }

    /// Completes when `file` is readable, once.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn wait_readable(&mut self, file: &Arc<File>, token: u64) -> Result<(), RingFull> {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        self.start(token, Some(file), None, |fd, _, _| opcode::PollAdd::new(fd, events).build())
    }

    /// Reports each time that `fd` becomes readable, until it fails, is hung up or is cancelled.
    /// Edge-triggered: read until empty. Submit before closing `fd`; if it is closed earlier, the
    /// poll may report events of whatever has its number next.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn poll_readable(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<(), RingFull> {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let fd = Fd(fd.as_raw_fd());
        self.start(token, None, None, |_, _, _| {
            opcode::PollAdd::new(fd, events).multi(true).build()
        })
    }

    /// Cancels all operations with this token; each still completes (usually with `ECANCELED`).
    /// Returns how many were found.
    ///
    /// # Errors
    /// [`RingFull`].
    pub fn cancel(&mut self, token: u64) -> Result<u32, RingFull> {
        let mut found = 0;
        for place in 0..self.capacity() {
            let slot = self.slots.get(place as usize).and_then(Option::as_ref);
            if slot.is_some_and(|slot| slot.token == token) {
                self.push(&opcode::AsyncCancel::new(place.into()).build().user_data(CANCELLATION))?;
                found += 1;
            }
        }
        Ok(found)
    }

    /// Hands all new operations to the kernel; does not wait. Costs nothing if there are none.
    ///
    /// # Errors
    /// The kernel is out of memory for requests; try again after taking completions.
    pub fn submit(&mut self) -> io::Result<()> {
        self.offloads = false;
        let queue = self.io.submission();
        if queue.is_empty() && !queue.cq_overflow() && !queue.taskrun() {
            return Ok(());
        }
        drop(queue);
        tolerate(self.io.submit())
    }

    /// Hands all new operations to the kernel and waits until something completes or the time is
    /// over. `None` waits without limit. A signal ends the wait early.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    pub fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.offloads = false;
        match timeout {
            None => tolerate(self.io.submit_and_wait(1)),
            Some(Duration::ZERO) => self.submit(),
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timeout);
                tolerate(self.io.submitter().submit_with_args(1, &arguments))
            }
        }
    }

    /// The next completion that is already there.
    pub fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.io.completion().next()?;
            if entry.user_data() == CANCELLATION {
                continue;
            }
            let place = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            let Some(slot) = self.slots.get_mut(place) else { continue };
            let more = cqueue::more(entry.flags());
            let Some(token) = slot.as_ref().map(|slot| slot.token) else { continue };
            if !more {
                *slot = None;
                self.free.extend(u32::try_from(place));
            }
            let result = u32::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(entry.result().saturating_neg()));
            return Some(Completion { token, result, more });
        }
    }

    /// Puts an operation into a slot and into the submission queue. `build` gets the descriptor of
    /// the file and the address list of the buffers.
    fn start(
        &mut self,
        token: u64,
        file: Option<&Arc<File>>,
        buffers: Option<Buffers>,
        build: impl FnOnce(Fd, *const libc::iovec, u32) -> squeue::Entry,
    ) -> Result<(), RingFull> {
        let place = *self.free.last().ok_or(RingFull)?;
        let slot = self.slots.get_mut(place as usize).ok_or(RingFull)?;
        let slot = slot.insert(Slot { token, _file: file.cloned(), buffers });
        let fd = Fd(file.map_or(-1, |file| file.as_raw_fd()));
        let segments = slot.buffers.as_ref().map(Buffers::segments).unwrap_or_default();
        let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        let entry = build(fd, segments.as_ptr().cast(), count).user_data(place.into());
        match self.push(&entry) {
            Ok(()) => {
                self.free.pop();
                Ok(())
            }
            Err(full) => {
                if let Some(slot) = self.slots.get_mut(place as usize) {
                    *slot = None;
                }
                Err(full)
            }
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> Result<(), RingFull> {
        if self.io.submission().is_full() {
            self.submit().map_err(|_| RingFull)?;
        }
        // SAFETY: `push` wants the operation's memory to be valid until it completes. Address lists
        // and buffers are in `self.slots`, whose entries are neither moved nor dropped before their
        // completion was taken; `Segment` has the layout of `iovec` (both are address, length).
        unsafe { self.io.submission().push(entry) }.map_err(|_| RingFull)
    }
}

/// A wait that ended without a completion, and a completion queue that has to be emptied first, are
/// no errors.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}

impl Drop for Ring {
    /// Cancels what is in flight and waits for it. What does not end within seconds (a dead disk)
    /// keeps its memory for ever.
    fn drop(&mut self) {
        let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // If this fails everything is waited for instead.
        let _ = self.push(&all.user_data(CANCELLATION));
        for _ in 0..DROP_WAITS {
            while self.next_completion().is_some() {}
            if self.in_flight() == 0 || self.submit_and_wait(Some(DROP_WAIT)).is_err() {
                break;
            }
        }
        if self.in_flight() > 0 {
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.in_flight())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
