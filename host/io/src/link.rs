//! Whose packet goes to a link next. Owns the policy, the pacer and the TAP of one link; the packets
//! themselves stay in their guests' memory.

use moirai_devices::backend::Link as _;
use moirai_devices::backend::tap::Tap;
use moirai_devices::net::tx::TxPacket;
use moirai_devices::net::{MacAddr, wire};
use moirai_scheduler::{Account, ClientId, Head, Nanos, Pick, Policy};

use super::DeviceId;
use super::disk::announce;
use super::wire::Wire;

/// Room for the largest packet a TAP can give: vnet header, jumbo frame.
const RECEIVE_BYTES: usize = 65_562 + 12;

/// One link and the clients that share it.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) mtu: u16,
    wire: Wire,
    tap: Tap,
    addresses: Vec<(MacAddr, DeviceId)>,
    pub(super) buffer: Vec<u8>,
    pub(super) sent: u64,
    pub(super) unclaimed: u64,
    pub(super) refused: u64,
    /// Packets may wait in the TAP although it reports no news.
    pub(super) unread: bool,
}

impl Link {
    pub(super) fn new(
        name: String,
        rate_bps: u64,
        mtu: u16,
        policy: Box<dyn Policy>,
        tap: Tap,
    ) -> Self {
        let largest = wire::largest_packet(mtu, tap.offload().segments());
        Self {
            name,
            mtu,
            wire: Wire::new(rate_bps, largest, policy),
            tap,
            addresses: Vec::new(),
            buffer: vec![0; RECEIVE_BYTES],
            sent: 0,
            unclaimed: 0,
            refused: 0,
            unread: false,
        }
    }

    pub(super) fn policy(&mut self) -> &mut dyn Policy {
        self.wire.policy()
    }

    pub(super) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Chooses whose packet is next, if the wire is free.
    pub(super) fn pick(&mut self, now: Nanos) -> Option<Pick> {
        self.wire.pick(now)
    }

    /// Notes which packets have left the wire; see [`Wire::settle`].
    pub(super) fn settle(&mut self, now: Nanos) {
        self.wire.settle(now);
    }

    /// Sends the packet that was picked. Its slice pays for its time on the wire now; whether it was
    /// late shows when it has left.
    pub(super) fn send(&mut self, pick: Pick, packet: &TxPacket, now: Nanos) {
        let wire_time = self.wire_time(packet);
        match self.tap.send(packet) {
            Ok(true) => self.sent += 1,
            // Like any wire, the link drops what it cannot carry; the time is used all the same.
            Ok(false) | Err(_) => self.refused += 1,
        }
        self.wire.send(&pick, wire_time, now);
    }

    /// Takes the next packet that came in into `buffer`; its length.
    pub(super) fn receive(&mut self) -> Option<usize> {
        let received = self.tap.receive(&mut self.buffer).ok().flatten();
        self.unread = received.is_some();
        received
    }

    pub(super) fn wire_time(&self, packet: &TxPacket) -> Nanos {
        self.wire.pacer().wire_time(packet.wire_bytes())
    }

    /// A device's first waiting packet is this one now, or there is none.
    pub(super) fn head(&mut self, device: DeviceId, head: Option<Head>, now: Nanos) {
        announce(self.wire.policy(), device, head, now);
    }

    /// When to pick again although nothing happens; `backlog`: somebody has a packet waiting. A
    /// wire that is busy is asked again even without a backlog, because its queues are polled and
    /// not armed until it is free.
    pub(super) fn timeout(&self, backlog: bool, now: Nanos) -> Option<Nanos> {
        if !self.wire.pacer().is_free(now) {
            Some(self.wire.pacer().free_at())
        } else if backlog {
            self.wire.known().timeout(now)
        } else {
            None
        }
    }

    /// Whether a packet could be sent at once.
    pub(super) fn is_free(&self, now: Nanos) -> bool {
        self.wire.pacer().is_free(now)
    }

    pub(super) fn account(&self, device: DeviceId) -> Account {
        self.wire.known().account(ClientId(device.0)).unwrap_or_default()
    }

    pub(super) fn busy(&self) -> Nanos {
        self.wire.pacer().busy()
    }

    /// Whose address this is.
    pub(super) fn owner(&self, mac: MacAddr) -> Option<DeviceId> {
        self.addresses.iter().find(|(address, _)| *address == mac).map(|&(_, device)| device)
    }

    /// All devices on the link.
    pub(super) fn devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.addresses.iter().map(|&(_, device)| device)
    }

    pub(super) fn enlist(&mut self, mac: MacAddr, device: DeviceId) {
        self.addresses.push((mac, device));
    }

    pub(super) fn strike(&mut self, device: DeviceId) {
        self.addresses.retain(|&(_, other)| other != device);
    }
}
