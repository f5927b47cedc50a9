//! The way of a packet from its link to the guests that it is for. What of the loop's time that may
//! take, and who pays: `intake.rs`.

use moirai_devices::backend::{Ring as _, Storage};
use moirai_devices::net::{MacAddr, VNET_HEADER_LEN, VnetHeader, rx};
use moirai_scheduler::{Moment, Span};

use crate::DeviceId;
use crate::device::{Body, Device};
use crate::devices::Devices;
use crate::domain::Domain;
use crate::intake::{FEW, TURN};
use crate::link::Link;
use crate::nic::Net;
use crate::seams::{Machine as _, Seams};
use crate::token::Token;

/// Packets, and about how many bytes, taken from a link in one turn.
const RECEIVE_BURST: usize = 64;
const RECEIVE_BURST_BYTES: usize = RECEIVE_BURST * 1514;

/// What became of a packet that came in, for who pays.
enum Came {
    /// It was for all, or for nobody, and was received or was too much.
    ForAll { received: bool },
    /// It was for this one, in the same way.
    ForOne(DeviceId, bool),
}

impl Came {
    fn is_too_much(&self) -> bool {
        matches!(self, Self::ForAll { received: false } | Self::ForOne(_, false))
    }
}

impl<S: Seams> Domain<S> {
    /// Brings packets that came in to the guests they are for.
    pub(crate) fn receive(&mut self, place: usize) -> bool {
        let Some(link) = self.links.get_mut(place).filter(|link| link.unread) else { return false };
        let was_closed = link.intake.is_closed();
        let begin = self.machine.now();
        let (mut bytes, mut now, mut too_much) = (0, begin, false);
        for number in 0..RECEIVE_BURST {
            let enough = bytes >= RECEIVE_BURST_BYTES
                || now.since(begin) >= TURN
                || (number >= FEW && link.is_due(now));
            // Asked first, and last of what it may read.
            if !link.intake.is_open(now) || enough {
                break;
            }
            let Some(length) = link.receive() else {
                if too_much {
                    link.intake.pause(now);
                    link.unread = true;
                }
                break;
            };
            bytes += length;
            let came = bring(&mut self.devices, link, length, now);
            let end = self.machine.now();
            too_much |= came.is_too_much();
            charge(&mut self.devices, link, &came, now, end.since(now));
            now = end;
        }
        let is_closed = link.intake.is_closed();
        self.attend(place, was_closed, is_closed, begin);
        // A link that may not be read yet is no reason to turn again at once.
        now > begin
    }
}

impl<S: Seams> Domain<S> {
    /// Has the ring tell of packets that come in as long as their link may be read.
    fn attend(&mut self, place: usize, was_closed: bool, is_closed: bool, now: Moment) {
        let Ok(number) = u16::try_from(place) else { return };
        match (was_closed, is_closed) {
            (false, true) => drop(self.ring.cancel(Token::Tap(number).encode())),
            (true, false) => self.listen(Token::Tap(number), now),
            _ => {}
        }
    }
}

/// Brings the packet in the link's buffer to whom it is for, if there is time for it.
fn bring<St: Storage, L: moirai_devices::backend::Link>(
    devices: &mut Devices<St>,
    link: &mut Link<L>,
    length: usize,
    now: Moment,
) -> Came {
    let nothing = Came::ForAll { received: false };
    let destination = link.buffer.get(VNET_HEADER_LEN..length).and_then(<[u8]>::first_chunk::<6>);
    let Some(destination) = destination.copied().map(MacAddr) else { return nothing };
    let one = if destination.is_multicast() { None } else { link.owner(destination) };
    match one.and_then(|id| devices.get_mut(id)) {
        Some(device) => {
            if let Body::Net(net) = &device.body
                && !net.budget.has(now)
            {
                device.usage.over_budget += 1;
                return Came::ForOne(device.id, false);
            }
        }
        None if !link.intake.takes_broadcast(now) => return nothing,
        None => {}
    }
    let packet = link.buffer.get(..length).unwrap_or_default();
    let Some((header, frame)) = packet.split_first_chunk::<VNET_HEADER_LEN>() else {
        return nothing;
    };
    let Ok(header) = VnetHeader::parse(header, frame.len()) else { return nothing };
    let all = destination.is_multicast().then(|| link.devices());
    let mut claimed = false;
    for id in one.into_iter().chain(all.into_iter().flatten()) {
        if let Some(device) = devices.get_mut(id) {
            claimed = true;
            deliver(device, destination, &header, frame);
            devices.touch(id);
        }
    }
    link.unclaimed += u64::from(!claimed);
    one.filter(|_| claimed).map_or(Came::ForAll { received: true }, |id| Came::ForOne(id, true))
}

/// Has it paid: by whom it was for, or by the link, and by the link's share of the loop's time.
fn charge<St, L>(
    devices: &mut Devices<St>,
    link: &mut Link<L>,
    came: &Came,
    now: Moment,
    cost: Span,
) {
    link.intake.pay(now, cost);
    match *came {
        Came::ForAll { received } => link.intake.pay_broadcast(now, cost, received),
        Came::ForOne(id, received) => {
            let Some(device) = devices.get_mut(id) else { return };
            device.usage.io_cpu += cost.service();
            device.usage.receive_cpu += cost.service();
            if let Body::Net(net) = &mut device.body
                && received
            {
                net.budget.pay(now, cost);
            }
        }
    }
}

/// Copies a packet into a guest that has a buffer for it; else it is lost to that guest alone.
fn deliver<St: Storage>(
    device: &mut Device<St>,
    destination: MacAddr,
    header: &VnetHeader,
    frame: &[u8],
) {
    let running = device.running();
    let Device { body: Body::Net(Net { card, .. }), session, .. } = device else { return };
    if !card.accepts(destination) {
        return;
    }
    let pair = card.pair_for(frame, |queue| running >> queue & 1 == 1);
    let queue = pair.map_or(0, |pair| pair * 2);
    let parts = session.queue(queue).and_then(|vring| vring.parts());
    let Some(frontend) = card.receive(queue / 2) else { return };
    let Some((memory, ring)) = parts.filter(|_| pair.is_some()) else {
        frontend.counters.dropped_rx += 1;
        return;
    };
    match frontend.deliver(memory, ring, header, frame) {
        Ok(rx::Delivery::Delivered) => {
            device.usage.received += 1;
            device.mark(queue);
        }
        Ok(rx::Delivery::NoBuffers | rx::Delivery::TooLong | rx::Delivery::Malformed) => {}
        Err(error) => device.fail(queue, error.to_string()),
    }
}
