//! Tests of packet headers, against smoltcp's parsers as an independent judge.
#![allow(clippy::cast_possible_truncation, reason = "tests cut numbers to size on purpose")]

use super::*;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpAddress, Ipv4Packet, UdpPacket};

fn flow() -> UdpFlow {
    UdpFlow {
        source_mac: Mac([2, 0, 0, 0, 0, 1]),
        destination_mac: Mac([2, 0, 0, 0, 0, 2]),
        source: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 5004),
        destination: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 40000),
        ttl: 7,
    }
}

/// Does what the device does: sums up from `csum_start`, stores at `csum_offset` behind it.
fn complete_checksum(packet: &mut [u8]) {
    let start = NET_HEADER_LEN + usize::from(u16::from_le_bytes([packet[6], packet[7]]));
    let at = start + usize::from(u16::from_le_bytes([packet[8], packet[9]]));
    let checksum = !fold(sum(&packet[start..]));
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn headers_are_what_a_receiver_expects() {
    for payload_len in [0usize, 1, 12, 1327, 1328, 1472] {
        let payload: Vec<u8> = (0..payload_len).map(|index| index as u8).collect();
        let headers = udp_headers(&flow(), payload_len as u16, UdpChecksum::Device);
        let mut packet = [&headers[..], &payload].concat();
        assert_eq!(packet[0], NEEDS_CSUM);
        complete_checksum(&mut packet);

        let ethernet = EthernetFrame::new_checked(&packet[NET_HEADER_LEN..]).unwrap();
        assert_eq!(ethernet.ethertype(), EthernetProtocol::Ipv4);
        assert_eq!(ethernet.src_addr().0, flow().source_mac.0);
        assert_eq!(ethernet.dst_addr().0, flow().destination_mac.0);
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        assert!(ip.verify_checksum());
        assert!(ip.dont_frag());
        assert_eq!(ip.hop_limit(), 7);
        assert_eq!((ip.src_addr(), ip.dst_addr()), (*flow().source.ip(), *flow().destination.ip()));
        let udp = UdpPacket::new_checked(ip.payload()).unwrap();
        let (from, to) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
        assert!(udp.verify_checksum(&from, &to), "{payload_len}");
        assert_eq!((udp.src_port(), udp.dst_port()), (5004, 40000));
        assert_eq!(udp.payload(), payload);
    }
}

#[test]
fn without_a_device_that_sums_there_is_no_udp_checksum() {
    let headers = udp_headers(&flow(), 100, UdpChecksum::Absent);
    assert_eq!(headers[..NET_HEADER_LEN], [0; NET_HEADER_LEN]);
    let udp = &headers[UDP_HEADERS_LEN - UDP_LEN..];
    assert_eq!(udp[6..8], [0, 0]);
}

#[test]
fn multicast_groups_map_to_ethernet_addresses() {
    let mac = Mac::of_multicast(Ipv4Addr::new(239, 129, 2, 3));
    assert_eq!(mac, Mac([1, 0, 0x5e, 1, 2, 3]));
}
