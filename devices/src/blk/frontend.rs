//! From the ring to requests and back. `next_request` returns a request with the chain in which it
//! came, the I/O domain serves it, and `complete` takes the chain back and writes the status byte
//! and the used element.

use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};
use virtio_queue::Queue;
use vm_memory::Bytes;

use super::chain::{Taken, TakenChain};
use super::request::{Command, Op, ParseError, parse, status_address};
use super::{Disk, Request};
use crate::counters::Counters;
use crate::memory::GuestMemory;
use crate::virtqueue::{self, Chain, QueueError};

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
    Request(Taken),
    /// A chain was answered on the spot (get-id, or a request that broke a rule). Call again, and
    /// charge the tenant for it: a guest may post nothing else.
    Answered,
    /// The ring is empty.
    Empty,
}

/// The queue cannot be used until the driver resets it.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// See [`QueueError`].
    #[error(transparent)]
    Ring(#[from] QueueError),
}

/// One request queue's worth of virtio-blk.
#[derive(Debug)]
pub struct Frontend {
    disk: Disk,
    durable_writes: bool,
    in_flight: u32,
    last_refusal: Option<ParseError>,
    /// What became of the queue's chains.
    pub counters: Counters,
}

impl Frontend {
    /// A frontend for one queue of `disk`.
    pub fn new(disk: Disk) -> Self {
        let counters = Counters::default();
        Self { disk, durable_writes: false, in_flight: 0, last_refusal: None, counters }
    }

    /// Tells it what was negotiated: a driver without VIRTIO_BLK_F_FLUSH gets durable writes
    /// (virtio 1.2, 5.2.6.2).
    pub fn set_features(&mut self, features: u64) {
        self.durable_writes = features >> VIRTIO_BLK_F_FLUSH & 1 == 0;
    }

    /// Number of requests that were given out and not completed.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Why the latest chain was refused, for a log.
    pub fn last_refusal(&self) -> Option<ParseError> {
        self.last_refusal
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
        match virtqueue::next_chain(mem, queue, self.in_flight)? {
            Some(chain) => self.accept(mem, queue, &chain),
            None => Ok(Next::Empty),
        }
    }

    /// Takes the chain at descriptor `head` again, which an earlier process took from the ring and
    /// did not return.
    ///
    /// # Errors
    /// As [`Frontend::next_request`].
    pub fn request_again(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        head: u16,
    ) -> Result<Next, FrontendError> {
        let chain = virtqueue::chain_at(mem, queue, head, self.in_flight)?;
        self.accept(mem, queue, &chain)
    }

    /// The driver is gone, and with it everything that was given out.
    pub fn abandon(&mut self) {
        self.in_flight = 0;
    }

    fn accept(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        chain: &Chain,
    ) -> Result<Next, FrontendError> {
        let Some(status) = status_address(mem, chain) else {
            self.last_refusal = Some(ParseError::NoStatus);
            self.counters.unanswerable += 1;
            virtqueue::add_used(mem, queue, chain.head, 0)?;
            return Ok(Next::Answered);
        };
        let mut taken = TakenChain { head: chain.head, status, written_if_ok: 1 };
        let outcome = match parse(mem, chain, &self.disk, self.durable_writes) {
            Ok(Command::Io { op, buffers }) => {
                if let Op::Read { .. } = op {
                    taken.written_if_ok = written(buffers.len_bytes());
                }
                self.in_flight += 1;
                let request = Request { op, buffers };
                return Ok(Next::Request(Taken { chain: taken, request }));
            }
            Ok(Command::GetId { buffers }) => {
                taken.written_if_ok = written(buffers.copy_from(&self.disk.id) as u64);
                self.counters.completed += 1;
                Outcome::Ok
            }
            Err(error) => {
                self.last_refusal = Some(error);
                self.counters.refused += 1;
                outcome_of(error)
            }
        };
        self.give_back(mem, queue, taken, outcome)?;
        Ok(Next::Answered)
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
        chain: TakenChain,
        outcome: Outcome,
    ) -> Result<(), FrontendError> {
        self.in_flight = self.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Ok => self.counters.completed += 1,
            Outcome::IoError | Outcome::Unsupported => self.counters.io_errors += 1,
        }
        self.give_back(mem, queue, chain, outcome)
    }

    fn give_back(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        chain: TakenChain,
        outcome: Outcome,
    ) -> Result<(), FrontendError> {
        let (status, mut len) = match outcome {
            Outcome::Ok => (VIRTIO_BLK_S_OK, chain.written_if_ok),
            Outcome::IoError => (VIRTIO_BLK_S_IOERR, 1),
            Outcome::Unsupported => (VIRTIO_BLK_S_UNSUPP, 1),
        };
        let status = u8::try_from(status).unwrap_or(u8::MAX);
        // The memory table may have changed since the address was checked.
        if mem.write_obj(status, chain.status).is_err() {
            self.counters.unanswerable += 1;
            len = 0;
        }
        Ok(virtqueue::add_used(mem, queue, chain.head, len)?)
    }
}

/// What the used ring says of a request that wrote so much data and a status byte.
fn written(data_bytes: u64) -> u32 {
    u32::try_from(data_bytes.saturating_add(1)).unwrap_or(u32::MAX)
}

fn outcome_of(error: ParseError) -> Outcome {
    match error {
        ParseError::UnknownType(_) | ParseError::BadFlags { .. } => Outcome::Unsupported,
        _ => Outcome::IoError,
    }
}
