//! Serving: packets to links, packets to guests; [`super::requests`] serves disks.
//!
//! The scheduler of a link says whose packet is next; this file takes it from its device, hands it
//! on and tells the scheduler what is at the head of that device's queue now.

use moirai_devices::net::tx::TxPacket;
use moirai_devices::net::{MacAddr, Role, VNET_HEADER_LEN, VnetHeader, rx};
use moirai_scheduler::{Head, Nanos};

use super::DeviceId;
use super::device::{Body, Device, Net, Waiting};
use super::disk::Disk;
use super::event_loop::EventLoop;
use super::link::Link;
use moirai_runtime::now;

/// Packets, and about how many bytes, taken from a TAP in one turn.
const RECEIVE_BURST: usize = 64;
const RECEIVE_BURST_BYTES: usize = RECEIVE_BURST * 1514;
/// Packets given to a link in one turn; only a loop that is late sends more than one.
const SEND_BURST: usize = 64;

impl EventLoop {
    /// Sends packets as long as the wire is free and somebody may be served.
    pub(super) fn serve_link(&mut self, place: usize) -> bool {
        let mut sent = false;
        let mut begin = now();
        for _ in 0..SEND_BURST {
            let Some(link) = self.links.get_mut(place) else { break };
            let Some(pick) = link.pick(begin) else { break };
            let id = DeviceId(pick.client.0);
            let device = self.devices.get_mut(&id);
            let Some(device) = device else {
                link.head(id, None, begin);
                continue;
            };
            let Body::Net(net) = &mut device.body else { continue };
            let Some(Waiting { unit, queue, arrival }) = net.waiting.pop_front() else {
                link.head(id, None, begin);
                continue;
            };
            link.send(pick, &unit, begin);
            sent = true;
            let bytes = unit.payload.len_bytes();
            let head = packet_head(net.waiting.front(), link);
            link.head(id, head, begin);
            device.usage.completed += 1;
            device.usage.bytes += bytes;
            let parts = device.session.queue(queue).and_then(|vring| vring.parts());
            if let (Some((memory, ring)), Role::Transmit(pair)) = (parts, net.card.role(queue))
                && let Some(frontend) = net.card.transmit(pair)
            {
                frontend.counters.copied_by_kernel_bytes += bytes;
                if let Err(error) = frontend.complete(memory, ring, unit.token) {
                    device.fail(queue, error.to_string());
                }
            }
            device.mark(queue);
            let end = now();
            device.usage.latency_max = device.usage.latency_max.max(end.saturating_sub(arrival));
            device.usage.io_cpu += end.saturating_sub(begin);
            begin = end;
        }
        sent
    }

    /// Brings packets that came in to the guests they are for.
    pub(super) fn receive(&mut self, place: usize) -> bool {
        let Some(link) = self.links.get_mut(place).filter(|link| link.unread) else { return false };
        let mut bytes = 0;
        for _ in 0..RECEIVE_BURST {
            if bytes >= RECEIVE_BURST_BYTES {
                break;
            }
            let Some(length) = link.receive() else { break };
            bytes += length;
            let packet = link.buffer.get(..length).unwrap_or_default();
            let Some((header, frame)) = packet.split_first_chunk::<VNET_HEADER_LEN>() else {
                continue;
            };
            let (Ok(header), Some(destination)) =
                (VnetHeader::parse(header, frame.len()), frame.first_chunk::<6>())
            else {
                continue;
            };
            let destination = MacAddr(*destination);
            let mut claimed = false;
            for id in link.devices() {
                let theirs = destination.is_multicast() || link.owner(destination) == Some(id);
                if theirs && let Some(device) = self.devices.get_mut(&id) {
                    claimed = true;
                    deliver(device, destination, &header, frame);
                }
            }
            link.unclaimed += u64::from(!claimed);
        }
        true
    }
}

/// Tells a device's scheduler what its first waiting request is now.
pub(super) fn announce(disks: &mut [Disk], links: &mut [Link], device: &Device, now: Nanos) {
    match &device.body {
        Body::Blk(blk) => {
            if let Some(disk) = disks.get_mut(blk.disk) {
                disk.head(device.id, blk.head(), now);
            }
        }
        Body::Net(net) => {
            if let Some(link) = links.get_mut(net.link) {
                let head = packet_head(net.waiting.front(), link);
                link.head(device.id, head, now);
            }
        }
    }
}

fn packet_head(first: Option<&Waiting<TxPacket>>, link: &Link) -> Option<Head> {
    first.map(|first| Head {
        cost: link.wire_time(&first.unit),
        arrival: first.arrival,
        position: 0,
    })
}

/// Copies a packet into a guest that has a buffer for it; else it is lost to that guest alone.
fn deliver(device: &mut Device, destination: MacAddr, header: &VnetHeader, frame: &[u8]) {
    let Device { body: Body::Net(Net { card, .. }), running, failed, session, .. } = device else {
        return;
    };
    if !card.accepts(destination) {
        return;
    }
    let runs = |queue| failed.is_none() && running.get(usize::from(queue)) == Some(&true);
    let pair = card.pair_for(frame, runs);
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
