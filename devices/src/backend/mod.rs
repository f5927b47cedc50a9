//! Host I/O: what stands behind the devices.
//!
//! `uring` is the ring that all block I/O of an event loop goes through. `volume` is what a disk
//! shows: a raw `file`, a `stripe` set or a `qcow2` image. `tap` is the link. `loopback` and `faulty`
//! take their places in tests.

mod blocks;
pub mod bounce;
mod cut;
mod error;
pub mod faulty;
mod file;
mod job;
pub mod loopback;
pub mod netns;
mod probe;
pub mod qcow2;
mod range;
pub mod stripe;
pub mod tap;
pub mod uring;
pub mod volume;
mod way;

#[cfg(test)]
mod tests;

use std::io;

use crate::blk::Outcome;
use crate::net::tx::TxPacket;
pub use cut::Cuts;
pub use error::VolumeError;
pub use file::FileId;
pub use job::Job;
use uring::{Ring, RingFull};
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

/// What serves block requests: a volume, or a faulty one.
///
/// For one job: `submit` once, then `completed` for each completion with its token, until
/// [`Step::Done`]. A job may have several operations in the ring; the storage numbers them in bits 32
/// to 47 of the token, so the owner leaves these zero in `submit` and passes on to `completed` what
/// came back. After [`RingFull`] call `submit` again when something has completed: it continues where
/// the job stands, as often as it is called. A volume also says so when a request has to wait for
/// other requests of the same volume.
pub trait Storage {
    /// Submits the job's next I/O to the ring, with the owner's token.
    ///
    /// # Errors
    /// The ring is full; nothing happened.
    fn submit(&mut self, ring: &mut Ring, token: u64, job: &mut Job) -> Result<Step, RingFull>;

    /// Takes the result of the job's I/O and submits the rest, if any (short reads, further ranges).
    ///
    /// # Errors
    /// The ring is full; call `submit` to go on.
    fn completed(
        &mut self,
        ring: &mut Ring,
        token: u64,
        job: &mut Job,
        result: io::Result<u32>,
    ) -> Result<Step, RingFull>;
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
}
