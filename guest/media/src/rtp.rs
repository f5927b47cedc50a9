//! The RTP header (RFC 3550, section 5.1) for MPEG-2 transport streams (RFC 2250, section 2).

/// Length of the header: no CSRC list, no extension.
pub const HEADER_LEN: usize = 12;
/// Payload type of MPEG-2 transport streams (RFC 3551).
pub const PAYLOAD_TYPE_MP2T: u8 = 33;
/// System clock ticks per tick of the 90 kHz RTP clock.
const TICKS_PER_RTP_TICK: u64 = 300;
const VERSION_2: u8 = 2 << 6;

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Counts packets; wraps.
    pub sequence: u16,
    /// 90 kHz; wraps.
    pub timestamp: u32,
    /// Names the source.
    pub ssrc: u32,
}

impl Header {
    /// The header as it is sent. The marker is clear: our timestamps are never discontinuous.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.to_be_bytes();
        [VERSION_2, PAYLOAD_TYPE_MP2T, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]
    }
}

/// The RTP timestamp `ticks` after the one called `base`.
#[must_use]
pub fn timestamp(base: u32, ticks: u64) -> u32 {
    // The clock wraps: only the low half counts.
    let low = (ticks / TICKS_PER_RTP_TICK) & u64::from(u32::MAX);
    base.wrapping_add(u32::try_from(low).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_big_endian_with_version_and_payload_type() {
        let header = Header { sequence: 0x0102, timestamp: 0x0304_0506, ssrc: 0x0708_090a };
        assert_eq!(header.to_bytes(), [0x80, 33, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn timestamp_counts_at_90_khz_and_wraps() {
        assert_eq!(timestamp(5, 27_000_000), 90_005);
        assert_eq!(timestamp(u32::MAX, 300), 0);
        assert_eq!(timestamp(7, (1 << 32) * 300), 7);
    }
}
