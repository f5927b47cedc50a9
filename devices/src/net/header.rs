//! `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6): the 12 bytes before every packet, on the ring
//! and on the TAP alike. It says what the sender has left to do: a checksum, segmentation.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
    VIRTIO_NET_HDR_GSO_UDP_L4,
};

/// Length of the header in bytes.
pub const VNET_HEADER_LEN: usize = 12;

/// A checksum that is left to whoever sends or receives the packet. Both offsets were checked to
/// lie in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// The sum covers the packet from this byte of the frame to its end.
    pub start: u16,
    /// Where to store the two bytes, counted from `start`. They hold the sum of the pseudo header.
    pub offset: u16,
}

/// What is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either; the segments are datagrams of their own.
    Udp,
}

/// A packet that is to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// How.
    pub protocol: Protocol,
    /// Its TCP header carries the mark "congestion window reduced", which only the first segment
    /// gets.
    pub ecn: bool,
    /// Bytes of payload in each segment but the last; not zero.
    pub size: u16,
    /// Length of the headers as its sender says it; a hint, not checked.
    pub header_len: u16,
}

/// The header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// A checksum that has to be completed.
    pub checksum: Option<Checksum>,
    /// Somebody has verified the checksum.
    pub data_valid: bool,
    /// It has to be cut. There is a checksum to complete then, too.
    pub segmentation: Option<Segmentation>,
}

/// A rule of virtio 1.2, 5.1.6 that a header broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A kind of segmentation that this device never offers.
    #[error("segmentation type {0} does not exist")]
    Segmentation(u8),
    /// Segments without payload, or without a checksum to complete.
    #[error("segments of {size} bytes (checksum: {checksum})")]
    BadSegments {
        /// Bytes of payload in each.
        size: u16,
        /// Whether their checksums are to be completed.
        checksum: bool,
    },
    /// The checksum would be stored outside the packet.
    #[error("checksum at {start} + {offset} in a packet of {frame_len} bytes")]
    ChecksumOutside {
        /// Where the sum starts.
        start: u16,
        /// Where it would be stored, from there.
        offset: u16,
        /// Length of the Ethernet frame.
        frame_len: usize,
    },
}

impl VnetHeader {
    /// Reads the header of an Ethernet frame of `frame_len` bytes.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn parse(bytes: &[u8; VNET_HEADER_LEN], frame_len: usize) -> Result<Self, HeaderError> {
        let [flags, kind, h0, h1, g0, g1, start @ .., o0, o1, _, _] = *bytes;
        let flags = u32::from(flags);
        let (start, offset) = (u16::from_le_bytes(start), u16::from_le_bytes([o0, o1]));
        let needed = flags & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
        if needed && usize::from(start) + usize::from(offset) + 2 > frame_len {
            return Err(HeaderError::ChecksumOutside { start, offset, frame_len });
        }
        let header_len = u16::from_le_bytes([h0, h1]);
        let segmentation = Segmentation::parse(kind, u16::from_le_bytes([g0, g1]), header_len)?;
        match segmentation {
            Some(Segmentation { size, .. }) if size == 0 || !needed => {
                Err(HeaderError::BadSegments { size, checksum: needed })
            }
            _ => Ok(Self {
                checksum: needed.then_some(Checksum { start, offset }),
                data_valid: flags & VIRTIO_NET_HDR_F_DATA_VALID != 0,
                segmentation,
            }),
        }
    }

    /// The header as bytes, for a packet that lies in `buffers` receive buffers.
    pub fn to_bytes(&self, buffers: u16) -> [u8; VNET_HEADER_LEN] {
        let mut flags = 0;
        if self.checksum.is_some() {
            flags |= VIRTIO_NET_HDR_F_NEEDS_CSUM;
        }
        if self.data_valid {
            flags |= VIRTIO_NET_HDR_F_DATA_VALID;
        }
        let flags = u8::try_from(flags).unwrap_or(0);
        let (kind, header_len, size) = self.segmentation.map_or((0, 0, 0), |segmentation| {
            (segmentation.kind(), segmentation.header_len, segmentation.size)
        });
        let Checksum { start, offset } = self.checksum.unwrap_or(Checksum { start: 0, offset: 0 });
        let words = [header_len, size, start, offset, buffers].map(u16::to_le_bytes);
        let mut bytes = [0; VNET_HEADER_LEN];
        let all = [flags, kind].into_iter().chain(words.into_iter().flatten());
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        bytes
    }
}

impl Segmentation {
    fn parse(kind: u8, size: u16, header_len: u16) -> Result<Option<Self>, HeaderError> {
        let ecn = u32::from(kind) & VIRTIO_NET_HDR_GSO_ECN != 0;
        let protocol = match u32::from(kind) & !VIRTIO_NET_HDR_GSO_ECN {
            VIRTIO_NET_HDR_GSO_NONE if !ecn => return Ok(None),
            VIRTIO_NET_HDR_GSO_TCPV4 => Protocol::Tcp4,
            VIRTIO_NET_HDR_GSO_TCPV6 => Protocol::Tcp6,
            VIRTIO_NET_HDR_GSO_UDP_L4 if !ecn => Protocol::Udp,
            _ => return Err(HeaderError::Segmentation(kind)),
        };
        Ok(Some(Self { protocol, ecn, size, header_len }))
    }

    fn kind(self) -> u8 {
        let protocol = match self.protocol {
            Protocol::Tcp4 => VIRTIO_NET_HDR_GSO_TCPV4,
            Protocol::Tcp6 => VIRTIO_NET_HDR_GSO_TCPV6,
            Protocol::Udp => VIRTIO_NET_HDR_GSO_UDP_L4,
        };
        let ecn = if self.ecn { VIRTIO_NET_HDR_GSO_ECN } else { 0 };
        u8::try_from(protocol | ecn).unwrap_or(0)
    }
}

impl Checksum {
    /// Where in the frame the checksum belongs, and the two bytes that belong there. `None` if the
    /// frame is shorter than the one that was parsed.
    pub fn complete(&self, frame: &[u8]) -> Option<(usize, [u8; 2])> {
        let covered = frame.get(usize::from(self.start)..)?;
        let value = !ones_sum(covered);
        // Zero means "no checksum" in UDP; both zeros of the ones' complement are the same sum.
        let value = if value == 0 { u16::MAX } else { value };
        Some((usize::from(self.start) + usize::from(self.offset), value.to_be_bytes()))
    }
}

/// The ones' complement sum of the big-endian words of `bytes`, the last one padded with zero.
pub(super) fn ones_sum(bytes: &[u8]) -> u16 {
    // Words of four bytes give the same sum, since 2^16 is 1 in this arithmetic.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    sum += u64::from(u32::from_be_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}
