//! Who is at which Ethernet address: a small ARP table for packets that the network stack does not
//! build itself. It learns from every ARP packet that arrives, and returns to its caller the
//! requests that it wants sent. The stack answers requests for our own address.
//!
//! Pure: time is an argument, frames are byte slices.

use crate::frame::{ETHERNET_LEN, Mac};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Between two requests for an address that does not answer.
const RETRY_NS: u64 = 500_000_000;
/// After this an entry is asked for again; it stays in use meanwhile.
const REFRESH_NS: u64 = 30_000_000_000;
/// After this an entry that did not answer meanwhile counts as gone.
const EXPIRE_NS: u64 = 60_000_000_000;
/// More addresses than this are not looked after.
const ENTRIES_MAX: usize = 256;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERNET_IPV4_SIZES: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_LEN: usize = 28;
const OPERATION_REQUEST: [u8; 2] = [0, 1];

/// Length of an ARP frame.
pub const ARP_FRAME_LEN: usize = ETHERNET_LEN + ARP_LEN;

#[derive(Debug)]
struct Entry {
    address: Ipv4Addr,
    mac: Option<Mac>,
    learnt_at: u64,
    /// When it may be asked for again; `None`: it has never been.
    ask_at: Option<u64>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Neighbours {
    entries: Vec<Entry>,
}

impl Neighbours {
    /// The Ethernet address behind `address`, if known; addresses that are asked for are looked
    /// after from then on, see [`Neighbours::due_request`].
    pub fn lookup(&mut self, address: Ipv4Addr) -> Option<Mac> {
        if address.is_multicast() {
            return Some(Mac::of_multicast(address));
        }
        if address.is_broadcast() {
            return Some(Mac::BROADCAST);
        }
        if let Some(entry) = self.entries.iter().find(|entry| entry.address == address) {
            return entry.mac;
        }
        if self.entries.len() < ENTRIES_MAX {
            self.entries.push(Entry { address, mac: None, learnt_at: 0, ask_at: None });
        }
        None
    }

    /// The next address to ask for, if any; the caller sends [`request_frame`] and calls again.
    #[must_use]
    pub fn due_request(&mut self, now: u64) -> Option<Ipv4Addr> {
        let entry = self.entries.iter_mut().find(|entry| {
            let stale = entry.mac.is_none() || now.saturating_sub(entry.learnt_at) > REFRESH_NS;
            stale && entry.ask_at.is_none_or(|at| at <= now)
        })?;
        entry.ask_at = Some(now.saturating_add(RETRY_NS));
        if now.saturating_sub(entry.learnt_at) > EXPIRE_NS {
            entry.mac = None;
        }
        Some(entry.address)
    }

    /// Learns from a frame that arrived, if it is ARP from somebody we look after.
    pub fn learn(&mut self, frame: &[u8], now: u64) {
        let Some((address, mac)) = sender(frame) else { return };
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.address == address) {
            entry.mac = Some(mac);
            entry.learnt_at = now;
        }
    }
}

/// A frame that asks everybody who has `wanted`.
#[must_use]
pub fn request_frame(our_mac: Mac, our_address: Ipv4Addr, wanted: Ipv4Addr) -> [u8; ARP_FRAME_LEN] {
    let mut frame = [0; ARP_FRAME_LEN];
    let (ethernet, arp) = frame.split_at_mut(ETHERNET_LEN);
    ethernet[0..6].copy_from_slice(&Mac::BROADCAST.0);
    ethernet[6..12].copy_from_slice(&our_mac.0);
    ethernet[12..14].copy_from_slice(&ETHERTYPE_ARP);
    arp[0..6].copy_from_slice(&ETHERNET_IPV4_SIZES);
    arp[6..8].copy_from_slice(&OPERATION_REQUEST);
    arp[8..14].copy_from_slice(&our_mac.0);
    arp[14..18].copy_from_slice(&our_address.octets());
    arp[24..28].copy_from_slice(&wanted.octets());
    frame
}

/// The sender of an ARP frame (request or reply).
fn sender(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    if frame.get(12..14)? != ETHERTYPE_ARP {
        return None;
    }
    let arp = frame.get(ETHERNET_LEN..ARP_FRAME_LEN)?;
    if arp.get(0..6)? != ETHERNET_IPV4_SIZES {
        return None;
    }
    let mac: [u8; 6] = arp.get(8..14)?.try_into().ok()?;
    let address: [u8; 4] = arp.get(14..18)?.try_into().ok()?;
    // A multicast sender address is nobody's.
    (mac[0] & 1 == 0).then_some((Ipv4Addr::from(address), Mac(mac)))
}

#[cfg(test)]
#[path = "neighbours_tests.rs"]
mod tests;
