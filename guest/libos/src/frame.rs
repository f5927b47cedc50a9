//! Outgoing frames: virtio-net header, Ethernet, IPv4 and UDP in front of a payload that lies
//! elsewhere. The device computes the UDP checksum (virtio 1.2, section 5.1.6.2), so the driver
//! does not read the payload. For a device that cannot do that, frames have no checksum, as IPv4
//! allows.
//!
//! Pure: bytes in, bytes out.

use core::net::{Ipv4Addr, SocketAddrV4};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address of an IPv4 multicast group (RFC 1112, section 6.4).
    #[must_use]
    pub fn of_multicast(group: Ipv4Addr) -> Self {
        let [_, b, c, d] = group.octets();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }
}

/// Length of `virtio_net_hdr` with VIRTIO_F_VERSION_1.
pub const NET_HEADER_LEN: usize = 12;
/// Length of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Length of a UDP header.
pub const UDP_LEN: usize = 8;
/// Everything in front of a UDP payload.
pub const UDP_HEADERS_LEN: usize = NET_HEADER_LEN + ETHERNET_LEN + IPV4_LEN + UDP_LEN;
/// Greatest UDP payload of an IPv4 packet.
pub const UDP_PAYLOAD_MAX: usize = 65535 - IPV4_LEN - UDP_LEN;

/// [`UDP_LEN`] and [`IPV4_LEN`] as the headers count them.
const UDP_LEN_16: u16 = 8;
const IPV4_LEN_16: u16 = 20;
const NEEDS_CSUM: u8 = 1;
pub(crate) const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const DONT_FRAGMENT: [u8; 2] = [0x40, 0x00];
pub(crate) const PROTOCOL_UDP: u8 = 17;
const UDP_START: u16 = 34; // from the start of the Ethernet header
const UDP_CHECKSUM_OFFSET: u16 = 6; // from the start of the UDP header

/// What a datagram may pass if nobody says otherwise.
pub const TTL: u8 = 64;

/// Whose job the UDP checksum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpChecksum {
    /// The device completes it (VIRTIO_NET_F_CSUM).
    Device,
    /// There is none.
    Absent,
}

/// Both ends of a flow of UDP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFlow {
    /// Our Ethernet address.
    pub source_mac: Mac,
    /// The next hop's.
    pub destination_mac: Mac,
    /// Our address and port.
    pub source: SocketAddrV4,
    /// The receiver's.
    pub destination: SocketAddrV4,
    /// Routers that the packet may pass.
    pub ttl: u8,
}

/// Writes all headers of a packet with `payload_len` bytes of UDP payload, at most
/// [`UDP_PAYLOAD_MAX`].
#[must_use]
pub fn udp_headers(
    flow: &UdpFlow,
    payload_len: u16,
    checksum: UdpChecksum,
) -> [u8; UDP_HEADERS_LEN] {
    let udp_len = payload_len.saturating_add(UDP_LEN_16);
    let mut out = [0; UDP_HEADERS_LEN];
    let (net, frame) = out.split_at_mut(NET_HEADER_LEN);
    let (ethernet, packet) = frame.split_at_mut(ETHERNET_LEN);
    let (ipv4, udp) = packet.split_at_mut(IPV4_LEN);

    if checksum == UdpChecksum::Device {
        net[0] = NEEDS_CSUM;
        net[6..8].copy_from_slice(&UDP_START.to_le_bytes());
        net[8..10].copy_from_slice(&UDP_CHECKSUM_OFFSET.to_le_bytes());
    }

    ethernet[0..6].copy_from_slice(&flow.destination_mac.0);
    ethernet[6..12].copy_from_slice(&flow.source_mac.0);
    ethernet[12..14].copy_from_slice(&ETHERTYPE_IPV4);

    ipv4[0] = 0x45; // version 4, five words
    ipv4[2..4].copy_from_slice(&udp_len.saturating_add(IPV4_LEN_16).to_be_bytes());
    ipv4[6..8].copy_from_slice(&DONT_FRAGMENT);
    ipv4[8] = flow.ttl;
    ipv4[9] = PROTOCOL_UDP;
    ipv4[12..16].copy_from_slice(&flow.source.ip().octets());
    ipv4[16..20].copy_from_slice(&flow.destination.ip().octets());
    let header_sum = !fold(sum(ipv4));
    ipv4[10..12].copy_from_slice(&header_sum.to_be_bytes());

    udp[0..2].copy_from_slice(&flow.source.port().to_be_bytes());
    udp[2..4].copy_from_slice(&flow.destination.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    if checksum == UdpChecksum::Device {
        // The sum of the pseudo header, not complemented: the device adds the rest to it.
        let addresses = sum(&ipv4[12..20]);
        let pseudo = fold(addresses + u32::from(PROTOCOL_UDP) + u32::from(udp_len));
        udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
    }
    out
}

/// Sum of big-endian 16-bit words; an odd last byte counts as a high byte.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(0, |total, word| {
        let high = u32::from(word.first().copied().unwrap_or(0));
        let low = u32::from(word.get(1).copied().unwrap_or(0));
        total + (high << 8 | low)
    })
}

/// Folds carries in until 16 bits are left.
fn fold(mut total: u32) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    // The loop leaves nothing above the low half.
    (total & 0xffff) as u16
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
