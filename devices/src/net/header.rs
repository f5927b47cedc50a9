//! `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6): the 12 bytes before every packet, on the ring and
//! on the TAP alike. Segmentation is not offered, so of its fields only the checksum's are used.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE,
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

/// The header, as far as this device uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// A checksum that has to be completed.
    pub checksum: Option<Checksum>,
    /// Somebody has verified the checksum.
    pub data_valid: bool,
}

/// A rule of virtio 1.2, 5.1.6 that a header broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Segmentation was not offered.
    #[error("segmentation type {0} was not negotiated")]
    Segmentation(u8),
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
        let [flags, segmentation, _, _, _, _, start @ .., o0, o1, _, _] = *bytes;
        if u32::from(segmentation) != VIRTIO_NET_HDR_GSO_NONE {
            return Err(HeaderError::Segmentation(segmentation));
        }
        let flags = u32::from(flags);
        let (start, offset) = (u16::from_le_bytes(start), u16::from_le_bytes([o0, o1]));
        let needed = flags & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
        if needed && usize::from(start) + usize::from(offset) + 2 > frame_len {
            return Err(HeaderError::ChecksumOutside { start, offset, frame_len });
        }
        Ok(Self {
            checksum: needed.then_some(Checksum { start, offset }),
            data_valid: flags & VIRTIO_NET_HDR_F_DATA_VALID != 0,
        })
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
        let Checksum { start, offset } = self.checksum.unwrap_or(Checksum { start: 0, offset: 0 });
        let ([s0, s1], [o0, o1]) = (start.to_le_bytes(), offset.to_le_bytes());
        let [b0, b1] = buffers.to_le_bytes();
        [flags, 0, 0, 0, 0, 0, s0, s1, o0, o1, b0, b1]
    }
}

impl Checksum {
    /// Where in the frame the checksum belongs, and the two bytes that belong there. `None` if the
    /// frame is shorter than the one that was parsed.
    pub fn complete(&self, frame: &[u8]) -> Option<(usize, [u8; 2])> {
        let covered = frame.get(usize::from(self.start)..)?;
        let mut sum = 0_u64;
        let mut words = covered.chunks_exact(2);
        for word in &mut words {
            sum += word.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        sum += words.remainder().first().map_or(0, |byte| u64::from(*byte) << 8);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let value = !u16::try_from(sum).ok()?;
        // Zero means "no checksum" in UDP; both zeros of the ones' complement are the same sum.
        let value = if value == 0 { u16::MAX } else { value };
        Some((usize::from(self.start) + usize::from(self.offset), value.to_be_bytes()))
    }
}
