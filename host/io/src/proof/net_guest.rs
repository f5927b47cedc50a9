//! A guest with a card: sends packets, gives buffers for those that come in.

use std::os::unix::net::UnixStream;

use moirai_devices::mock::{Guest, readable, writable};
use vm_memory::{Bytes as _, GuestAddress};

use super::chance::Chance;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const VNET_HEADER: u32 = 12;

/// The guest.
pub(super) struct NetGuest {
    pub(super) guest: Guest,
    pub(super) mac: [u8; 6],
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) received: u64,
}

impl NetGuest {
    pub(super) fn boot(socket: UnixStream, mac: [u8; 6], chance: &mut Chance) -> Self {
        let guest = Guest::boot(socket, 2, 0, chance.permille(500));
        Self { guest, mac, sent: 0, answered: 0, received: 0 }
    }

    /// Sends a packet, or gives a buffer; whether it did.
    pub(super) fn act(&mut self, chance: &mut Chance) -> bool {
        let number = if chance.permille(600) { TRANSMIT } else { RECEIVE };
        let Some(slot) = self.guest.free_slot(number) else { return false };
        if self.guest.queues[number].stopping {
            return false;
        }
        let data = self.guest.data(number, slot);
        if number == RECEIVE {
            self.guest.post(number, slot, &[writable(data, 2048)]);
            return true;
        }
        let to = [0x52, 0, 0, 0, 0, 0xee];
        let frame = match chance.below(10) {
            0 => claim(to, self.mac, chance.of(&[0, 1]), [0, chance.of(&[0, 1, 2, 3, 4, 5])]),
            1 => [&to[..], &self.mac, &[8, 6], &chance.bytes(40)].concat(),
            2 => [&to[..], &self.mac, &[0x86, 0xdd, 0x60], &chance.bytes(90)].concat(),
            _ => frame(to, self.mac, chance),
        };
        self.send(&frame)
    }

    /// Sends this, if it can.
    pub(super) fn send(&mut self, frame: &[u8]) -> bool {
        let number = TRANSMIT;
        let Some(slot) = self.guest.free_slot(number) else { return false };
        let data = self.guest.data(number, slot);
        let header = self.guest.header(number, slot);
        self.guest.memory.write_slice(&[0; 12], GuestAddress(header)).unwrap();
        self.guest.memory.write_slice(frame, GuestAddress(data)).unwrap();
        let length = u32::try_from(frame.len()).unwrap();
        self.guest.post(number, slot, &[readable(header, VNET_HEADER), readable(data, length)]);
        self.sent += 1;
        true
    }

    /// Looks at what came back.
    pub(super) fn look(&mut self) {
        if self.guest.interrupted(TRANSMIT) {
            while self.guest.returned(TRANSMIT).is_some() {
                self.answered += 1;
            }
            self.guest.await_interrupt(TRANSMIT);
        } else {
            assert!(!self.guest.has_news(TRANSMIT), "a packet whose return nobody was told of");
        }
        while let Some((slot, len)) = self.guest.returned(RECEIVE) {
            self.received += 1;
            let data = GuestAddress(self.guest.data(RECEIVE, slot) + u64::from(VNET_HEADER));
            let destination: [u8; 6] = self.guest.memory.read_obj(data).unwrap();
            let theirs = destination == self.mac || destination[0] & 1 == 1;
            assert!(theirs && len > VNET_HEADER, "a packet for {destination:x?}, {len} bytes");
        }
        if let Some((number, base)) = self.guest.stopped() {
            self.guest.restart(number, base);
        }
    }

    /// Whether all of its packets are its own again.
    pub(super) fn has_all(&self) -> bool {
        self.guest.queues[TRANSMIT].lent.iter().all(|lent| !lent)
    }
}

/// A frame of IPv4 (kind 0) or ARP that says to be from 10.0 and these bytes.
pub(super) fn claim(to: [u8; 6], from: [u8; 6], kind: u8, [high, low]: [u8; 2]) -> Vec<u8> {
    let address = [10, 0, high, low];
    let rest = if kind == 0 {
        [&[8, 0, 0x45][..], &[0; 11], &address, &[10, 0, 0, 1], &[0; 40]].concat()
    } else {
        [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2][..], &from, &address, &[0; 10]].concat()
    };
    [&to[..], &from, &rest].concat()
}

/// A frame of some length.
pub(super) fn frame(to: [u8; 6], from: [u8; 6], chance: &mut Chance) -> Vec<u8> {
    let payload = usize::try_from(chance.between(46, 1400)).unwrap();
    [&to[..], &from[..], &[0x88, 0xb5], &vec![0x5a; payload]].concat()
}
