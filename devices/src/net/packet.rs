//! Reading Ethernet and IP headers, as far as steering and segmentation have to. Everything here
//! was written by a guest or by somebody out on the network, so every field may lie.

use std::ops::Range;

use moirai_abi::wire::ETHERNET_HEADER_LEN;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
/// 802.1Q and 802.1ad.
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];
/// Hop-by-hop options, routing, destination options: IPv6 headers of the same form.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const IPV6_HEADER_LEN: usize = 40;

/// Where the headers of an IP packet lie in its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ip {
    pub(super) version_6: bool,
    /// Offset of the IP header.
    pub(super) network: usize,
    /// Offset of the header after it; of what is left of it in a fragment.
    pub(super) transport: usize,
    /// What that header is.
    pub(super) protocol: u8,
    /// A part of a larger packet.
    pub(super) fragment: bool,
    /// Source and destination address.
    pub(super) addresses: Range<usize>,
}

/// Finds the headers in the first bytes of a frame; `None` if it is not IP or they are cut off.
pub(super) fn ip(front: &[u8]) -> Option<Ip> {
    let (network, kind) = match be16(front, ETHERNET_HEADER_LEN - 2)? {
        tag if VLAN_TAGS.contains(&tag) => (ETHERNET_HEADER_LEN + 4, be16(front, 16)?),
        kind => (ETHERNET_HEADER_LEN, kind),
    };
    match (kind, front.get(network)? >> 4) {
        (IPV4, 4) => ipv4(front, network),
        (IPV6, 6) => ipv6(front, network),
        _ => None,
    }
}

fn ipv4(front: &[u8], network: usize) -> Option<Ip> {
    let words = usize::from(front.get(network)? & 15);
    let more_or_later = be16(front, network + 6)? & 0x3fff;
    let protocol = *front.get(network + 9)?;
    (words >= 5).then_some(Ip {
        version_6: false,
        network,
        transport: network + words * 4,
        protocol,
        fragment: more_or_later != 0,
        addresses: network + 12..network + 20,
    })
}

fn ipv6(front: &[u8], network: usize) -> Option<Ip> {
    let mut protocol = *front.get(network + 6)?;
    let mut transport = network + IPV6_HEADER_LEN;
    while EXTENSIONS.contains(&protocol) {
        protocol = *front.get(transport)?;
        transport += (usize::from(*front.get(transport + 1)?) + 1) * 8;
    }
    let addresses = network + 8..network + IPV6_HEADER_LEN;
    // A fragment says so in a header of its own, which is not looked into.
    Some(Ip { version_6: true, network, transport, protocol, fragment: false, addresses })
}

/// The big-endian word at `at`.
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Which flow a frame belongs to, as a number: frames of one TCP or UDP connection, and those of
/// one pair of addresses otherwise, have the same.
pub(super) fn flow(frame: &[u8]) -> u32 {
    let Some(ip) = ip(frame) else { return 0 };
    let has_ports = !ip.fragment && [TCP, UDP].contains(&ip.protocol);
    let ports = if has_ports { ip.transport..ip.transport + 4 } else { 0..0 };
    let addresses = frame.get(ip.addresses).unwrap_or_default();
    let key = addresses.iter().chain(frame.get(ports).unwrap_or_default());
    // FNV-1a; its low bits alone depend on the low bits of the key alone.
    let hash =
        key.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash ^ hash >> 16
}
