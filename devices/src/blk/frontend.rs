//! From the ring to requests and back. Life of a request: `next_request` gives it out with a token,
//! the I/O domain serves it, `complete` takes the token back, writes the status byte and the used
//! entry. The token is not cloneable, so each chain is returned exactly once.

use std::sync::Arc;

use virtio_queue::Queue;
use vm_memory::GuestAddress;

use super::{Disk, Request};
use crate::counters::Counters;
use crate::memory::GuestMemory;
use crate::ring::RingError;

/// Names a chain that was taken from the ring and not returned yet.
#[derive(Debug)]
#[must_use = "a chain whose token is dropped is never returned to its driver"]
pub struct Token {
    pub(crate) head: u16,
    pub(crate) status: GuestAddress,
    /// Bytes that the device writes if all goes well, status byte included.
    pub(crate) written_if_ok: u32,
}

/// How a request ended, as the guest will see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ok,
    /// The host's I/O failed.
    IoError,
    /// The host cannot do this.
    Unsupported,
}

/// What [`Frontend::next_request`] found.
#[derive(Debug)]
pub enum Next {
    /// A request for the I/O domain.
    Request(Request),
    /// A chain was answered on the spot (get-id, or a request that broke a rule). Call again, and
    /// charge the tenant for it: a guest may post nothing else.
    Answered,
    /// The ring is empty.
    Empty,
}

/// The queue cannot be used until the driver resets it.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// See [`RingError`].
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// One request queue's worth of virtio-blk.
#[derive(Debug)]
pub struct Frontend {
    disk: Disk,
    in_flight: u32,
    /// What became of the queue's chains.
    pub counters: Counters,
}

impl Frontend {
    /// A frontend for one queue of `disk`.
    pub fn new(disk: Disk) -> Self {
        Self { disk, in_flight: 0, counters: Counters::default() }
    }

    /// Number of requests that were given out and not completed.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Takes at most one chain from the ring.
    ///
    /// # Errors
    /// The ring is broken; stop the queue and tell the driver (`Vring::fail`).
    pub fn next_request(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
    ) -> Result<Next, FrontendError> {
        let _ = (mem, queue, &self.disk);
        Ok(Next::Empty)
    }

    /// Returns a chain to the driver with its status. Signal the driver afterwards
    /// (`Vring::signal`), once for a batch.
    ///
    /// # Errors
    /// The ring is broken; the chain is lost with it.
    pub fn complete(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        token: Token,
        outcome: Outcome,
    ) -> Result<(), FrontendError> {
        let _ = (mem, queue, token, outcome);
        Ok(())
    }
}
