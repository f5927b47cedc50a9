//! A transmit queue: packets from the guest.

use std::sync::Arc;

use smallvec::SmallVec;
use virtio_bindings::virtio_net::VIRTIO_NET_F_CSUM;
use virtio_queue::Queue;

use super::segment::{Layout, NotCuttable};
use super::{HeaderError, MacAddr, Nic, Segmentation, VNET_HEADER_LEN, VnetHeader};
use crate::counters::Counters;
use crate::memory::{Buffers, GuestMemory, OutsideMemory};
use crate::ring::{self, Chain, Descriptor, RingError};
use moirai_abi::wire::{
    ETHERNET_HEADER_LEN, LONGEST_HEADERS, LONGEST_UNCUT, MOST_SEGMENTS, longest_frame, wire_bytes,
};

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
    /// The first bytes to write to a TAP: vnet header and Ethernet header, and if it has to be cut
    /// into segments all its headers.
    pub head: SmallVec<[u8; HEAD_LEN]>,
    /// The rest of the frame, in guest memory.
    pub payload: Buffers,
    wire_bytes: u64,
}

impl TxPacket {
    /// Length of the Ethernet frame in bytes, without frame check sequence.
    pub fn frame_bytes(&self) -> u64 {
        self.payload.len_bytes() + self.head.len().saturating_sub(VNET_HEADER_LEN) as u64
    }

    /// Bytes of line time (see [`super::wire`]) of the frame, or of all segments that it becomes.
    pub fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    /// Destination address.
    pub fn destination(&self) -> MacAddr {
        address(&self.head, VNET_HEADER_LEN)
    }

    /// Source address; equal to the card's.
    pub fn source(&self) -> MacAddr {
        address(&self.head, VNET_HEADER_LEN + 6)
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
    /// The driver leaves to the link what it did not negotiate.
    #[error("a packet that needs an offload which was not negotiated: {0:?}")]
    NotNegotiated(VnetHeader),
    /// It cannot be cut into segments.
    #[error(transparent)]
    NotCuttable(#[from] NotCuttable),
    /// Its segments would be too many, or too long for the link.
    #[error("a packet of {segments} segments of {frame_bytes} bytes")]
    BadSegments {
        /// Their number.
        segments: u64,
        /// Length of each, headers included.
        frame_bytes: u64,
    },
    /// Not the card's own address.
    #[error("source address {0}")]
    ForeignSource(MacAddr),
}

/// One transmit queue.
#[derive(Debug)]
pub struct Frontend {
    nic: Nic,
    features: u64,
    in_flight: u32,
    last_drop: Option<PacketError>,
    /// What became of the queue's chains.
    pub counters: Counters,
}

impl Frontend {
    /// A frontend for a transmit queue of `nic`, whose driver has chosen no features yet.
    pub fn new(nic: Nic) -> Self {
        Self { nic, features: 0, in_flight: 0, last_drop: None, counters: Counters::default() }
    }

    /// What the driver has chosen.
    pub fn set_features(&mut self, features: u64) {
        self.features = features;
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
        match parse(mem, &chain, &self.nic, self.features) {
            Ok(packet) => {
                self.in_flight += 1;
                Ok(Next::Packet(packet))
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

/// A packet that may be sent.
fn parse(
    mem: &Arc<GuestMemory>,
    chain: &Chain,
    nic: &Nic,
    features: u64,
) -> Result<TxPacket, PacketError> {
    let descriptors = &chain.descriptors;
    if descriptors.iter().any(|descriptor| descriptor.writable) {
        return Err(PacketError::Writable);
    }
    let frame_len = ring::len_bytes(descriptors).saturating_sub(VNET_HEADER_LEN as u64);
    if !(ETHERNET_HEADER_LEN as u64..=LONGEST_UNCUT).contains(&frame_len) {
        return Err(PacketError::BadLength(frame_len));
    }
    let mut vnet = [0; VNET_HEADER_LEN];
    ring::buffers(mem, descriptors, 0, VNET_HEADER_LEN as u64)?.copy_to(&mut vnet);
    let header = VnetHeader::parse(&vnet, usize::try_from(frame_len).unwrap_or(usize::MAX))?;
    // What a driver may not set, the kernel does not get to see.
    let mut header = VnetHeader { data_valid: false, ..header };
    let (frame_head, wire_bytes) = match header.segmentation {
        None if frame_len > longest_frame(nic.mtu) => {
            return Err(PacketError::BadLength(frame_len));
        }
        None => (front(mem, descriptors, ETHERNET_HEADER_LEN)?, wire_bytes(frame_len)),
        Some(asked) => {
            let mut head = front(mem, descriptors, LONGEST_HEADERS)?;
            let layout = Layout::find(&head, frame_len, &header)?;
            head.truncate(layout.headers);
            let header_len = u16::try_from(layout.headers).unwrap_or(u16::MAX);
            header.segmentation = Some(Segmentation { header_len, ..asked });
            (head, cut_wire_bytes(&layout, frame_len, asked, nic)?)
        }
    };
    let checksums = features >> VIRTIO_NET_F_CSUM & 1 == 1;
    let negotiated = (checksums || header.checksum.is_none())
        && header.segmentation.is_none_or(|asked| asked.may_be_sent(features));
    if !negotiated {
        return Err(PacketError::NotNegotiated(header));
    }
    let head: SmallVec<_> = header.to_bytes(0).into_iter().chain(frame_head).collect();
    let source = address(&head, VNET_HEADER_LEN + 6);
    if source != nic.mac {
        return Err(PacketError::ForeignSource(source));
    }
    let payload = ring::buffers(mem, descriptors, head.len() as u64, u64::MAX)?;
    if payload.segments().len() > MAX_PIECES {
        return Err(PacketError::TooManyPieces(payload.segments().len()));
    }
    Ok(TxPacket { token: Token { head: chain.head }, head, payload, wire_bytes })
}

/// The first bytes of a frame, at most `len`.
fn front(
    mem: &Arc<GuestMemory>,
    descriptors: &[Descriptor],
    len: usize,
) -> Result<SmallVec<[u8; ETHERNET_HEADER_LEN]>, PacketError> {
    let mut bytes = SmallVec::from_elem(0, len);
    let buffers = ring::buffers(mem, descriptors, VNET_HEADER_LEN as u64, len as u64)?;
    let there = buffers.copy_to(&mut bytes);
    bytes.truncate(there);
    Ok(bytes)
}

/// The wire time of a packet that is cut, if the link lets its segments through.
fn cut_wire_bytes(
    layout: &Layout,
    frame_len: u64,
    asked: Segmentation,
    nic: &Nic,
) -> Result<u64, PacketError> {
    let cut = layout.cut(frame_len, asked);
    let (segments, frame_bytes) = (cut.segments(), cut.headers + cut.size);
    if segments > MOST_SEGMENTS || frame_bytes > longest_frame(nic.mtu) {
        return Err(PacketError::BadSegments { segments, frame_bytes });
    }
    Ok(cut.wire_bytes())
}

fn address(head: &[u8], at: usize) -> MacAddr {
    MacAddr(head.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default())
}
