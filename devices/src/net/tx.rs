//! A transmit queue: packets from the guest.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;
use virtio_bindings::virtio_net::VIRTIO_NET_F_CSUM;
use virtio_queue::Queue;

use super::claims::{self, FARTHEST, Offence, USUAL, Unread};
use super::segment::{Layout, NotCuttable};
use super::{HeaderError, MacAddr, Nic, Segmentation, VNET_HEADER_LEN, VnetHeader};
use crate::counters::Counters;
use crate::memory::{Buffers, GuestMemory, OutsideMemory};
use crate::virtqueue::{self, Chain, Descriptor, QueueError};
use moirai_abi::wire::{
    ETHERNET_HEADER_LEN, LONGEST_HEADERS, LONGEST_UNCUT, MOST_SEGMENTS, longest_frame, wire_bytes,
};

/// vnet header and the first bytes of most frames ([`USUAL`]), rounded up.
const HEAD_LEN: usize = 96;
/// What `writev` takes (UIO_MAXIOV), less one for the headers.
const MAX_PIECES: usize = 1023;

/// A transmit chain that was not returned yet. Not cloneable, so it is returned once.
#[derive(Debug)]
#[must_use = "a chain that is dropped is never returned to its driver"]
pub struct TakenChain {
    head: u16,
}

/// A packet of a driver, and the chain by which its buffers go back.
#[derive(Debug)]
pub struct Taken {
    /// Hand this to [`Frontend::complete`].
    pub chain: TakenChain,
    /// What is to be sent.
    pub packet: TxPacket,
}

/// A packet to be sent. Headers were read once, so that what was checked is what is sent; the rest
/// stays in the guest's memory.
#[derive(Debug)]
pub struct TxPacket {
    /// The first bytes to write to a TAP: vnet header and the headers that were checked, or a few
    /// bytes more.
    pub head: SmallVec<[u8; HEAD_LEN]>,
    /// The rest of the frame, in guest memory.
    pub payload: Buffers,
    wire_bytes: u64,
    payload_bytes: u64,
}

impl PacketError {
    /// What it is in the eyes of its neighbours, if it is that.
    #[must_use]
    pub fn offence(self) -> Option<Offence> {
        match self {
            Self::ForeignSource(_) => Some(Offence::Mac),
            Self::Spoofed(offence) => Some(offence),
            _ => None,
        }
    }
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

    /// Bytes of payload: what is after the Ethernet header, or after all headers of a packet that
    /// has to be cut.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
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
#[allow(clippy::large_enum_variant, reason = "a packet costs no allocation")]
pub enum Next {
    /// A packet for the link.
    Packet(Taken),
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
    /// It claims to be from somebody else.
    #[error(transparent)]
    Spoofed(#[from] Offence),
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

    /// Takes at most one chain from the ring. What its packet claims beside the card's own address
    /// is not looked at.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn next_packet(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
    ) -> Result<Next, QueueError> {
        self.next(mem, queue, None)
    }

    /// Takes at most one chain from the ring, and drops its packet if it claims to be from somebody
    /// else. `owns`: whether an address is the guest's.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn next_bound_packet(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        owns: &mut dyn FnMut(IpAddr) -> bool,
    ) -> Result<Next, QueueError> {
        self.next(mem, queue, Some(owns))
    }

    fn next(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        owns: Option<&mut dyn FnMut(IpAddr) -> bool>,
    ) -> Result<Next, QueueError> {
        let Some(chain) = virtqueue::next_chain(mem, queue, self.in_flight)? else {
            return Ok(Next::Empty);
        };
        match parse(mem, &chain, &self.nic, self.features, owns) {
            Ok(packet) => {
                self.in_flight += 1;
                Ok(Next::Packet(packet))
            }
            Err(error) => {
                self.last_drop = Some(error);
                self.counters.dropped_tx += 1;
                if let Some(offence) = error.offence() {
                    self.counters.spoofed[offence.place()] += 1;
                }
                virtqueue::add_used(mem, queue, chain.head, 0)?;
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
        chain: TakenChain,
    ) -> Result<(), QueueError> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.counters.completed += 1;
        virtqueue::add_used(mem, queue, chain.head, 0)
    }
}

/// vnet header and the first bytes of a frame.
type Head = SmallVec<[u8; HEAD_LEN]>;

/// A packet that may be sent.
fn parse(
    mem: &Arc<GuestMemory>,
    chain: &Chain,
    nic: &Nic,
    features: u64,
    owns: Option<&mut dyn FnMut(IpAddr) -> bool>,
) -> Result<Taken, PacketError> {
    let descriptors = &chain.descriptors;
    if descriptors.iter().any(|descriptor| descriptor.writable) {
        return Err(PacketError::Writable);
    }
    let frame_len = virtqueue::len_bytes(descriptors).saturating_sub(VNET_HEADER_LEN as u64);
    if !(ETHERNET_HEADER_LEN as u64..=LONGEST_UNCUT).contains(&frame_len) {
        return Err(PacketError::BadLength(frame_len));
    }
    let looks_at = if owns.is_some() { USUAL } else { ETHERNET_HEADER_LEN };
    let mut head = front(mem, descriptors, looks_at)?;
    let vnet = head.first_chunk().ok_or(PacketError::BadLength(0))?;
    let header = VnetHeader::parse(vnet, usize::try_from(frame_len).unwrap_or(usize::MAX))?;
    // What a driver may not set, the kernel does not get to see.
    let mut header = VnetHeader { data_valid: false, ..header };
    let (wire_bytes, headers) = match header.segmentation {
        None if frame_len > longest_frame(nic.mtu) => {
            return Err(PacketError::BadLength(frame_len));
        }
        None => (wire_bytes(frame_len), ETHERNET_HEADER_LEN),
        Some(asked) => {
            head = front(mem, descriptors, LONGEST_HEADERS)?;
            let layout = Layout::find(frame_of(&head), frame_len, &header)?;
            head.truncate(VNET_HEADER_LEN + layout.headers);
            let header_len = u16::try_from(layout.headers).unwrap_or(u16::MAX);
            header.segmentation = Some(Segmentation { header_len, ..asked });
            (cut_wire_bytes(&layout, frame_len, asked, nic)?, layout.headers)
        }
    };
    let checksums = features >> VIRTIO_NET_F_CSUM & 1 == 1;
    let negotiated = (checksums || header.checksum.is_none())
        && header.segmentation.is_none_or(|asked| asked.may_be_sent(features));
    if !negotiated {
        return Err(PacketError::NotNegotiated(header));
    }
    if let Some(owns) = owns {
        head = checked(mem, descriptors, nic.mac, head, owns)?;
    }
    // What was read last is what is sent.
    let source = address(&head, VNET_HEADER_LEN + 6);
    if source != nic.mac {
        return Err(PacketError::ForeignSource(source));
    }
    head.iter_mut().zip(header.to_bytes(0)).for_each(|(to, from)| *to = from);
    let payload = virtqueue::buffers(mem, descriptors, head.len() as u64, u64::MAX)?;
    if payload.segments().len() > MAX_PIECES {
        return Err(PacketError::TooManyPieces(payload.segments().len()));
    }
    let payload_bytes = frame_len.saturating_sub(headers as u64);
    let chain = TakenChain { head: chain.head };
    Ok(Taken { chain, packet: TxPacket { head, payload, wire_bytes, payload_bytes } })
}

/// The head of a packet that claims nothing which is not its sender's: `head`, or more of it if
/// that is needed to know.
fn checked(
    mem: &Arc<GuestMemory>,
    descriptors: &[Descriptor],
    own: MacAddr,
    mut head: Head,
    owns: &mut dyn FnMut(IpAddr) -> bool,
) -> Result<Head, PacketError> {
    let mut claims = claims::read(frame_of(&head), own);
    if claims == Err(Unread::Cut) {
        head = front(mem, descriptors, FARTHEST)?;
        claims = claims::read(frame_of(&head), own);
    }
    let claims = claims.map_err(|unread| match unread {
        Unread::Cut => Offence::Hidden,
        Unread::Offence(offence) => offence,
    })?;
    match claims.iter().find(|(address, _)| !owns(*address)) {
        Some((_, offence)) => Err(offence.into()),
        None => Ok(head),
    }
}

fn frame_of(head: &Head) -> &[u8] {
    head.get(VNET_HEADER_LEN..).unwrap_or_default()
}

/// The vnet header and the first bytes of a frame, at most `len`.
fn front(
    mem: &Arc<GuestMemory>,
    descriptors: &[Descriptor],
    len: usize,
) -> Result<Head, PacketError> {
    let len = VNET_HEADER_LEN + len;
    let mut bytes = SmallVec::from_elem(0, len);
    let there = virtqueue::buffers(mem, descriptors, 0, len as u64)?.copy_to(&mut bytes);
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
