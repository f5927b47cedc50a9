//! The way of a request back from its disk, from top to bottom: an operation came back, its parts
//! leave the disk and pay, what is left of it waits for its turn, and a request that is over is
//! answered.

use moirai_devices::backend::{Deferred, Job, Ring as _, Step, Storage};
use moirai_devices::blk::{Outcome, TakenChain};
use moirai_scheduler::{ClientId, Moment};

use crate::DeviceId;
use crate::blk::Blk;
use crate::device::{Body, Device};
use crate::disk::{Circumstances, Unit};
use crate::domain::Domain;
use crate::jobs::InFlight;
use crate::populate::OFFLOAD_BYTES;
use crate::seams::{Machine as _, Seams};
use crate::waiting::Waiting;

impl<S: Seams> Domain<S> {
    /// An operation of a job came back.
    pub(crate) fn came_back(
        &mut self,
        slot: u32,
        token: u64,
        result: std::io::Result<u32>,
        now: Moment,
    ) {
        let Some(mut in_flight) = self.jobs.take(slot) else { return };
        let device = self.devices.get_mut(in_flight.device);
        let (step, was_busy) = match device {
            Some(Device { body: Body::Blk(blk), memory, .. }) => {
                // The rest of it may be begun at once, where its memory is present.
                let present = memory.holds(in_flight.job.request.buffers.len_bytes());
                self.ring.set_offload(if present { u64::MAX } else { OFFLOAD_BYTES });
                let was_busy = blk.volume.is_busy();
                let job = &mut in_flight.job;
                (blk.volume.completed(&mut self.ring, token, job, result), was_busy)
            }
            // Its device was detached while it was in the disk.
            _ => (Ok(in_flight.job.orphan(Some(token))), false),
        };
        let id = in_flight.device;
        self.settle(slot, in_flight, step, now);
        if was_busy {
            self.announce_head(id, now);
        }
    }

    /// Takes note of where a job stands.
    pub(crate) fn settle(
        &mut self,
        slot: u32,
        mut in_flight: InFlight,
        step: Result<Step, Deferred>,
        now: Moment,
    ) {
        self.leave_disk(&mut in_flight, step, now);
        match step {
            Ok(Step::Done(outcome)) => {
                self.jobs.release(slot);
                self.jobs.stir();
                self.end_request(slot, in_flight, outcome, now);
            }
            Ok(Step::Pending) => self.list_rest(slot, in_flight, now),
            Err(why) => {
                self.jobs.put_back(slot, in_flight);
                self.jobs.defer(slot, why, now);
            }
        }
    }

    /// The parts that are over leave the disk and are paid for; all of them, if the request is
    /// over.
    fn leave_disk(&mut self, in_flight: &mut InFlight, step: Result<Step, Deferred>, now: Moment) {
        let done = matches!(step, Ok(Step::Done(_)));
        let InFlight { units, job, device, client, disk, .. } = in_flight;
        let (device, client, disk) = (*device, *client, *disk);
        units.retain(|(number, unit)| {
            let over = done || job.is_over(*number);
            if over {
                self.end_unit(disk, device, client, job, *unit, now);
            }
            !over
        });
    }

    fn end_unit(
        &mut self,
        place: usize,
        device: DeviceId,
        client: ClientId,
        job: &Job,
        unit: Unit,
        now: Moment,
    ) {
        let Some(disk) = self.disks.get_mut(place) else { return };
        let outages = &self.outages;
        disk.end(unit, now, |begun| {
            let undisturbed = !outages.since(begun, now);
            Circumstances { plain: !job.is_detoured(), undisturbed }
        });
        if let Some(device) = self.devices.get_mut(device)
            && let Body::Blk(Blk { bandwidth: Some(_), .. }) = &device.body
        {
            let exhausted = disk.schedule.is_exhausted(client);
            device.record.deliver(unit.payload_bytes(), exhausted, now);
        }
    }

    /// What may not be begun yet of a job waits for its device's turn.
    fn list_rest(&mut self, slot: u32, mut in_flight: InFlight, now: Moment) {
        let (id, queue, arrival) = (in_flight.device, in_flight.queue, in_flight.arrival);
        let more = in_flight.job.wants_more() && !in_flight.listed;
        if more && let Some(blk) = self.blk(id) {
            in_flight.listed = true;
            blk.unfinished.push_back(Waiting { unit: slot, queue, arrival });
        }
        self.jobs.put_back(slot, in_flight);
        if more {
            self.announce_head(id, now);
        }
    }

    /// A request is over: its driver gets its answer.
    fn end_request(&mut self, slot: u32, in_flight: InFlight, outcome: Outcome, now: Moment) {
        let InFlight { device: id, queue, arrival, chain, job, listed, .. } = in_flight;
        // It has failed, and the rest of it was given up: its number will be another one's.
        if listed && let Some(blk) = self.blk(id) {
            blk.unfinished.retain(|part| part.unit != slot);
            self.announce_head(id, now);
        }
        let Some(device) = self.devices.get_mut(id) else { return };
        let begin = self.machine.now();
        device.usage.completed += 1;
        device.usage.bytes += job.request.buffers.len_bytes();
        device.usage.latency_max = device.usage.latency_max.max(now.since(arrival));
        answer(device, queue, chain, outcome);
        device.usage.io_cpu += self.machine.now().since(begin).service();
        self.devices.touch(id);
    }

    /// Nobody waits for the device's requests any more: of those that were begun in part, no more
    /// is begun.
    pub(crate) fn abandon_unfinished(&mut self, id: DeviceId, now: Moment) {
        self.jobs.stir();
        let Some(blk) = self.blk(id) else { return };
        for part in std::mem::take(&mut blk.unfinished) {
            let slot = part.unit;
            let Some(mut in_flight) = self.jobs.take(slot) else { continue };
            let step = match self.blk(id) {
                Some(blk) => blk.volume.abandon(&mut in_flight.job),
                None => in_flight.job.orphan(None),
            };
            self.settle(slot, in_flight, Ok(step), now);
        }
    }
}

/// Returns a request to its driver.
fn answer<St: Storage>(device: &mut Device<St>, queue: u16, chain: TakenChain, outcome: Outcome) {
    // What was not done for a peer that has left is not answered: the next one finds it unfinished.
    let undone = device.has_left() && outcome != Outcome::Ok;
    let Body::Blk(blk) = &mut device.body else { return };
    blk.in_flight = blk.in_flight.saturating_sub(1);
    let frontend = blk.frontends.get_mut(usize::from(queue));
    if let (Some(frontend), Some(vring)) = (frontend, device.session.queue(queue))
        && !undone
        && let Some((memory, ring)) = vring.parts()
    {
        let head = chain.head();
        match frontend.complete(memory, ring, chain, outcome) {
            Ok(()) => vring.note_returned(Some(head)),
            Err(error) => device.fail(queue, error.to_string()),
        }
    }
    device.mark(queue);
}
