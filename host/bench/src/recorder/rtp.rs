//! The fixed RTP header (RFC 3550 section 5.1), as far as a receiver of MPEG-TS needs it.

/// What a receiver reads from an RTP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sequence number.
    pub sequence: u16,
    /// Media time in units of 1/90000 s.
    pub timestamp: u32,
    /// Payload type; 33 is MPEG-TS (RFC 3551).
    pub payload_type: u8,
    /// Synchronisation source.
    pub ssrc: u32,
}

/// Ticks of the RTP clock of MPEG-TS in one second (RFC 2250 section 2).
pub const CLOCK_HZ: u64 = 90_000;

/// Reads the header; `None` if this is no RTP version 2 packet.
#[must_use]
pub fn parse(packet: &[u8]) -> Option<Header> {
    let (header, _) = packet.split_first_chunk::<12>()?;
    let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *header;
    (first >> 6 == 2).then_some(Header {
        sequence: u16::from_be_bytes([s0, s1]),
        timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
        payload_type: second & 0x7f,
        ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_read_in_network_byte_order() {
        let packet = [0x80, 33, 0x12, 0x34, 0, 1, 0x5f, 0x90, 0xde, 0xad, 0xbe, 0xef, 0x47];
        let header =
            Header { sequence: 0x1234, timestamp: 90_000, payload_type: 33, ssrc: 0xdead_beef };
        assert_eq!(parse(&packet), Some(header));
        assert_eq!(parse(&packet[..11]), None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_only_version_two_is_taken(bytes: Vec<u8>) {
            let parsed = parse(&bytes);
            prop_assert_eq!(parsed.is_some(), bytes.len() >= 12 && bytes[0] >> 6 == 2);
        }
    }
}
