//! Our own address and network, and where a packet goes first. Pure.

use crate::arg_error::ArgError;
use core::net::Ipv4Addr;

/// An address with the length of its network prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Cidr {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the network prefix, at most 32.
    pub prefix: u8,
}

impl Ipv4Cidr {
    /// Where a packet for `destination` is handed to first, through `gateway` if it is not near.
    #[must_use]
    pub fn next_hop(&self, gateway: Option<Ipv4Addr>, destination: Ipv4Addr) -> NextHop {
        if destination.is_broadcast() || self.broadcast() == Some(destination) {
            NextHop::Everybody
        } else if destination.is_multicast() || self.contains(destination) {
            NextHop::Neighbour(destination)
        } else {
            gateway.map_or(NextHop::None, NextHop::Neighbour)
        }
    }

    /// The address of everybody in this network; the smallest have none (RFC 3021).
    #[must_use]
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        let host_bits = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        (host_bits > 1).then(|| Ipv4Addr::from_bits(self.address.to_bits() | host_bits))
    }

    /// The same, if a host can have this address as its own.
    ///
    /// # Errors
    /// [`ArgError::NoHost`] says why not.
    pub fn check_own(self, key: &'static str) -> Result<Self, ArgError> {
        let Self { address, prefix } = self;
        let why = if address.is_multicast() {
            "that is the address of a group"
        } else if address.is_loopback() {
            "nobody else reaches a loopback address"
        } else if address.is_unspecified() || address.octets()[0] == 0 {
            "that is the address of nobody"
        } else if address.octets()[0] >= 240 {
            "that is the address of no host"
        } else if self.broadcast() == Some(address) {
            "that is everybody's address in its network"
        } else if self.is_network() {
            "that is the address of the network"
        } else {
            return Ok(self);
        };
        Err(ArgError::NoHost { key, address, prefix, why })
    }

    /// Whether the address has no bits behind the prefix. The smallest networks are all hosts.
    fn is_network(&self) -> bool {
        let host_bits = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        host_bits > 1 && self.address.to_bits() & host_bits == 0
    }

    /// Can `gateway` be the way out of this network?
    ///
    /// # Errors
    /// [`ArgError::Gateway`] says why not.
    pub fn check_gateway(&self, gateway: Ipv4Addr) -> Result<(), ArgError> {
        let Self { address, prefix } = *self;
        let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        let no_host = host_bits > 1 && gateway.to_bits() & host_bits == 0;
        let why = if gateway == address {
            "that is our own address"
        } else if !self.contains(gateway) {
            "it is outside our own network"
        } else if no_host || self.broadcast() == Some(gateway) || gateway.is_multicast() {
            "that is no host's address"
        } else {
            return Ok(());
        };
        Err(ArgError::Gateway { gateway, why, address, prefix })
    }

    /// Is `other` in the same network?
    #[must_use]
    pub fn contains(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        (self.address.to_bits() ^ other.to_bits()) & mask == 0
    }
}

/// Who gets a packet first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Whoever is on the link.
    Everybody,
    /// The host or group with this address.
    Neighbour(Ipv4Addr),
    /// There is no way.
    None,
}
