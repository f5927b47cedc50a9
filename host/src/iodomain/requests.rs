//! Serving disks: requests go from their devices to the disk, in the order of its scheduler, and back.
//!
//! What the scheduler decides about is a *part*: a request of a stripe set or of an image may go to
//! several places at once, and each of these operations takes its place in the disk's depth and pays
//! its share of the time. So a request of many parts is begun part by part, whenever its device is
//! chosen.

use std::collections::VecDeque;

use moirai_devices::backend::{Job, Step, Storage as _};
use moirai_devices::blk::{Outcome, Request};
use moirai_scheduler::Nanos;

use super::DeviceId;
use super::device::{Blk, Body, Device, Waiting};
use super::event_loop::EventLoop;
use super::meter::Payer;
use super::populate::OFFLOAD_BYTES;
use super::token::Token;
use crate::dispatcher::now;

/// A disk request in flight.
pub(super) struct InFlight {
    device: DeviceId,
    disk: usize,
    queue: u16,
    /// Who pays for its parts in the disk, one each; the first one also while it waits there for other
    /// requests of its volume.
    payers: VecDeque<Payer>,
    arrival: Nanos,
    job: Job,
    /// Whether it is among its device's unfinished requests.
    listed: bool,
}

/// What of a device is next.
enum Next {
    Request(Waiting<Request>),
    Part(u32),
}

impl EventLoop {
    /// Gives requests to a disk as long as it takes them and somebody may be served.
    pub(super) fn serve_disk(&mut self, place: usize) -> bool {
        let mut served = false;
        let Some(disk) = self.disks.get_mut(place) else { return false };
        let mut now = now();
        disk.settle(now);
        while let Some(payer) = self.disks.get_mut(place).and_then(|disk| disk.pick(now)) {
            served |= self.begin(place, payer, now);
            let begin = now;
            now = crate::dispatcher::now();
            self.book_cpu(DeviceId(payer.client.0), now.saturating_sub(begin));
        }
        served
    }

    /// Begins a request of the device that was chosen, or one more part of one.
    fn begin(&mut self, place: usize, payer: Payer, now: Nanos) -> bool {
        let id = DeviceId(payer.client.0);
        let next = self.blk(id).and_then(|blk| {
            let part = blk.unfinished.pop_front().map(|part| Next::Part(part.unit));
            part.or_else(|| {
                let request = blk.waiting.pop_front()?;
                blk.in_flight += 1;
                Some(Next::Request(request))
            })
        });
        let slot = match next {
            None => None,
            Some(Next::Part(slot)) => self.allow(slot, payer),
            Some(Next::Request(Waiting { unit, queue, arrival })) => {
                let payers = VecDeque::from([payer]);
                let job = Job::paced(unit);
                let disk = place;
                let listed = false;
                self.place(InFlight { device: id, disk, queue, payers, arrival, job, listed })
            }
        };
        if let Some(slot) = slot {
            if let Some(disk) = self.disks.get_mut(place) {
                disk.begin(payer);
            }
            self.step(slot, None, now);
        }
        self.announce_head(id, now);
        slot.is_some()
    }

    /// Lets a job begin another part.
    fn allow(&mut self, slot: u32, payer: Payer) -> Option<u32> {
        let in_flight = self.jobs.get_mut(slot as usize)?.as_mut()?;
        in_flight.listed = false;
        in_flight.payers.push_back(payer);
        in_flight.job.allow();
        Some(slot)
    }

    /// A number for a new job. Jobs are bounded by the depths of the disks.
    fn place(&mut self, in_flight: InFlight) -> Option<u32> {
        let free = self.jobs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.jobs.push(None);
            self.jobs.len() - 1
        });
        self.jobs[free] = Some(in_flight);
        u32::try_from(free).ok()
    }

    /// Books time of this thread on the I/O account of the device that it was spent for.
    fn book_cpu(&mut self, id: DeviceId, time: Nanos) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.usage.io_cpu += time;
        }
    }

    fn blk(&mut self, id: DeviceId) -> Option<&mut Blk> {
        match self.devices.get_mut(&id).map(|device| &mut device.body) {
            Some(Body::Blk(blk)) => Some(blk),
            _ => None,
        }
    }

    /// Tells the disk's scheduler what the device has for it now.
    fn announce_head(&mut self, id: DeviceId, now: Nanos) {
        let Some(blk) = self.blk(id) else { return };
        let (place, head) = (blk.disk, blk.head());
        if let Some(disk) = self.disks.get_mut(place) {
            disk.head(id, head, now);
        }
    }

    /// Moves a job on: begins what it may begin, or takes the result of an operation with its token.
    pub(super) fn step(
        &mut self,
        slot: u32,
        result: Option<(u64, std::io::Result<u32>)>,
        now: Nanos,
    ) {
        let place = slot as usize;
        let Some(mut in_flight) = self.jobs.get_mut(place).and_then(Option::take) else { return };
        let token = Token::Job(slot).encode();
        let id = in_flight.device;
        let device = self.devices.get_mut(&id);
        let len_bytes = in_flight.job.request.buffers.len_bytes();
        let present = device.as_ref().is_some_and(|device| device.memory.holds(len_bytes));
        self.ring.set_offload(if present { u64::MAX } else { OFFLOAD_BYTES });
        let (step, was_busy) = match device.map(|device| &mut device.body) {
            Some(Body::Blk(blk)) => {
                let (volume, job) = (&mut blk.volume, &mut in_flight.job);
                let was_busy = volume.is_busy();
                let step = match result {
                    None => volume.submit(&mut self.ring, token, job),
                    Some((token, result)) => volume.completed(&mut self.ring, token, job, result),
                };
                (step, was_busy)
            }
            // Its device was detached while it was in the disk.
            _ => (Ok(in_flight.job.orphan(result.map(|(token, _)| token))), false),
        };
        match step {
            Ok(step) => self.settle(slot, in_flight, step, now),
            Err(_) => {
                self.jobs[place] = Some(in_flight);
                self.stalled.push(slot);
            }
        }
        if was_busy {
            self.announce_head(id, now);
        }
    }

    /// Takes note of where a job stands: which of its parts are still in the disk.
    fn settle(&mut self, slot: u32, mut in_flight: InFlight, step: Step, now: Nanos) {
        if let Step::Done(outcome) = step {
            return self.end_request(in_flight, outcome, now);
        }
        self.retire(&mut in_flight, now);
        let (id, queue, arrival) = (in_flight.device, in_flight.queue, in_flight.arrival);
        let more = in_flight.job.wants_more() && !in_flight.listed;
        if more && let Some(blk) = self.blk(id) {
            in_flight.listed = true;
            blk.unfinished.push_back(Waiting { unit: slot, queue, arrival });
        }
        self.jobs[slot as usize] = Some(in_flight);
        if more {
            self.announce_head(id, now);
        }
    }

    /// The parts that are over leave the disk.
    fn retire(&mut self, in_flight: &mut InFlight, now: Nanos) {
        let Some(disk) = self.disks.get_mut(in_flight.disk) else { return };
        let inside = in_flight.job.in_flight();
        while in_flight.payers.len() > inside
            && let Some(payer) = in_flight.payers.pop_front()
        {
            disk.settle(now);
            disk.end(payer);
        }
    }

    /// Nobody waits for the device's requests any more: of those that were begun in part, no more is
    /// begun.
    pub(super) fn abandon_unfinished(&mut self, id: DeviceId, now: Nanos) {
        let Some(blk) = self.blk(id) else { return };
        for part in std::mem::take(&mut blk.unfinished) {
            let slot = part.unit;
            let job = self.jobs.get_mut(slot as usize).and_then(Option::take);
            let Some(mut in_flight) = job else { continue };
            let step = match self.blk(id) {
                Some(blk) => blk.volume.abandon(&mut in_flight.job),
                None => in_flight.job.orphan(None),
            };
            self.settle(slot, in_flight, step, now);
        }
    }

    fn end_request(&mut self, in_flight: InFlight, outcome: Outcome, now: Nanos) {
        let InFlight { device, disk, queue, payers, arrival, job, .. } = in_flight;
        if let Some(disk) = self.disks.get_mut(disk) {
            disk.settle(now);
            payers.into_iter().for_each(|payer| disk.end(payer));
        }
        let Some(device) = self.devices.get_mut(&device) else { return };
        let begin = crate::dispatcher::now();
        device.usage.completed += 1;
        device.usage.bytes += job.request.buffers.len_bytes();
        device.usage.latency_max = device.usage.latency_max.max(now.saturating_sub(arrival));
        answer(device, queue, job, outcome);
        device.usage.io_cpu += crate::dispatcher::now().saturating_sub(begin);
    }
}

/// Returns a request to its driver.
fn answer(device: &mut Device, queue: u16, job: Job, outcome: Outcome) {
    let Body::Blk(blk) = &mut device.body else { return };
    blk.in_flight = blk.in_flight.saturating_sub(1);
    let frontend = blk.frontends.get_mut(usize::from(queue));
    // What was not done for a peer that has left is not answered: the next one finds it unfinished.
    let undone = device.left && outcome != Outcome::Ok;
    if let (Some(frontend), Some(vring)) = (frontend, device.session.queue(queue))
        && !undone
        && let Some((memory, ring)) = vring.parts()
    {
        let head = job.request.token.head();
        match frontend.complete(memory, ring, job.request.token, outcome) {
            Ok(()) => vring.note_returned(Some(head)),
            Err(error) => device.fail(queue, error.to_string()),
        }
    }
    device.mark(queue);
}
