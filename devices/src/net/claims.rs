//! What a frame says of who sent it: the addresses that its ARP, neighbour discovery and IP headers
//! claim for its sender. Whether they are the sender's is for the owner of the link to say.
//!
//! Everything here was written by a guest. What is read here has to be what is sent: a caller reads
//! the headers out of the guest's memory once, and sends what it has read. What hides its headers
//! from this reader, but not from a receiver, is an offence by itself ([`Offence::Hidden`]):
//! more than two VLAN tags, IP in a SNAP frame, neighbour discovery in fragments (RFC 6980),
//! headers beyond [`FARTHEST`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::MacAddr;
use super::packet::{IPV4, IPV6, UDP, be16};
use crate::counters::SPOOFED;
use moirai_abi::wire::ETHERNET_HEADER_LEN;

/// So many bytes of a frame are enough for most: a VLAN tag and an IPv6 header, or ports.
pub(super) const USUAL: usize = 58;
/// And so many for every frame that is let through.
pub(super) const FARTHEST: usize = 256;

const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
/// 802.1Q, 802.1ad, and what older switches use for the latter.
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const MOST_TAGS: usize = 2;
/// Below this a type is a length: an LLC header follows.
const FIRST_TYPE: u16 = 0x0600;
/// LLC of a frame that has its type in a SNAP header.
const SNAP: [u8; 3] = [0xaa, 0xaa, 0x03];
/// Bridges keep these for each other: 01:80:c2:00:00:00 to 0f (IEEE 802.1D, 7.12.6).
const BRIDGES: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];
/// Ethernet, IPv4, addresses of 6 and of 4 bytes (RFC 826).
const ARP_OF_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_LEN: usize = 28;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
/// Hop-by-hop, routing, destination options, mobility, HIP, shim6 (RFC 6564: all of one form).
const EXTENSIONS: [u8; 6] = [0, 43, 60, 135, 139, 140];
/// Source and destination port of what servers of DHCP and DHCPv6 say.
const DHCP_SERVER: [u8; 4] = [0, 67, 0, 68];
const DHCP_CLIENT: [u8; 4] = [0, 68, 0, 67];
const DHCPV6_SERVER: [u8; 4] = [2, 35, 2, 34];
/// ICMPv6 (RFC 4861, RFC 2710, RFC 3810).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// What a host may say before it has an address.
const WITHOUT_ADDRESS: [u8; 5] = [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, 131, 132, 143];
/// Options that carry a link-layer address of the sender.
const LINK_LAYER_OPTIONS: [u8; 2] = [1, 2];

/// Why a frame is not its sender's to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// Its source address is not the card's.
    #[error("a source address that is not the card's")]
    Mac,
    /// ARP: the sender's hardware or protocol address is somebody else's.
    #[error("an ARP sender that it is not")]
    Arp,
    /// The source address of its IP header is somebody else's, or nobody's.
    #[error("an IP source address that is not its own")]
    Address,
    /// Neighbour discovery: a link-layer option or the target of an advertisement is somebody
    /// else's.
    #[error("a neighbour that it is not")]
    Neighbour,
    /// What only routers, servers of DHCP and bridges say.
    #[error("the words of a router, of a DHCP server or of a bridge")]
    Router,
    /// Its headers are made so that who checks does not see what a receiver may.
    #[error("headers that cannot be read")]
    Hidden,
}

impl Offence {
    /// All, in the order of their counters.
    pub const ALL: [Self; SPOOFED] =
        [Self::Mac, Self::Arp, Self::Address, Self::Neighbour, Self::Router, Self::Hidden];

    /// Its place in [`Offence::ALL`].
    #[must_use]
    pub fn place(self) -> usize {
        Self::ALL.iter().position(|other| *other == self).unwrap_or(0)
    }
}

/// The addresses that a frame claims for its sender, each with what it is if that is not so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims([Option<(IpAddr, Offence)>; 2]);

impl Claims {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, Offence)> + '_ {
        self.0.iter().flatten().copied()
    }
}

/// Why claims could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// There are not enough bytes; [`Offence::Hidden`], if there are no more.
    Cut,
    Offence(Offence),
}

impl From<Offence> for Unread {
    fn from(offence: Offence) -> Self {
        Self::Offence(offence)
    }
}

/// Reads the first bytes of a frame that the card with the address `own` sends.
pub(super) fn read(front: &[u8], own: MacAddr) -> Result<Claims, Unread> {
    if front.starts_with(&BRIDGES) && front.get(5).is_some_and(|last| *last < 16) {
        return Err(Offence::Router.into());
    }
    if array::<6>(front, 6)? != own.0 {
        return Err(Offence::Mac.into());
    }
    let (mut kind, mut at) = (word(front, ETHERNET_HEADER_LEN - 2)?, ETHERNET_HEADER_LEN);
    let mut tags = 0;
    while VLAN_TAGS.contains(&kind) {
        tags += 1;
        if tags > MOST_TAGS {
            return Err(Offence::Hidden.into());
        }
        kind = word(front, at + 2)?;
        at += 4;
    }
    match kind {
        ARP | RARP => arp(front, at, own),
        IPV4 => ipv4(front, at),
        IPV6 => ipv6(front, at, own),
        0..FIRST_TYPE if front.get(at..at + 3) == Some(&SNAP) => Err(Offence::Hidden.into()),
        _ => Ok(Claims::default()),
    }
}

fn arp(front: &[u8], at: usize, own: MacAddr) -> Result<Claims, Unread> {
    let packet = array::<ARP_LEN>(front, at)?;
    if !packet.starts_with(&ARP_OF_ETHERNET) {
        return Err(Offence::Hidden.into());
    }
    if array::<6>(&packet, 8)? != own.0 {
        return Err(Offence::Arp.into());
    }
    // A probe has no sender yet (RFC 5227).
    let sender = Ipv4Addr::from(array::<4>(&packet, 14)?);
    if sender.is_unspecified() { Ok(Claims::default()) } else { claim(sender.into(), Offence::Arp) }
}

fn ipv4(front: &[u8], at: usize) -> Result<Claims, Unread> {
    let header = array::<IPV4_HEADER_LEN>(front, at)?;
    let [first, ..] = header;
    if first >> 4 != 4 || first & 15 < 5 {
        return Err(Offence::Hidden.into());
    }
    let (fragment, protocol) = (word(&header, 6)?, header[9]);
    let source = Ipv4Addr::from(array::<4>(&header, 12)?);
    // The first part of a packet has its ports, the others have none.
    let ports = if protocol == UDP && fragment & 0x1fff == 0 {
        Some(array::<4>(front, at + usize::from(first & 15) * 4)?)
    } else {
        None
    };
    if ports == Some(DHCP_SERVER) {
        return Err(Offence::Router.into());
    }
    if !source.is_unspecified() {
        return claim(source.into(), Offence::Address);
    }
    let asks = ports == Some(DHCP_CLIENT) && fragment & 0x3fff == 0;
    if asks || protocol == IGMP { Ok(Claims::default()) } else { Err(Offence::Address.into()) }
}

fn ipv6(front: &[u8], at: usize, own: MacAddr) -> Result<Claims, Unread> {
    let header = array::<IPV6_HEADER_LEN>(front, at)?;
    if header[0] >> 4 != 6 {
        return Err(Offence::Hidden.into());
    }
    let source = Ipv6Addr::from(array::<16>(&header, 8)?);
    let length = usize::from(word(&header, 4)?);
    let (mut next, mut place) = (header[6], at + IPV6_HEADER_LEN);
    let end = place + length;
    let mut fragment = false;
    let target = loop {
        match next {
            kind if EXTENSIONS.contains(&kind) => {
                let [following, eights] = array::<2>(front, place)?;
                (next, place) = (following, place + (usize::from(eights) + 1) * 8);
            }
            AUTHENTICATION => {
                let [following, fours] = array::<2>(front, place)?;
                (next, place) = (following, place + (usize::from(fours) + 2) * 4);
            }
            FRAGMENT => {
                let part = array::<8>(front, place)?;
                if word(&part, 2)? & 0xfff8 != 0 {
                    break None;
                }
                (next, place, fragment) = (part[0], place + 8, true);
            }
            UDP if array::<4>(front, place)? == DHCPV6_SERVER => {
                return Err(Offence::Router.into());
            }
            ICMPV6 => {
                let message = Message { front, place, end, fragment };
                break message.target(own, source.is_unspecified())?;
            }
            _ if source.is_unspecified() => return Err(Offence::Address.into()),
            _ => break None,
        }
    };
    let mut claims = match source.is_unspecified() {
        true => Claims::default(),
        false => claim(source.into(), Offence::Address)?,
    };
    if let Some(target) = target {
        claims.0[1] = claim(target.into(), Offence::Neighbour)?.0[0];
    }
    Ok(claims)
}

/// An ICMPv6 message.
struct Message<'a> {
    front: &'a [u8],
    place: usize,
    end: usize,
    fragment: bool,
}

impl Message<'_> {
    /// The target of an advertisement, which its sender claims.
    fn target(&self, own: MacAddr, homeless: bool) -> Result<Option<Ipv6Addr>, Unread> {
        let [kind] = array::<1>(self.front, self.place)?;
        let options = match kind {
            ROUTER_ADVERTISEMENT | REDIRECT => return Err(Offence::Router.into()),
            _ if homeless && !WITHOUT_ADDRESS.contains(&kind) => {
                return Err(Offence::Address.into());
            }
            ROUTER_SOLICITATION => 8,
            NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => 24,
            _ => return Ok(None),
        };
        if self.fragment {
            return Err(Offence::Hidden.into());
        }
        self.check_options(self.place + options, own)?;
        let target = || array::<16>(self.front, self.place + 8).map(Ipv6Addr::from);
        (kind == NEIGHBOUR_ADVERTISEMENT).then(target).transpose()
    }

    fn check_options(&self, mut at: usize, own: MacAddr) -> Result<(), Unread> {
        while at < self.end {
            let [kind, eights] = array::<2>(self.front, at)?;
            if LINK_LAYER_OPTIONS.contains(&kind) && array::<6>(self.front, at + 2)? != own.0 {
                return Err(Offence::Neighbour.into());
            }
            if eights == 0 {
                return Err(Offence::Hidden.into());
            }
            at += usize::from(eights) * 8;
        }
        // Beyond its end there is nothing for a receiver; before it, all has to be there.
        if at == self.end { Ok(()) } else { Err(Offence::Hidden.into()) }
    }
}

/// An address that a host can have.
fn claim(address: IpAddr, otherwise: Offence) -> Result<Claims, Unread> {
    let nobodys = match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_loopback(),
        IpAddr::V6(v6) => {
            v6.is_multicast()
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.to_ipv4_mapped().is_some()
        }
    };
    if nobodys { Err(otherwise.into()) } else { Ok(Claims([Some((address, otherwise)), None])) }
}

fn word(bytes: &[u8], at: usize) -> Result<u16, Unread> {
    be16(bytes, at).ok_or(Unread::Cut)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Unread> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Unread::Cut)
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
