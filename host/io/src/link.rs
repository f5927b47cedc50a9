//! Whose packet goes to a link next. Owns the schedule, the pacer and the far end of one link; the
//! packets themselves stay in their guests' memory.

use std::collections::BTreeMap;
use std::net::IpAddr;

use moirai_devices::net::tx::TxPacket;
use moirai_devices::net::{MacAddr, Offload, wire};
use moirai_scheduler::{Amount, Moment, Pick, Policy, Span};

use crate::DeviceId;
use crate::intake::Intake;
use crate::neighbours::Neighbours;
use crate::schedule::Schedule;
use crate::wire::Wire;

/// Room for the largest packet a TAP can give: vnet header, jumbo frame.
const RECEIVE_BYTES: usize = 65_562 + 12;

/// One link and the clients that share it.
pub(crate) struct Link<L> {
    pub(crate) name: String,
    pub(crate) mtu: u16,
    wire: Wire,
    end: L,
    /// By address, for the order in which they get what is for all.
    addresses: BTreeMap<[u8; 6], DeviceId>,
    /// Whose IP addresses are whose.
    pub(crate) neighbours: Neighbours,
    /// What receiving may take of the loop's time.
    pub(crate) intake: Intake,
    pub(crate) buffer: Vec<u8>,
    pub(crate) sent: u64,
    pub(crate) unclaimed: u64,
    pub(crate) refused: u64,
    /// Packets may wait in the TAP although it reports no news.
    pub(crate) unread: bool,
}

impl<L: moirai_devices::backend::Link> Link<L> {
    pub(crate) fn new(
        name: String,
        rate_bps: u64,
        mtu: u16,
        policy: Box<dyn Policy>,
        end: L,
    ) -> Self {
        let largest = wire::largest_packet(mtu, end.offload().segments());
        Self {
            name,
            mtu,
            wire: Wire::new(rate_bps, largest, policy),
            end,
            addresses: BTreeMap::new(),
            neighbours: Neighbours::default(),
            intake: Intake::default(),
            buffer: vec![0; RECEIVE_BYTES],
            sent: 0,
            unclaimed: 0,
            refused: 0,
            unread: false,
        }
    }

    /// With these addresses of the host, and these budgets.
    pub(crate) fn with(self, neighbours: Neighbours, intake: Intake) -> Self {
        Self { neighbours, intake, ..self }
    }

    /// What may be left undone in packets on it.
    pub(crate) fn offload(&self) -> Offload {
        self.end.offload()
    }

    /// Where packets go and come from.
    pub(crate) fn wire_end(&self) -> &L {
        &self.end
    }

    /// Chooses whose packet is next, if the wire is free.
    pub(crate) fn pick(&mut self, now: Moment) -> Option<Pick> {
        self.wire.pick(now)
    }

    /// Notes which packets have left the wire; see [`Wire::settle`].
    pub(crate) fn settle(&mut self, now: Moment) {
        self.wire.settle(now);
    }

    /// Sends the packet that was picked. Its slice pays for its time on the wire now; whether it
    /// was late shows when it has left.
    pub(crate) fn send(&mut self, pick: Pick, packet: &TxPacket, now: Moment) {
        let wire_time = self.wire_time(packet);
        match self.end.send(packet) {
            Ok(true) => self.sent += 1,
            // Like any wire, the link drops what it cannot carry; the time is used all the same.
            Ok(false) | Err(_) => self.refused += 1,
        }
        self.wire.send(&pick, wire_time, now);
    }

    /// Takes the next packet that came in into `buffer`; its length.
    pub(crate) fn receive(&mut self) -> Option<usize> {
        let received = self.end.receive(&mut self.buffer).ok().flatten();
        self.unread = received.is_some();
        received
    }

    /// When to pick again although nothing happens. A wire that is busy is asked again even without
    /// a backlog, because its queues are polled and not armed until it is free.
    pub(crate) fn timeout(&self, now: Moment) -> Option<Moment> {
        if !self.wire.pacer().is_free(now) {
            Some(self.wire.pacer().free_at())
        } else if self.has_backlog() {
            self.wire.known().timeout(now)
        } else {
            None
        }
    }

    pub(crate) fn busy(&self) -> Span {
        self.wire.pacer().busy()
    }

    /// Whose address this is.
    pub(crate) fn owner(&self, mac: MacAddr) -> Option<DeviceId> {
        self.addresses.get(&mac.0).copied()
    }

    /// All devices on the link.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.addresses.values().copied()
    }

    pub(crate) fn enlist(&mut self, mac: MacAddr, declared: &[IpAddr], device: DeviceId) {
        self.addresses.insert(mac.0, device);
        self.neighbours.enter(device, mac.0, declared);
    }

    pub(crate) fn strike(&mut self, device: DeviceId) {
        self.addresses.retain(|_, other| *other != device);
        self.neighbours.leave(device);
    }
}

/// What is known of it, whatever is at its end.
impl<L> Link<L> {
    /// Who may send, and whose turn it is.
    pub(crate) fn schedule(&mut self) -> &mut Schedule {
        self.wire.schedule()
    }

    pub(crate) fn known(&self) -> &Schedule {
        self.wire.known()
    }

    /// Whether somebody has a packet waiting.
    pub(crate) fn has_backlog(&self) -> bool {
        self.wire.known().has_work()
    }

    /// Whether somebody waits for the wire and could have it.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.has_backlog() && self.is_free(now)
    }

    /// Whether a packet could be sent at once.
    pub(crate) fn is_free(&self, now: Moment) -> bool {
        self.wire.pacer().is_free(now)
    }

    pub(crate) fn wire_time(&self, packet: &TxPacket) -> Amount {
        self.wire.pacer().wire_time(packet.wire_bytes())
    }
}
