//! Host I/O: what stands behind the devices.
//!
//! `ring` is the seam to the kernel: operations and completions. `uring` is the io_uring behind it,
//! which all block I/O of an event loop goes through. `volume` is what a disk shows: a raw `file`,
//! a `stripe` set or a `qcow2` image. `tap` is the link. `loopback` and `faulty` take their places
//! in tests.

mod blocks;
pub mod bounce;
mod cut;
mod error;
pub mod faulty;
mod file;
mod job;
pub mod loopback;
mod probe;
pub mod qcow2;
mod range;
mod ring;
pub mod stripe;
mod sub_request;
pub mod tap;
pub mod uring;
pub mod volume;
mod way;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;

use crate::blk::{Disk, Outcome};
use crate::counters::Counters;
use crate::net::Offload;
use crate::net::tx::TxPacket;
pub use cut::Cuts;
pub use error::VolumeError;
pub use file::FileId;
pub use job::Job;
pub use ring::{Completion, Deallocate, Deferred, Operations, Ring};
pub use volume::Volume;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// I/O was submitted; pass its completion to [`Storage::completed`].
    Pending,
    /// The request is finished; answer the guest.
    Done(Outcome),
}

/// What serves block requests: a volume, a faulty one, or one that only a test knows.
///
/// For one job: `submit` once, then `completed` for each completion with its token, until
/// [`Step::Done`]. A job may have several operations in the ring; the storage numbers them in bits
/// 32 to 47 of the token, so the owner leaves these zero in `submit` and passes on to `completed`
/// what came back.
///
/// | answer | what the owner does |
/// | --- | --- |
/// | [`Step::Pending`] | waits for the next completion with the job's token |
/// | [`Step::Done`] | answers the guest; the job is over |
/// | [`Deferred`] | calls `submit` again when something has completed, or after a time |
///
/// After a time, if nothing announces it ([`Deferred::is_announced`]). The job continues where it
/// stands, however often it is called.
pub trait Storage {
    /// Submits the job's next I/O to the ring, with the owner's token.
    ///
    /// # Errors
    /// See the table; nothing was begun.
    fn submit(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
    ) -> Result<Step, Deferred>;

    /// Takes the result of the job's I/O and submits the rest, if any (short reads, further
    /// ranges).
    ///
    /// # Errors
    /// See the table; the result was taken all the same.
    fn completed(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
        result: io::Result<u32>,
    ) -> Result<Step, Deferred>;

    /// Begins nothing more of a job whose driver is gone. If the job is not done by that, its
    /// completions go on coming.
    fn abandon(&mut self, job: &mut Job) -> Step {
        job.orphan(None)
    }

    /// What a guest sees of it, with `queues` request queues of `queue_size`.
    fn disk(&self, queues: u16, queue_size: u16) -> Disk;

    /// Whether something beside the ring is at work for it, or a request has it to itself: a
    /// further request might have to wait for that. One that was begun goes on; what keeps the
    /// storage busy may wait for its parts.
    fn is_busy(&self) -> bool {
        false
    }

    /// Whether its requests are nothing but operations on files.
    fn is_plain(&self) -> bool {
        true
    }

    /// Why every request fails from now on, if so.
    fn failure(&self) -> Option<&str> {
        None
    }

    /// Whether the page cache is bypassed.
    fn is_direct(&self) -> bool {
        true
    }

    /// How its payload moved.
    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// What sends and receives packets: a TAP, a loopback, a faulty one. Packets on this side carry the
/// vnet header of [`crate::net::header`] in front.
pub trait Link {
    /// Sends one packet. `Ok(false)`: the link's queue is full, try again when it is writable.
    ///
    /// # Errors
    /// The link refuses this packet or is down.
    fn send(&mut self, packet: &TxPacket) -> io::Result<bool>;

    /// Receives one packet, vnet header first; returns its length, or `None` if none waits.
    ///
    /// # Errors
    /// The link is down.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// What may be left undone in packets on this side.
    fn offload(&self) -> Offload {
        Offload::None
    }

    /// Becomes readable when packets wait; `None` if nothing tells.
    fn bell(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
