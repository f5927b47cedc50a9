//! One io_uring, with typed operations and the caller's own tokens.
//!
//! The ring owns every buffer list and every file from submission to completion: memory that the
//! kernel may still touch cannot be unmapped, and a descriptor number that waits in the submission
//! queue cannot come to mean another file. The number of operations in flight is bounded by the
//! capacity.
#![allow(unsafe_code, reason = "the kernel reads and writes memory by address")]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::types::{CancelBuilder, Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use smallvec::SmallVec;

use super::ring::{Completion, Deallocate, Deferred, Operations, Ring};
use crate::memory::Buffers;

/// Marks the completions of cancellations, which are nobody's.
const CANCELLATION: u64 = u64::MAX;

/// How often `drop` waits for what is in flight, and how long each time.
const DROP_WAITS: u32 = 50;
const DROP_WAIT: Duration = Duration::from_millis(100);

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
pub struct Uring {
    io: IoUring,
    /// Never grows, so that the address lists in it stay where they are.
    slots: Box<[Option<Slot>]>,
    free: Vec<u32>,
    /// The slots of multishot polls, by token.
    polls: HashMap<u64, SmallVec<[u32; 1]>>,
    offload_from: u64,
    /// The next operation is not begun on this thread, however small it is.
    next_by_worker: bool,
    /// Something that the kernel's workers do waits to be submitted.
    offloads: bool,
}

impl Uring {
    /// A ring for at most `capacity` operations in flight.
    ///
    /// # Errors
    /// The kernel has no io_uring or forbids it.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let io = build(capacity.max(1))?;
        let slots = (0..capacity).map(|_| None).collect();
        Ok(Self {
            io,
            slots,
            free: (0..capacity).rev().collect(),
            polls: HashMap::new(),
            offload_from: u64::MAX,
            next_by_worker: false,
            offloads: false,
        })
    }

    /// Operations that were accepted and have not completed.
    pub fn in_flight(&self) -> u32 {
        self.capacity() - u32::try_from(self.free.len()).unwrap_or(u32::MAX)
    }

    /// How many may be in flight.
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    fn worker_flags(&mut self, buffers: &Buffers) -> squeue::Flags {
        if std::mem::take(&mut self.next_by_worker) || buffers.len_bytes() >= self.offload_from {
            self.offloads = true;
            squeue::Flags::ASYNC
        } else {
            squeue::Flags::empty()
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
    ) -> Result<u32, Deferred> {
        let place = *self.free.last().ok_or(Deferred::RingFull)?;
        let slot = self.slots.get_mut(place as usize).ok_or(Deferred::RingFull)?;
        let slot = slot.insert(Slot { token, _file: file.cloned(), buffers });
        let fd = Fd(file.map_or(-1, |file| file.as_raw_fd()));
        let segments = slot.buffers.as_ref().map(Buffers::segments).unwrap_or_default();
        let count = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        let entry = build(fd, segments.as_ptr().cast(), count).user_data(place.into());
        match self.push(&entry) {
            Ok(()) => {
                self.free.pop();
                Ok(place)
            }
            Err(full) => {
                if let Some(slot) = self.slots.get_mut(place as usize) {
                    *slot = None;
                }
                Err(full)
            }
        }
    }

    /// The operation in this slot is over; if it was a poll, there is nothing left to cancel.
    fn forget_poll(&mut self, token: u64, place: usize) {
        if let Entry::Occupied(mut places) = self.polls.entry(token) {
            places.get_mut().retain(|other| *other as usize != place);
            if places.get().is_empty() {
                places.remove();
            }
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> Result<(), Deferred> {
        if self.io.submission().is_full() {
            self.submit().map_err(|_| Deferred::OutOfMemory)?;
        }
        // SAFETY: `push` wants the operation's memory to be valid until it completes. Address lists
        // and buffers are in `self.slots`, whose entries are neither moved nor dropped before their
        // completion was taken; `Segment` has the layout of `iovec` (both are address, length).
        unsafe { self.io.submission().push(entry) }.map_err(|_| Deferred::RingFull)
    }
}

impl Operations for Uring {
    fn readv(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        token: u64,
    ) -> Result<(), Deferred> {
        let flags = self.worker_flags(&buffers);
        self.start(token, Some(file), Some(buffers), |fd, list, count| {
            opcode::Readv::new(fd, list, count).offset(offset).build().flags(flags)
        })
        .map(drop)
    }

    fn writev(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        durable: bool,
        token: u64,
    ) -> Result<(), Deferred> {
        let durable = if durable { libc::RWF_DSYNC } else { 0 };
        let flags = self.worker_flags(&buffers);
        self.start(token, Some(file), Some(buffers), |fd, list, count| {
            let write = opcode::Writev::new(fd, list, count).offset(offset).rw_flags(durable);
            write.build().flags(flags)
        })
        .map(drop)
    }

    fn next_by_worker(&mut self) {
        self.next_by_worker = true;
    }

    fn fdatasync(&mut self, file: &Arc<File>, token: u64) -> Result<(), Deferred> {
        self.offloads = true;
        self.next_by_worker = false;
        self.start(token, Some(file), None, |fd, _, _| {
            opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build()
        })
        .map(drop)
    }

    fn deallocate(
        &mut self,
        file: &Arc<File>,
        how: Deallocate,
        offset: u64,
        len_bytes: u64,
        token: u64,
    ) -> Result<(), Deferred> {
        let mode = libc::FALLOC_FL_KEEP_SIZE
            | match how {
                Deallocate::PunchHole => libc::FALLOC_FL_PUNCH_HOLE,
                Deallocate::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
            };
        self.offloads = true;
        self.next_by_worker = false;
        self.start(token, Some(file), None, |fd, _, _| {
            opcode::Fallocate::new(fd, len_bytes).offset(offset).mode(mode).build()
        })
        .map(drop)
    }

    fn nop(&mut self, token: u64) -> Result<(), Deferred> {
        self.start(token, None, None, |_, _, _| opcode::Nop::new().build()).map(drop)
    }

    fn wait_readable(&mut self, file: &Arc<File>, token: u64) -> Result<(), Deferred> {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        self.start(token, Some(file), None, |fd, _, _| opcode::PollAdd::new(fd, events).build())
            .map(drop)
    }
}

impl Ring for Uring {
    fn set_offload(&mut self, from_bytes: u64) {
        self.offload_from = from_bytes;
    }

    fn offloads(&self) -> bool {
        self.offloads
    }

    fn poll_readable(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<(), Deferred> {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let fd = Fd(fd.as_raw_fd());
        let place = self.start(token, None, None, |_, _, _| {
            opcode::PollAdd::new(fd, events).multi(true).build()
        })?;
        self.polls.entry(token).or_default().push(place);
        Ok(())
    }

    fn cancel(&mut self, token: u64) -> Result<u32, Deferred> {
        let places = self.polls.get(&token).cloned().unwrap_or_default();
        for &place in &places {
            self.push(&opcode::AsyncCancel::new(place.into()).build().user_data(CANCELLATION))?;
        }
        Ok(u32::try_from(places.len()).unwrap_or(u32::MAX))
    }

    fn submit(&mut self) -> io::Result<()> {
        self.offloads = false;
        let queue = self.io.submission();
        if queue.is_empty() && !queue.cq_overflow() && !queue.taskrun() {
            return Ok(());
        }
        drop(queue);
        tolerate(self.io.submit())
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
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

    fn next_completion(&mut self) -> Option<Completion> {
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
                self.forget_poll(token, place);
            }
            let result = u32::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(entry.result().saturating_neg()));
            return Some(Completion { token, result, more });
        }
    }
}

/// The kernel asks once for all pages of a ring. While its memory is full of cached files it may
/// get fewer, and says that there is no memory; a moment later there is.
fn build(entries: u32) -> io::Result<IoUring> {
    const TRIES: u32 = 50;
    let ring = || IoUring::builder().setup_clamp().dontfork().setup_r_disabled().build(entries);
    for _ in 1..TRIES {
        match ring() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.and_then(restrict),
        }
    }
    restrict(ring()?)
}

/// Leaves the ring the operations that we use, for good. Filters of system calls do not see what a
/// ring is asked: without this, whoever takes the thread over could open files and sockets by it.
fn restrict(ring: IoUring) -> io::Result<IoUring> {
    let operations = [
        opcode::Nop::CODE,
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ];
    let mut allowed: Vec<_> = operations.into_iter().map(Restriction::sqe_op).collect();
    allowed.push(Restriction::sqe_flags_allowed(squeue::Flags::ASYNC.bits()));
    let submitter = ring.submitter();
    submitter.register_restrictions(&mut allowed)?;
    submitter.register_enable_rings()?;
    Ok(ring)
}

/// A wait that ended without a completion, and a completion queue that has to be emptied first, are
/// no errors.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}

impl Drop for Uring {
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

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("in_flight", &self.in_flight())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What whoever takes the loop over would ask the ring for.
    #[test]
    fn a_ring_does_nothing_but_what_devices_need() {
        let mut ring = Uring::new(4).unwrap();
        let here = Fd(libc::AT_FDCWD);
        let path = c"/proc/self/stat";
        let open = opcode::OpenAt::new(here, path.as_ptr()).build();
        let socket = opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build();
        let linked = opcode::Nop::new().build().flags(squeue::Flags::IO_LINK);
        for entry in [open, socket, linked] {
            ring.push(&entry.user_data(7)).unwrap();
            ring.submit_and_wait(Some(Duration::from_secs(5))).unwrap();
            let done = ring.io.completion().next().map(|done| (done.user_data(), done.result()));
            assert_eq!(done, Some((7, -libc::EACCES)));
        }
        ring.nop(1).unwrap();
        ring.submit_and_wait(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(ring.next_completion().map(|done| done.token), Some(1));
    }
}
