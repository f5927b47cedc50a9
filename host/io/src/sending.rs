//! The way of a packet to its link: the scheduler says whose is next, it leaves by one call from
//! the guest's own pages, and its buffer goes back to the driver.

use moirai_devices::net::Role;
use moirai_devices::net::tx::{Taken, TakenChain};
use moirai_scheduler::{Moment, Pick};

use crate::DeviceId;
use crate::device::{Body, Device};
use crate::domain::Domain;
use crate::schedule::Owner;
use crate::seams::{Machine as _, Seams};
use crate::waiting::Waiting;

/// Packets given to a link in one turn; only a loop that is late sends more than one.
const SEND_BURST: usize = 64;

impl<S: Seams> Domain<S> {
    /// Sends packets as long as the wire is free and somebody may be served.
    pub(crate) fn serve_link(&mut self, place: usize) -> bool {
        let mut sent = false;
        let mut now = self.machine.now();
        for _ in 0..SEND_BURST {
            let Some(link) = self.links.get_mut(place) else { break };
            let Some(pick) = link.pick(now) else { break };
            let Some(owner) = link.schedule().owner(pick.client) else { break };
            // Does not compile once there is another kind of owner: that needs a way of its own.
            let Owner::Device(id) = owner;
            if !self.send_one(place, id, pick, now) {
                continue;
            }
            sent = true;
            now = self.machine.now();
        }
        sent
    }

    /// Sends the next packet of the device that was picked.
    fn send_one(&mut self, place: usize, id: DeviceId, pick: Pick, now: Moment) -> bool {
        let Some(link) = self.links.get_mut(place) else { return false };
        let device = self.devices.get_mut(id);
        let Some((device, Waiting { unit, queue, arrival })) = device.and_then(next_packet) else {
            self.idle_picks += 1;
            link.schedule().head(pick.client, None, now);
            return false;
        };
        let Taken { chain, packet } = unit;
        link.send(pick, &packet, now);
        let head = device.head_on(link);
        link.schedule().head(pick.client, head, now);
        let bytes = packet.payload_bytes();
        device.usage.completed += 1;
        device.usage.bytes += bytes;
        give_back(device, queue, chain, bytes);
        device.mark(queue);
        let end = self.machine.now();
        device.usage.latency_max = device.usage.latency_max.max(end.since(arrival));
        device.usage.io_cpu += end.since(now).service();
        self.devices.touch(id);
        true
    }
}

fn next_packet<St>(device: &mut Device<St>) -> Option<(&mut Device<St>, Waiting<Taken>)> {
    let Body::Net(net) = &mut device.body else { return None };
    let first = net.waiting.pop_front()?;
    Some((device, first))
}

/// Returns the buffers of a packet that was sent to its driver.
fn give_back<St>(device: &mut Device<St>, queue: u16, chain: TakenChain, bytes: u64) {
    let Body::Net(net) = &mut device.body else { return };
    let parts = device.session.queue(queue).and_then(|vring| vring.parts());
    if let (Some((memory, ring)), Role::Transmit(pair)) = (parts, net.card.role(queue))
        && let Some(frontend) = net.card.transmit(pair)
    {
        frontend.counters.copied_by_kernel_bytes += bytes;
        if let Err(error) = frontend.complete(memory, ring, chain) {
            device.fail(queue, error.to_string());
        }
    }
}
