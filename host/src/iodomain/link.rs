//! Whose packet goes to a link next. Owns the policy, the pacer and the TAP of one link; the packets
//! themselves stay in their guests' memory.

use std::collections::VecDeque;

use moirai_devices::backend::Link as _;
use moirai_devices::backend::tap::Tap;
use moirai_devices::net::tx::TxPacket;
use moirai_devices::net::{MacAddr, wire};
use moirai_scheduler::{Account, ClientId, Head, Nanos, Pick, Policy, Ticket};

use super::DeviceId;
use super::disk::announce;
use super::pacer::Pacer;

/// Room for the largest packet a TAP can give: vnet header, jumbo frame.
const RECEIVE_BYTES: usize = 65_562 + 12;

/// One link and the clients that share it.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) mtu: u16,
    policy: Box<dyn Policy>,
    pacer: Pacer,
    /// What was sent and has not left the wire: whose, its time there, its end.
    on_wire: VecDeque<(Ticket, Nanos, Nanos)>,
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
        mut policy: Box<dyn Policy>,
        tap: Tap,
    ) -> Self {
        let pacer = Pacer::new(rate_bps);
        // Whoever wakes may have to wait for one packet of somebody else.
        let largest = wire::largest_packet(mtu, tap.offload().segments());
        policy.set_blocking(pacer.wire_time(largest));
        Self {
            name,
            mtu,
            policy,
            pacer,
            on_wire: VecDeque::new(),
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
        self.policy.as_mut()
    }

    pub(super) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Chooses whose packet is next, if the wire is free.
    pub(super) fn pick(&mut self, now: Nanos) -> Option<Pick> {
        self.settle(now);
        if self.pacer.is_free(now) { self.policy.pick(now) } else { None }
    }

    /// Tells the scheduler about the packets that have left the wire by `now`, as of when they left.
    pub(super) fn settle(&mut self, now: Nanos) {
        while let Some(&(ticket, wire_time, end)) = self.on_wire.front()
            && end <= now
        {
            self.on_wire.pop_front();
            self.policy.complete(ticket, wire_time, end);
        }
    }

    /// Sends the packet that was picked. Its slice pays for its time on the wire now; whether it was
    /// late shows when it has left.
    pub(super) fn send(&mut self, pick: Pick, packet: &TxPacket, now: Nanos) {
        let wire_time = self.pacer.wire_time(packet.wire_bytes());
        match self.tap.send(packet) {
            Ok(true) => self.sent += 1,
            // Like any wire, the link drops what it cannot carry; the time is used all the same.
            Ok(false) | Err(_) => self.refused += 1,
        }
        self.pacer.send(now, wire_time);
        let ticket = self.policy.hand_out(&pick, wire_time, now);
        self.on_wire.push_back((ticket, wire_time, self.pacer.free_at()));
    }

    /// Takes the next packet that came in into `buffer`; its length.
    pub(super) fn receive(&mut self) -> Option<usize> {
        let received = self.tap.receive(&mut self.buffer).ok().flatten();
        self.unread = received.is_some();
        received
    }

    pub(super) fn wire_time(&self, packet: &TxPacket) -> Nanos {
        self.pacer.wire_time(packet.wire_bytes())
    }

    /// A device's first waiting packet is this one now, or there is none.
    pub(super) fn head(&mut self, device: DeviceId, head: Option<Head>, now: Nanos) {
        announce(self.policy.as_mut(), device, head, now);
    }

    /// When to pick again although nothing happens; `backlog`: somebody has a packet waiting. A
    /// wire that is busy is asked again even without a backlog, because its queues are polled and
    /// not armed until it is free.
    pub(super) fn timeout(&self, backlog: bool, now: Nanos) -> Option<Nanos> {
        if !self.pacer.is_free(now) {
            Some(self.pacer.free_at())
        } else if backlog {
            self.policy.timeout(now)
        } else {
            None
        }
    }

    /// Whether a packet could be sent at once.
    pub(super) fn is_free(&self, now: Nanos) -> bool {
        self.pacer.is_free(now)
    }

    pub(super) fn account(&self, device: DeviceId) -> Account {
        self.policy.account(ClientId(device.0)).unwrap_or_default()
    }

    pub(super) fn busy(&self) -> Nanos {
        self.pacer.busy()
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
