//! Packets that are cut into segments: where their headers lie, and the cutting itself, for a guest
//! that did not agree to receive uncut ones. The kernel cuts what guests send.

use super::header::{Checksum, Protocol, Segmentation, VnetHeader, ones_sum};
use super::packet::{self, Ip, TCP, UDP, be16};
use moirai_abi::wire::Cut;

const UDP_HEADER_LEN: usize = 8;
/// Offsets in an IPv4 header.
const IPV4_LENGTH: usize = 2;
const IPV4_ID: usize = 4;
const IPV4_CHECKSUM: usize = 10;
/// Offset in an IPv6 header, and what that length does not count.
const IPV6_LENGTH: usize = 4;
const IPV6_HEADER_LEN: usize = 40;
/// Offsets in a TCP header.
const TCP_SEQUENCE: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: u16 = 16;
/// The flags FIN and PSH, which belong to the end of the data, and CWR, which belongs to its start.
const TCP_AT_END: u8 = 0x01 | 0x08;
const TCP_AT_START: u8 = 0x80;
/// Offsets in a UDP header.
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: u16 = 6;

/// A header that asks for segmentation and a packet that is none of the kind: not that protocol, a
/// fragment, headers that are cut off, a checksum in another place, no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet does not have the headers that its segmentation needs")]
pub struct NotCuttable;

/// Where the headers of a packet lie that can be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    ip: Ip,
    checksum: Checksum,
    /// Length of all headers, Ethernet to TCP or UDP.
    pub(super) headers: usize,
}

impl Layout {
    /// Finds the headers in the first bytes of a frame of `frame_len` bytes, and checks that they
    /// are what `header` says.
    pub(super) fn find(
        front: &[u8],
        frame_len: u64,
        header: &VnetHeader,
    ) -> Result<Self, NotCuttable> {
        let (Some(segmentation), Some(checksum)) = (header.segmentation, header.checksum) else {
            return Err(NotCuttable);
        };
        let ip = packet::ip(front).ok_or(NotCuttable)?;
        let (protocol, place, versions) = match segmentation.protocol {
            Protocol::Tcp4 => (TCP, TCP_CHECKSUM, &[false][..]),
            Protocol::Tcp6 => (TCP, TCP_CHECKSUM, &[true][..]),
            Protocol::Udp => (UDP, UDP_CHECKSUM, &[false, true][..]),
        };
        let len = match segmentation.protocol {
            Protocol::Udp => UDP_HEADER_LEN,
            Protocol::Tcp4 | Protocol::Tcp6 => {
                let words = front.get(ip.transport + TCP_DATA_OFFSET).ok_or(NotCuttable)? >> 4;
                if words < 5 {
                    return Err(NotCuttable);
                }
                usize::from(words) * 4
            }
        };
        let headers = ip.transport + len;
        let good = versions.contains(&ip.version_6)
            && ip.protocol == protocol
            && !ip.fragment
            && usize::from(checksum.start) == ip.transport
            && checksum.offset == place
            && headers <= front.len()
            && (headers as u64) < frame_len;
        if good { Ok(Self { ip, checksum, headers }) } else { Err(NotCuttable) }
    }

    /// What the packet becomes.
    pub(super) fn cut(&self, frame_len: u64, segmentation: Segmentation) -> Cut {
        let headers = self.headers as u64;
        let payload = frame_len.saturating_sub(headers);
        Cut { headers, payload, size: u64::from(segmentation.size) }
    }

    /// Whether the packet is IPv6.
    pub(super) fn version_6(&self) -> bool {
        self.ip.version_6
    }
}

/// The segments of a packet, one at a time. Each still has its checksum to be completed.
#[derive(Debug)]
pub(super) struct Segments<'a> {
    frame: &'a [u8],
    layout: Layout,
    segmentation: Segmentation,
    /// How many were made.
    made: usize,
    buffer: Vec<u8>,
}

impl<'a> Segments<'a> {
    pub(super) fn new(frame: &'a [u8], layout: Layout, segmentation: Segmentation) -> Self {
        Self { frame, layout, segmentation, made: 0, buffer: Vec::new() }
    }

    /// The header that goes with each segment.
    pub(super) fn header(&self) -> VnetHeader {
        VnetHeader { checksum: Some(self.layout.checksum), ..VnetHeader::default() }
    }

    /// The next segment.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let size = usize::from(self.segmentation.size);
        let (headers, payload) = self.frame.split_at_checked(self.layout.headers)?;
        let skip = self.made.checked_mul(size)?;
        let piece = payload.get(skip..)?;
        let piece = piece.get(..size).unwrap_or(piece);
        if piece.is_empty() {
            return None;
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(headers);
        self.buffer.extend_from_slice(piece);
        self.adapt(skip, skip + piece.len() == payload.len())?;
        self.made += 1;
        Some(&self.buffer)
    }

    /// Makes the copied headers those of this segment, whose payload begins `skip` bytes into that
    /// of the packet.
    fn adapt(&mut self, skip: usize, last: bool) -> Option<()> {
        let Ip { version_6, network, transport, .. } = self.layout.ip;
        let made = self.made;
        let (len, whole) = (self.buffer.len(), self.frame.len());
        let bytes = &mut self.buffer;
        if version_6 {
            put16(bytes, network + IPV6_LENGTH, len - network - IPV6_HEADER_LEN)?;
        } else {
            put16(bytes, network + IPV4_LENGTH, len - network)?;
            let id = usize::from(be16(bytes, network + IPV4_ID)?);
            put16(bytes, network + IPV4_ID, id + made)?;
            put16(bytes, network + IPV4_CHECKSUM, 0)?;
            let sum = !ones_sum(bytes.get(network..transport)?);
            put16(bytes, network + IPV4_CHECKSUM, usize::from(sum))?;
        }
        if self.segmentation.protocol == Protocol::Udp {
            put16(bytes, transport + UDP_LENGTH, len - transport)?;
        } else {
            let sequence = bytes.get_mut(transport + TCP_SEQUENCE..)?.first_chunk_mut()?;
            let skip = u32::try_from(skip).ok()?;
            *sequence = u32::from_be_bytes(*sequence).wrapping_add(skip).to_be_bytes();
            let flags = bytes.get_mut(transport + TCP_FLAGS)?;
            *flags &= if last { u8::MAX } else { !TCP_AT_END };
            *flags &= if made == 0 { u8::MAX } else { !TCP_AT_START };
        }
        // The pseudo header's sum counts the length; only that differs from the packet's.
        let place = transport + usize::from(self.layout.checksum.offset);
        let length = |end: usize| u16::try_from(end - transport).ok();
        let pseudo = [be16(bytes, place)?, !length(whole)?, length(len)?];
        let pseudo = ones_sum(pseudo.map(u16::to_be_bytes).as_flattened());
        put16(bytes, place, usize::from(pseudo))
    }
}

/// Stores the low 16 bits of `value`, big-endian.
fn put16(bytes: &mut [u8], at: usize, value: usize) -> Option<()> {
    let value = u16::try_from(value & 0xffff).ok()?;
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}
