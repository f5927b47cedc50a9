//! Answers of receivers and routers that say a datagram did not arrive: ICMP "destination
//! unreachable" (RFC 792), which carries the beginning of that datagram.
//!
//! Pure: bytes in, values out.

use crate::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, IPV4_LEN, PROTOCOL_UDP, UDP_LEN};
use core::net::{Ipv4Addr, SocketAddrV4};

const PROTOCOL_ICMP: u8 = 1;
const ICMP_LEN: usize = 8;
const UNREACHABLE: u8 = 3;
const CODE_PROTOCOL: u8 = 2;
const CODE_PORT: u8 = 3;
const CODE_TOO_LARGE: u8 = 4;

/// Why a datagram did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody listens at the receiver's port.
    Refused,
    /// A router knows no way, or may not use it.
    NoWay,
    /// A link on the way takes only smaller packets.
    TooLarge,
}

/// An answer to a datagram of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Where the datagram came from: us.
    pub source: SocketAddrV4,
    /// Where it was sent to.
    pub destination: SocketAddrV4,
    /// Why it did not arrive.
    pub reason: Reason,
}

/// Reads a frame that arrived for `ours`; `None` if it is something else.
#[must_use]
pub fn unreachable(frame: &[u8], ours: Ipv4Addr) -> Option<Unreachable> {
    if frame.get(12..ETHERNET_LEN)? != ETHERTYPE_IPV4 {
        return None;
    }
    let (outer, icmp) = ipv4(frame.get(ETHERNET_LEN..)?, PROTOCOL_ICMP)?;
    let (head, quoted) = icmp.split_first_chunk::<ICMP_LEN>()?;
    let &[kind, code, ..] = head;
    if outer.destination != ours || kind != UNREACHABLE {
        return None;
    }
    let (inner, udp) = ipv4(quoted, PROTOCOL_UDP)?;
    if inner.source != ours {
        return None;
    }
    let &[a, b, c, d, ..] = udp.first_chunk::<UDP_LEN>()?;
    let reason = match code {
        CODE_PROTOCOL | CODE_PORT => Reason::Refused,
        CODE_TOO_LARGE => Reason::TooLarge,
        _ => Reason::NoWay,
    };
    Some(Unreachable {
        source: SocketAddrV4::new(inner.source, u16::from_be_bytes([a, b])),
        destination: SocketAddrV4::new(inner.destination, u16::from_be_bytes([c, d])),
        reason,
    })
}

struct Addresses {
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

/// The addresses of an IPv4 packet with `protocol`, and what its header is in front of.
fn ipv4(packet: &[u8], protocol: u8) -> Option<(Addresses, &[u8])> {
    let header = packet.first_chunk::<IPV4_LEN>()?;
    let (version, words) = (header[0] >> 4, usize::from(header[0] & 0x0f));
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if version != 4 || words < 5 || fragment != 0 || header[9] != protocol {
        return None;
    }
    let address = |at: usize| {
        let bytes = header.get(at..)?.first_chunk::<4>()?;
        Some(Ipv4Addr::from(*bytes))
    };
    let addresses = Addresses { source: address(12)?, destination: address(16)? };
    Some((addresses, packet.get(words * 4..)?))
}

#[cfg(test)]
#[path = "icmp_tests.rs"]
mod tests;
