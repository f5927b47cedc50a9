//! The transmit queue: packets from the guest.

use std::sync::Arc;

use virtio_queue::Queue;

use super::{MacAddr, Nic, VNET_HEADER_LEN};
use crate::counters::Counters;
use crate::memory::{Buffers, GuestMemory};
use crate::ring::RingError;

/// Length of an Ethernet header.
pub const ETHERNET_HEADER_LEN: usize = 14;

/// Names a transmit chain that was not returned yet.
#[derive(Debug)]
#[must_use = "a chain whose token is dropped is never returned to its driver"]
pub struct Token {
    pub(crate) head: u16,
}

/// A packet to be sent. Headers were read once, so that what was checked is what is sent; the rest
/// stays in the guest's memory.
#[derive(Debug)]
pub struct TxPacket {
    /// Hand this to [`Frontend::complete`].
    pub token: Token,
    /// vnet header and Ethernet header, the first bytes to write to a TAP.
    pub head: [u8; VNET_HEADER_LEN + ETHERNET_HEADER_LEN],
    /// The rest of the frame, in guest memory.
    pub payload: Buffers,
}

impl TxPacket {
    /// Length of the Ethernet frame in bytes, without frame check sequence.
    pub fn frame_bytes(&self) -> u64 {
        self.payload.len_bytes() + ETHERNET_HEADER_LEN as u64
    }

    /// Bytes of line time: the frame padded to 60 bytes, plus preamble, frame check sequence and
    /// gap (24 bytes).
    pub fn wire_bytes(&self) -> u64 {
        self.frame_bytes().max(60) + 24
    }

    /// Destination address.
    pub fn destination(&self) -> MacAddr {
        let [.., a, b, c, d, e, f, _, _, _, _, _, _, _, _] = self.head;
        MacAddr([a, b, c, d, e, f])
    }

    /// Source address; equal to the card's.
    pub fn source(&self) -> MacAddr {
        let [.., a, b, c, d, e, f, _, _] = self.head;
        MacAddr([a, b, c, d, e, f])
    }
}

/// What [`Frontend::next_packet`] found.
#[derive(Debug)]
pub enum Next {
    /// A packet for the link.
    Packet(TxPacket),
    /// A malformed packet was dropped and its chain returned. Call again.
    Dropped,
    /// The ring is empty.
    Empty,
}

/// One transmit queue.
#[derive(Debug)]
pub struct Frontend {
    nic: Nic,
    in_flight: u32,
    /// What became of the queue's chains.
    pub counters: Counters,
}

impl Frontend {
    /// A frontend for the transmit queue of `nic`, with the features that the driver has chosen.
    pub fn new(nic: Nic, features: u64) -> Self {
        let _ = features;
        Self { nic, in_flight: 0, counters: Counters::default() }
    }

    /// Number of packets that were given out and not completed.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Takes at most one chain from the ring.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn next_packet(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
    ) -> Result<Next, RingError> {
        let _ = (mem, queue, &self.nic);
        Ok(Next::Empty)
    }

    /// Returns a chain to the driver. Signal it afterwards, once for a batch.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn complete(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        token: Token,
    ) -> Result<(), RingError> {
        let _ = (mem, queue, token);
        Ok(())
    }
}
