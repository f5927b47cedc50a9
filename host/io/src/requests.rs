//! Serving disks: requests go from their devices to the disk, in the order of its scheduler, and back.
//!
//! What the scheduler decides about is a *part*: a request of a stripe set or of an image may go to
//! several places at once, and a long one is cut; each of these operations takes its place in the
//! disk's window and pays its share of the time. So a request of many parts is begun part by part,
//! whenever its device is chosen.

use moirai_devices::backend::{Job, Ring as _, Step, Storage as _};
use moirai_devices::blk::{Op, Outcome};
use moirai_scheduler::{Nanos, Pick, Service};

use super::DeviceId;
use super::device::{Blk, Body, Device, Waiting};
use super::disk::{Circumstances, Unit};
use super::event_loop::EventLoop;
use super::populate::OFFLOAD_BYTES;
use super::token::Token;
use super::work::Work;
use moirai_runtime::now;

/// No stall is shorter.
const STALL: Nanos = 5_000_000;

/// A disk request in flight.
pub(super) struct InFlight {
    device: DeviceId,
    disk: usize,
    queue: u16,
    /// Its parts in the disk, by their number; the first one also while it waits there for other
    /// requests of its volume.
    units: Vec<(usize, Unit)>,
    /// Parts that were allowed so far.
    begun: usize,
    arrival: Nanos,
    job: Job,
    /// Whether it is among its device's unfinished requests.
    listed: bool,
}

/// A request or part whose device was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It went to the disk.
    Begun,
    /// There was none.
    Nothing,
    /// The disk takes it later.
    Waits,
}

impl EventLoop {
    /// Gives requests to a disk as long as it takes them and somebody may be served.
    pub(super) fn serve_disk(&mut self, place: usize) -> bool {
        let mut served = false;
        let mut now = now();
        while let Some(pick) = self.disks.get_mut(place).and_then(|disk| disk.pick(now)) {
            match self.begin(place, &pick, now) {
                Turn::Waits => break,
                turn => served |= turn == Turn::Begun,
            }
            let begin = now;
            now = moirai_runtime::now();
            self.book_cpu(DeviceId(pick.client.0), now.saturating_sub(begin));
        }
        served
    }

    /// Begins a request of the device that was picked, or one more part of one.
    fn begin(&mut self, place: usize, pick: &Pick, now: Nanos) -> Turn {
        let id = DeviceId(pick.client.0);
        let Some(work) = self.next_work(id, place, pick.service) else {
            self.forget_unfinished(id);
            self.announce_head(id, now);
            return Turn::Nothing;
        };
        let Some(disk) = self.disks.get_mut(place) else { return Turn::Waits };
        if !disk.takes(pick, work, now) {
            return Turn::Waits;
        }
        let (cuts, through) = (disk.cuts(pick.service), disk.writes_through());
        let unit = disk.begin(pick, work, now);
        let next = self.blk(id).and_then(|blk| blk.unfinished.pop_front());
        let slot = match next {
            Some(part) => self.allow(part.unit, unit),
            None => self.blk(id).and_then(|blk| blk.waiting.pop_front()).and_then(|request| {
                let Waiting { unit: mut request, queue, arrival } = request;
                if let Some(blk) = self.blk(id) {
                    blk.in_flight += 1;
                    // What an image makes durable its worker does, tables and all.
                    if let Op::Write { durable, .. } = &mut request.op {
                        *durable |= through && blk.volume.is_plain();
                    }
                }
                let (units, begun, listed) = (vec![(0, unit)], 1, false);
                let job = Job::paced(request, cuts);
                let (device, disk) = (id, place);
                self.place(InFlight { device, disk, queue, units, begun, arrival, job, listed })
            }),
        };
        if let Some(slot) = slot {
            self.step(slot, None, now);
        }
        self.announce_head(id, now);
        Turn::Begun
    }

    /// What the next unit of a device will ask of its disk.
    fn next_work(&self, id: DeviceId, place: usize, service: Service) -> Option<Work> {
        let Some(Body::Blk(blk)) = self.devices.get(&id).map(|device| &device.body) else {
            return None;
        };
        if let Some(part) = blk.unfinished.front() {
            let in_flight = self.jobs.get(part.unit as usize)?.as_ref()?;
            let (op, bytes) = in_flight.job.next()?;
            return Some(Work::of(op, bytes, true));
        }
        let request = &blk.waiting.front()?.unit;
        let work = Work::of(request.op, request.buffers.len_bytes(), blk.volume.is_plain());
        Some(work.at_most(self.disks.get(place)?.cuts(service).of(request.op)))
    }

    /// The first of a device's unfinished requests has no part left to begin.
    fn forget_unfinished(&mut self, id: DeviceId) {
        let part = self.blk(id).and_then(|blk| blk.unfinished.pop_front());
        let job = part.and_then(|part| self.jobs.get_mut(part.unit as usize)?.as_mut());
        if let Some(in_flight) = job {
            in_flight.listed = false;
        }
    }

    /// Lets a job begin another part.
    fn allow(&mut self, slot: u32, unit: Unit) -> Option<u32> {
        let in_flight = self.jobs.get_mut(slot as usize)?.as_mut()?;
        in_flight.listed = false;
        in_flight.units.push((in_flight.begun, unit));
        in_flight.begun += 1;
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
            return self.end_request(slot, in_flight, outcome, now);
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
        let InFlight { units, job, device, disk, .. } = in_flight;
        units.retain(|(number, unit)| {
            let over = job.is_over(*number);
            if over {
                self.leave(*disk, *device, job, *unit, now);
            }
            !over
        });
    }

    /// A part leaves the disk.
    fn leave(&mut self, place: usize, id: DeviceId, job: &Job, unit: Unit, now: Nanos) {
        let Some(disk) = self.disks.get_mut(place) else { return };
        let (hiccups, stalls) = (&self.hiccups, &self.stalls);
        disk.end(unit, now, |begun| {
            // The log is locked only where there may be something in it.
            let stalled = || now.saturating_sub(begun) > STALL && stalls.overlaps(begun, now);
            let undisturbed = !hiccups.since(begun) && !stalled();
            Circumstances { plain: !job.is_detoured(), undisturbed }
        });
        if let Some(device) = self.devices.get_mut(&id)
            && let Body::Blk(Blk { bandwidth: Some(_), .. }) = &device.body
        {
            device.record.deliver(unit.payload_bytes(), disk.is_exhausted(id), now);
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

    fn end_request(&mut self, slot: u32, in_flight: InFlight, outcome: Outcome, now: Nanos) {
        let InFlight { device, disk, queue, units, arrival, job, listed, .. } = in_flight;
        units.into_iter().for_each(|(_, unit)| self.leave(disk, device, &job, unit, now));
        // It has failed, and the rest of it was given up: its number will be another one's.
        if listed && let Some(blk) = self.blk(device) {
            blk.unfinished.retain(|part| part.unit != slot);
        }
        let Some(device) = self.devices.get_mut(&device) else { return };
        let begin = moirai_runtime::now();
        device.usage.completed += 1;
        device.usage.bytes += job.request.buffers.len_bytes();
        device.usage.latency_max = device.usage.latency_max.max(now.saturating_sub(arrival));
        answer(device, queue, job, outcome);
        device.usage.io_cpu += moirai_runtime::now().saturating_sub(begin);
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
