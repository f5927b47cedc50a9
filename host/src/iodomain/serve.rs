//! Serving: requests to disks, packets to links, packets to guests.
//!
//! The scheduler of a disk or link says whose unit is next; this file takes it from its device,
//! hands it on and tells the scheduler what is at the head of that device's queue now.

use moirai_devices::backend::{Job, Step, Storage as _};
use moirai_devices::blk::Outcome;
use moirai_devices::net::tx::TxPacket;
use moirai_devices::net::{MacAddr, Role, VNET_HEADER_LEN, VnetHeader, rx};
use moirai_scheduler::{Head, Nanos};

use super::DeviceId;
use super::device::{Body, Device, Net, Waiting};
use super::disk::Disk;
use super::event_loop::EventLoop;
use super::link::Link;
use super::meter::Payer;
use super::populate::{OFFLOAD_BYTES, Presence};
use super::token::Token;
use crate::dispatcher::now;

/// Packets, and about how many bytes, taken from a TAP in one turn.
const RECEIVE_BURST: usize = 64;
const RECEIVE_BURST_BYTES: usize = RECEIVE_BURST * 1514;
/// Packets given to a link in one turn; only a loop that is late sends more than one.
const SEND_BURST: usize = 64;

/// A disk request in flight.
pub(super) struct InFlight {
    device: DeviceId,
    disk: usize,
    queue: u16,
    payer: Payer,
    arrival: Nanos,
    job: Job,
}

impl EventLoop {
    /// Gives requests to a disk as long as it takes them and somebody may be served.
    pub(super) fn serve_disk(&mut self, place: usize) -> bool {
        let mut served = false;
        let Some(disk) = self.disks.get_mut(place) else { return false };
        let mut now = now();
        disk.settle(now);
        while let Some(payer) = self.disks.get_mut(place).and_then(|disk| disk.pick(now)) {
            served |= self.begin_request(place, payer, now);
            let begin = now;
            now = crate::dispatcher::now();
            self.book_cpu(DeviceId(payer.client.0), now.saturating_sub(begin));
        }
        served
    }

    fn begin_request(&mut self, place: usize, payer: Payer, now: Nanos) -> bool {
        let id = DeviceId(payer.client.0);
        let device = self.devices.get_mut(&id);
        let next = device.and_then(|device| match &mut device.body {
            Body::Blk(blk) => {
                let next = blk.waiting.pop_front()?;
                blk.in_flight += 1;
                Some((next, blk.head()))
            }
            Body::Net(_) => None,
        });
        let Some(disk) = self.disks.get_mut(place) else { return false };
        let Some((Waiting { unit, queue, arrival }, head)) = next else {
            disk.head(id, None, now);
            return false;
        };
        disk.begin(payer);
        disk.head(id, head, now);
        let in_flight =
            InFlight { device: id, disk: place, queue, payer, arrival, job: Job::new(unit) };
        let slot = self.jobs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        self.jobs[slot] = Some(in_flight);
        // The number of jobs is bounded by the depths of the disks.
        self.step(u32::try_from(slot).unwrap_or(u32::MAX), None, now);
        true
    }

    /// Books time of this thread on the I/O account of the device that it was spent for.
    fn book_cpu(&mut self, id: DeviceId, time: Nanos) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.usage.io_cpu += time;
        }
    }

    /// Moves a job on: starts it, or takes the result of its last operation.
    pub(super) fn step(&mut self, slot: u32, result: Option<std::io::Result<u32>>, now: Nanos) {
        let place = slot as usize;
        let Some(mut in_flight) = self.jobs.get_mut(place).and_then(Option::take) else { return };
        let token = Token::Job(slot).encode();
        let device = self.devices.get_mut(&in_flight.device);
        let present = device.as_ref().map(|device| device.memory.get()) == Some(Presence::Present);
        self.ring.set_offload(if present { u64::MAX } else { OFFLOAD_BYTES });
        let step = match device.map(|device| &mut device.body) {
            Some(Body::Blk(blk)) => match result {
                None => blk.volume.submit(&mut self.ring, token, &mut in_flight.job),
                Some(result) => {
                    blk.volume.completed(&mut self.ring, token, &mut in_flight.job, result)
                }
            },
            // Its device was detached while it was in the disk.
            _ => Ok(Step::Done(Outcome::IoError)),
        };
        match step {
            Ok(Step::Pending) => self.jobs[place] = Some(in_flight),
            Ok(Step::Done(outcome)) => self.end_request(in_flight, outcome, now),
            Err(_) => {
                self.jobs[place] = Some(in_flight);
                self.stalled.push(slot);
            }
        }
    }

    fn end_request(&mut self, in_flight: InFlight, outcome: Outcome, now: Nanos) {
        let InFlight { device, disk, queue, payer, arrival, job } = in_flight;
        if let Some(disk) = self.disks.get_mut(disk) {
            disk.settle(now);
            disk.end(payer);
        }
        let Some(device) = self.devices.get_mut(&device) else { return };
        let Body::Blk(blk) = &mut device.body else { return };
        let begin = crate::dispatcher::now();
        blk.in_flight = blk.in_flight.saturating_sub(1);
        device.usage.completed += 1;
        device.usage.bytes += job.request.buffers.len_bytes();
        device.usage.latency_max = device.usage.latency_max.max(now.saturating_sub(arrival));
        let frontend = blk.frontends.get_mut(usize::from(queue));
        if let (Some(frontend), Some(vring)) = (frontend, device.session.queue(queue))
            && let Some((memory, ring)) = vring.parts()
        {
            let head = job.request.token.head();
            match frontend.complete(memory, ring, job.request.token, outcome) {
                Ok(()) => vring.note_returned(Some(head)),
                Err(error) => device.fail(queue, error.to_string()),
            }
        }
        device.mark(queue);
        device.usage.io_cpu += crate::dispatcher::now().saturating_sub(begin);
    }

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
