//! What packets occupy of an Ethernet wire, and how much of it one packet may occupy.
//!
//! A packet that asks for segmentation counts as the segments that it becomes, each with its
//! headers and framing. With any number of segments a guest could hold the wire for as long as it
//! likes, so their number and the length of their headers are bounded. [`largest_packet`] follows
//! from these bounds; admission needs it.

/// Length of an Ethernet header.
pub const ETHERNET_HEADER_LEN: usize = 14;
/// Length of a VLAN tag, by which a frame may exceed its MTU.
pub const VLAN_TAG_LEN: usize = 4;

/// A frame is padded to this length.
const SHORTEST_FRAME: u64 = 60;
/// Preamble and start delimiter (8), frame check sequence (4), gap between frames (12).
const FRAMING: u64 = 24;

/// Longest frame that may ask for segmentation: the longest IP packet, Ethernet header, VLAN tag.
pub const LONGEST_UNCUT: u64 = 65_535 + (ETHERNET_HEADER_LEN + VLAN_TAG_LEN) as u64;
/// Longest headers (Ethernet to TCP) that are repeated in each segment. With a VLAN tag, IPv6 and
/// every TCP option they have 118 bytes.
pub const LONGEST_HEADERS: usize = 128;
/// Most segments of one packet: 64 KiB to a receiver that takes the 536 bytes that everyone takes.
pub const MOST_SEGMENTS: u64 = 128;

/// Bytes of wire time of a frame that has `frame_bytes` without its check sequence.
#[must_use]
pub fn wire_bytes(frame_bytes: u64) -> u64 {
    frame_bytes.max(SHORTEST_FRAME) + FRAMING
}

/// Longest frame of a link, in bytes.
#[must_use]
pub fn longest_frame(mtu: u16) -> u64 {
    u64::from(mtu) + (ETHERNET_HEADER_LEN + VLAN_TAG_LEN) as u64
}

/// The most bytes of wire time that one packet takes on a link.
#[must_use]
pub fn largest_packet(mtu: u16, segmentation: bool) -> u64 {
    let frame = wire_bytes(longest_frame(mtu));
    let headers = LONGEST_HEADERS as u64;
    let cut = LONGEST_UNCUT - headers + MOST_SEGMENTS * (headers + FRAMING);
    if segmentation { frame.max(cut) } else { frame }
}

/// A packet that becomes several segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of headers in each segment.
    pub headers: u64,
    /// Bytes of payload in all of them.
    pub payload: u64,
    /// Bytes of payload in each but the last, at least 1.
    pub size: u64,
}

impl Cut {
    /// Number of segments.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.payload.div_ceil(self.size.max(1))
    }

    /// Bytes of wire time of all segments.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        let Some(full) = self.segments().checked_sub(1) else { return 0 };
        let last = self.payload.saturating_sub(full * self.size);
        full * wire_bytes(self.headers + self.size) + wire_bytes(self.headers + last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_frames_are_padded() {
        assert_eq!((wire_bytes(14), wire_bytes(60), wire_bytes(61)), (84, 84, 85));
        assert_eq!(largest_packet(1500, false), 1542);
        assert_eq!(largest_packet(u16::MAX, false), 65_577);
    }

    #[test]
    fn a_full_packet_is_charged_its_forty_six_frames() {
        // 65,160 bytes are 45 times 1,448; the TCP header has timestamps.
        let cut = Cut { headers: 66, payload: 65_160 + 1, size: 1448 };
        assert_eq!((cut.segments(), cut.wire_bytes()), (46, 45 * 1538 + 91));
    }

    proptest! {
        /// Whatever passes the bounds of the transmit queue stays below the blocking term.
        #[test]
        fn no_packet_occupies_the_wire_longer_than_admission_knows(
            headers in 42_u64..=LONGEST_HEADERS as u64,
            frame in 200_u64..=LONGEST_UNCUT,
            segments in 1_u64..=MOST_SEGMENTS,
        ) {
            let payload = frame - headers;
            let cut = Cut { headers, payload, size: payload.div_ceil(segments) };
            prop_assert!(cut.segments() <= MOST_SEGMENTS);
            prop_assert!(cut.wire_bytes() <= largest_packet(1500, true));
        }
    }
}
