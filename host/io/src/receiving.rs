//! The way of a packet from its link to the guests that it is for.

use moirai_devices::backend::Storage;
use moirai_devices::net::{MacAddr, VNET_HEADER_LEN, VnetHeader, rx};

use crate::device::{Body, Device};
use crate::domain::Domain;
use crate::nic::Net;
use crate::seams::Seams;

/// Packets, and about how many bytes, taken from a link in one turn.
const RECEIVE_BURST: usize = 64;
const RECEIVE_BURST_BYTES: usize = RECEIVE_BURST * 1514;

impl<S: Seams> Domain<S> {
    /// Brings packets that came in to the guests they are for.
    pub(crate) fn receive(&mut self, place: usize) -> bool {
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
            let (one, all) = match destination.is_multicast() {
                true => (None, Some(link.devices())),
                false => (link.owner(destination), None),
            };
            let mut claimed = false;
            for id in one.into_iter().chain(all.into_iter().flatten()) {
                if let Some(device) = self.devices.get_mut(id) {
                    claimed = true;
                    deliver(device, destination, &header, frame);
                    self.devices.touch(id);
                }
            }
            link.unclaimed += u64::from(!claimed);
        }
        true
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
