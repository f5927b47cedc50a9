//! The transmit queue: packets from the guest.

use std::sync::Arc;

use virtio_queue::Queue;

use super::{HeaderError, MacAddr, Nic, VNET_HEADER_LEN, VnetHeader};
use crate::counters::Counters;
use crate::memory::{Buffers, GuestMemory, OutsideMemory};
use crate::ring::{self, Chain, RingError};

/// Length of an Ethernet header.
pub const ETHERNET_HEADER_LEN: usize = 14;
/// Length of a VLAN tag, by which a frame may exceed its MTU.
const VLAN_TAG_LEN: usize = 4;
/// vnet header and Ethernet header.
const HEAD_LEN: usize = VNET_HEADER_LEN + ETHERNET_HEADER_LEN;
/// What `writev` takes (UIO_MAXIOV), less one for the headers.
const MAX_PIECES: usize = 1023;

/// Names a transmit chain that was not returned yet.
#[derive(Debug)]
#[must_use = "a chain whose token is dropped is never returned to its driver"]
pub struct Token {
    head: u16,
}

/// A packet to be sent. Headers were read once, so that what was checked is what is sent; the rest
/// stays in the guest's memory.
#[derive(Debug)]
pub struct TxPacket {
    /// Hand this to [`Frontend::complete`].
    pub token: Token,
    /// vnet header and Ethernet header, the first bytes to write to a TAP.
    pub head: [u8; HEAD_LEN],
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
        source_of(&self.head)
    }
}

/// What [`Frontend::next_packet`] found.
#[derive(Debug)]
pub enum Next {
    /// A packet for the link.
    Packet(TxPacket),
    /// A malformed packet was dropped and its chain returned. Call again, and charge the tenant for
    /// it: a guest may post nothing else.
    Dropped,
    /// The ring is empty.
    Empty,
}

/// Why a packet is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// A transmit chain has only readable descriptors.
    #[error("a transmit chain has writable descriptors")]
    Writable,
    /// Shorter than an Ethernet header, or longer than the MTU allows.
    #[error("a frame of {0} bytes")]
    BadLength(u64),
    /// More pieces than one `writev` takes.
    #[error("a packet in {0} pieces")]
    TooManyPieces(usize),
    /// A part of it is not guest memory.
    #[error(transparent)]
    OutsideMemory(#[from] OutsideMemory),
    /// The vnet header is wrong.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Not the card's own address.
    #[error("source address {0}")]
    ForeignSource(MacAddr),
}

/// One transmit queue.
#[derive(Debug)]
pub struct Frontend {
    nic: Nic,
    in_flight: u32,
    last_drop: Option<PacketError>,
    /// What became of the queue's chains.
    pub counters: Counters,
}

impl Frontend {
    /// A frontend for the transmit queue of `nic`.
    pub fn new(nic: Nic) -> Self {
        Self { nic, in_flight: 0, last_drop: None, counters: Counters::default() }
    }

    /// Number of packets that were given out and not completed.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The driver is gone, and with it everything that was given out.
    pub fn abandon(&mut self) {
        self.in_flight = 0;
    }

    /// Why the latest packet was dropped, for a log.
    pub fn last_drop(&self) -> Option<PacketError> {
        self.last_drop
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
        let Some(chain) = ring::next_chain(mem, queue, self.in_flight)? else {
            return Ok(Next::Empty);
        };
        match parse(mem, &chain, &self.nic) {
            Ok((head, payload)) => {
                self.in_flight += 1;
                let token = Token { head: chain.head };
                Ok(Next::Packet(TxPacket { token, head, payload }))
            }
            Err(error) => {
                self.last_drop = Some(error);
                self.counters.dropped_tx += 1;
                ring::add_used(mem, queue, chain.head, 0)?;
                Ok(Next::Dropped)
            }
        }
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
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counters.completed += 1;
        ring::add_used(mem, queue, token.head, 0)
    }
}

/// Headers and payload of a packet that may be sent.
fn parse(
    mem: &Arc<GuestMemory>,
    chain: &Chain,
    nic: &Nic,
) -> Result<([u8; HEAD_LEN], Buffers), PacketError> {
    let descriptors = &chain.descriptors;
    if descriptors.iter().any(|descriptor| descriptor.writable) {
        return Err(PacketError::Writable);
    }
    let frame_len = ring::len_bytes(descriptors).saturating_sub(VNET_HEADER_LEN as u64);
    let longest = u64::from(nic.mtu) + (ETHERNET_HEADER_LEN + VLAN_TAG_LEN) as u64;
    if frame_len < ETHERNET_HEADER_LEN as u64 || frame_len > longest {
        return Err(PacketError::BadLength(frame_len));
    }
    let mut head = [0; HEAD_LEN];
    ring::buffers(mem, descriptors, 0, HEAD_LEN as u64)?.copy_to(&mut head);
    let payload = ring::buffers(mem, descriptors, HEAD_LEN as u64, u64::MAX)?;
    if payload.segments().len() > MAX_PIECES {
        return Err(PacketError::TooManyPieces(payload.segments().len()));
    }
    if let Some((vnet, _)) = head.split_first_chunk_mut::<VNET_HEADER_LEN>() {
        let frame_len = usize::try_from(frame_len).unwrap_or(usize::MAX);
        let checked = VnetHeader::parse(vnet, frame_len)?;
        // What a driver may not set, the kernel does not get to see.
        *vnet = VnetHeader { data_valid: false, ..checked }.to_bytes(0);
    }
    let source = source_of(&head);
    if source != nic.mac {
        return Err(PacketError::ForeignSource(source));
    }
    Ok((head, payload))
}

fn source_of(head: &[u8; HEAD_LEN]) -> MacAddr {
    let [.., a, b, c, d, e, f, _, _] = *head;
    MacAddr([a, b, c, d, e, f])
}
