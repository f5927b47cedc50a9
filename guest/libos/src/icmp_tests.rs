//! Tests of ICMP answers.
#![allow(clippy::cast_possible_truncation, reason = "tests cut numbers to size on purpose")]

use super::*;
use crate::frame::{Mac, NET_HEADER_LEN, UdpChecksum, UdpFlow, udp_headers};

const OURS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 5004);
const THEIRS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 40000);

/// The answer to a datagram from us to them; its IP header has `options` words more.
fn answer(code: u8, options: u8) -> Vec<u8> {
    let (source_mac, destination_mac) = (Mac([2; 6]), Mac([4; 6]));
    let flow = UdpFlow { source_mac, destination_mac, source: OURS, destination: THEIRS, ttl: 64 };
    let sent = udp_headers(&flow, 1328, UdpChecksum::Absent);
    let mut frame = sent[NET_HEADER_LEN..][..ETHERNET_LEN].to_vec();
    frame.extend([0x45 + options, 0, 0, 56, 0, 0, 0, 0, 64, PROTOCOL_ICMP, 0, 0]);
    frame.extend(THEIRS.ip().octets());
    frame.extend(OURS.ip().octets());
    frame.extend(vec![1; usize::from(options) * 4]);
    frame.extend([UNREACHABLE, code, 0, 0, 0, 0, 0, 0]);
    frame.extend(&sent[NET_HEADER_LEN + ETHERNET_LEN..]);
    frame
}

#[test]
fn answer_names_receiver_and_reason() {
    for (code, reason) in
        [(3, Reason::Refused), (0, Reason::NoWay), (13, Reason::NoWay), (4, Reason::TooLarge)]
    {
        for options in [0, 3] {
            let found = unreachable(&answer(code, options), *OURS.ip());
            assert_eq!(found, Some(Unreachable { source: OURS, destination: THEIRS, reason }));
        }
    }
}

#[test]
fn answers_to_others_and_broken_frames_say_nothing() {
    let frame = answer(3, 0);
    assert_eq!(unreachable(&frame, *THEIRS.ip()), None);
    for len in 0..frame.len() {
        assert_eq!(unreachable(&frame[..len], *OURS.ip()), None, "{len}");
    }
    let mut echo = frame.clone();
    echo[ETHERNET_LEN + IPV4_LEN] = 8;
    assert_eq!(unreachable(&echo, *OURS.ip()), None);
    let mut seed = 1u64;
    for _ in 0..20_000 {
        let mut frame = frame.clone();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        frame[(seed >> 33) as usize % 70] = (seed >> 56) as u8;
        let _ = unreachable(&frame, *OURS.ip());
    }
}
