//! The way of a request to its disk, from top to bottom.
//!
//! What the scheduler decides about is a *part*: a request of a stripe set or of an image may go to
//! several places at once, and a long one is cut; each of these operations takes its place in the
//! disk's window and pays its share of the time. So a request of many parts is begun part by part,
//! whenever its device is chosen. `back.rs` is the way back.

use moirai_devices::backend::{Job, Ring as _, Storage as _};
use moirai_devices::blk::{Op, Taken};
use moirai_scheduler::{Moment, Pick, Service};

use crate::DeviceId;
use crate::blk::Blk;
use crate::device::Body;
use crate::disk::Unit;
use crate::domain::Domain;
use crate::jobs::InFlight;
use crate::populate::OFFLOAD_BYTES;
use crate::schedule::Owner;
use crate::seams::{Machine as _, Seams};
use crate::token::Token;
use crate::waiting::Waiting;
use crate::work::Work;

/// What became of a pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A request or part went to the disk.
    Begun,
    /// There was none.
    Nothing,
    /// The disk takes it later.
    Waits,
}

impl<S: Seams> Domain<S> {
    /// Gives requests to a disk as long as it takes them and somebody may be served.
    pub(crate) fn serve_disk(&mut self, place: usize) -> bool {
        let mut served = false;
        let mut now = self.machine.now();
        while let Some(pick) = self.disks.get_mut(place).and_then(|disk| disk.pick(now)) {
            let owner = self.disks.get(place).and_then(|disk| disk.schedule.owner(pick.client));
            let Some(owner) = owner else { break };
            // Does not compile once there is another kind of owner: that needs a way of its own.
            let Owner::Device(id) = owner;
            match self.begin(place, id, &pick, now) {
                Turn::Waits => break,
                turn => served |= turn == Turn::Begun,
            }
            let begin = now;
            now = self.machine.now();
            // Time of this thread is booked on the account of whom it was spent for.
            if let Some(device) = self.devices.get_mut(id) {
                device.usage.io_cpu += now.since(begin).service();
            }
        }
        served
    }

    /// Begins a request of the device that was picked, or one more part of one.
    fn begin(&mut self, place: usize, id: DeviceId, pick: &Pick, now: Moment) -> Turn {
        let Some(work) = self.next_work(id, place, pick.service) else {
            self.idle_picks += 1;
            self.forget_unfinished(id);
            self.announce_head(id, now);
            return Turn::Nothing;
        };
        let Some(disk) = self.disks.get_mut(place) else { return Turn::Waits };
        if !disk.takes(pick, work, now) {
            return Turn::Waits;
        }
        let unit = disk.begin(pick, work, now);
        let part = self.blk(id).and_then(|blk| blk.unfinished.pop_front());
        let slot = match part {
            Some(part) => self.begin_part(part.unit, unit),
            None => self.begin_request(place, id, pick, unit),
        };
        if let Some(slot) = slot {
            self.go_on(slot, now);
        }
        self.announce_head(id, now);
        Turn::Begun
    }

    /// What the next unit of a device will ask of its disk.
    fn next_work(&self, id: DeviceId, place: usize, service: Service) -> Option<Work> {
        let Some(Body::Blk(blk)) = self.devices.get(id).map(|device| &device.body) else {
            return None;
        };
        if let Some(part) = blk.unfinished.front() {
            let (op, bytes) = self.jobs.get(part.unit)?.job.next()?;
            return Some(Work::of(op, bytes, true));
        }
        let request = &blk.waiting.front()?.unit.request;
        let work = Work::of(request.op, request.buffers.len_bytes(), blk.volume.is_plain());
        Some(work.at_most(self.disks.get(place)?.cuts(service).of(request.op)))
    }

    /// The first of a device's unfinished requests has no part left to begin.
    fn forget_unfinished(&mut self, id: DeviceId) {
        let part = self.blk(id).and_then(|blk| blk.unfinished.pop_front());
        if let Some(in_flight) = part.and_then(|part| self.jobs.get_mut(part.unit)) {
            in_flight.listed = false;
        }
    }

    /// Lets a job begin another part.
    fn begin_part(&mut self, slot: u32, unit: Unit) -> Option<u32> {
        let in_flight = self.jobs.get_mut(slot)?;
        in_flight.listed = false;
        in_flight.units.push((in_flight.begun, unit));
        in_flight.begun += 1;
        in_flight.job.allow();
        Some(slot)
    }

    /// Makes a job of the first waiting request.
    fn begin_request(
        &mut self,
        place: usize,
        id: DeviceId,
        pick: &Pick,
        unit: Unit,
    ) -> Option<u32> {
        let disk = self.disks.get(place)?;
        let (cuts, through) = (disk.cuts(pick.service), disk.writes_through());
        let blk = self.blk(id)?;
        let Waiting { unit: taken, queue, arrival } = blk.waiting.pop_front()?;
        let Taken { chain, mut request } = taken;
        blk.in_flight += 1;
        // What an image makes durable its worker does, tables and all.
        if let Op::Write { durable, .. } = &mut request.op {
            *durable |= through && blk.volume.is_plain();
        }
        self.jobs.place(InFlight {
            device: id,
            client: pick.client,
            disk: place,
            queue,
            units: vec![(0, unit)],
            begun: 1,
            arrival,
            chain,
            job: Job::paced(request, cuts),
            listed: false,
        })
    }

    /// A job begins what it may begin.
    pub(crate) fn go_on(&mut self, slot: u32, now: Moment) {
        let Some(mut in_flight) = self.jobs.take(slot) else { return };
        let id = in_flight.device;
        let mut was_busy = false;
        let step = match self.devices.get_mut(id) {
            Some(device) => {
                let len_bytes = in_flight.job.request.buffers.len_bytes();
                let present = device.memory.holds(len_bytes);
                self.ring.set_offload(if present { u64::MAX } else { OFFLOAD_BYTES });
                match &mut device.body {
                    Body::Blk(blk) => {
                        was_busy = blk.volume.is_busy();
                        let token = Token::Job(slot).encode();
                        blk.volume.submit(&mut self.ring, token, &mut in_flight.job)
                    }
                    Body::Net(_) => Ok(in_flight.job.orphan(None)),
                }
            }
            // It was detached.
            None => Ok(in_flight.job.orphan(None)),
        };
        self.settle(slot, in_flight, step, now);
        if was_busy {
            self.announce_head(id, now);
        }
    }

    pub(crate) fn blk(&mut self, id: DeviceId) -> Option<&mut Blk<S::Storage>> {
        match self.devices.get_mut(id).map(|device| &mut device.body) {
            Some(Body::Blk(blk)) => Some(blk),
            _ => None,
        }
    }

    /// Tells the disk's scheduler what the device has for it now.
    pub(crate) fn announce_head(&mut self, id: DeviceId, now: Moment) {
        let Some(blk) = self.blk(id) else { return };
        let (place, client, head) = (blk.disk, blk.client, blk.head());
        if let Some(disk) = self.disks.get_mut(place) {
            disk.schedule.head(client, head, now);
        }
    }
}
