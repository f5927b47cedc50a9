//! Whose unit goes to a disk next, when it goes, and what it has cost. Owns the policy of one disk
//! and all that is known about its units; the requests themselves stay with their devices.
//!
//! The policy says whose unit is next, the window whether the disk takes it now. A unit is paid for
//! by its estimate when it goes and by its share of the disk's time when it is back.

use moirai_devices::backend::Cuts;
use moirai_scheduler::device::{CostModel, Kind, SLACK_WINDOW, Window};
use moirai_scheduler::{Amount, Moment, Pick, Policy, Service, Span, Ticket};

use crate::DiskSpec;
use crate::cutter::Cutter;
use crate::gauge::Gauge;
use crate::meter::{Meter, UnitId};
use crate::schedule::Schedule;
use crate::work::Work;

/// So many flushes that are longer than the largest unit are no accident.
const LONG_FLUSHES: u32 = 2;

/// A unit in the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    id: UnitId,
    work: Work,
}

impl Unit {
    /// Bytes that it reads or writes.
    pub(crate) fn payload_bytes(&self) -> u64 {
        if matches!(self.work.kind, Kind::Read | Kind::Write) { self.work.bytes } else { 0 }
    }
}

/// A unit as the window sees it. One that takes longer than any unit may is *overdue*: it has left
/// the window, because a device that is stuck with it may well serve others meanwhile, and a
/// promise that is broken by then need not be broken for longer.
#[derive(Clone, Copy, Debug)]
struct Inside {
    id: UnitId,
    begun: Moment,
    ticket: Ticket,
    overdue: bool,
}

/// One disk and the clients that share it.
pub(crate) struct Disk {
    pub(crate) name: String,
    pub(crate) schedule: Schedule,
    /// Whether the policy knows contracts; one that does not needs nothing done for them.
    keeps: bool,
    depth: usize,
    window: Window,
    /// The units inside, oldest first.
    inside: Vec<Inside>,
    /// The unit that was picked last waits for room.
    waits: bool,
    model: CostModel,
    meter: Meter,
    /// For parts that a slice pays for, and for parts of slack, which shall not be longer than what
    /// slack may keep in the disk.
    cutter: Cutter,
    slack_cutter: Cutter,
    pub(crate) gauge: Gauge,
    /// Flushes that took longer than the largest unit; see [`Disk::writes_through`].
    long_flushes: u32,
}

/// How a unit was served, as far as that decides what is to be learned from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// It did nothing but operations on a file.
    pub(crate) plain: bool,
    /// The machine ran all the time.
    pub(crate) undisturbed: bool,
}

impl Disk {
    pub(crate) fn new(spec: DiskSpec, mut policy: Box<dyn Policy>) -> Self {
        let depth = spec.depth.max(1);
        policy.set_blocking(spec.blocking);
        Self {
            keeps: !spec.policy.is_fifo(),
            name: spec.name,
            schedule: Schedule::new(policy),
            depth,
            inside: Vec::with_capacity(depth),
            waits: false,
            window: Window::new(depth, spec.max_unit),
            model: CostModel::new(spec.max_unit),
            meter: Meter::with_depth(depth),
            cutter: Cutter::new(spec.max_unit),
            slack_cutter: Cutter::new(spec.max_unit.min(SLACK_WINDOW)),
            gauge: Gauge::new(spec.max_unit, spec.blocking > Amount::ZERO),
            long_flushes: 0,
        }
    }

    /// Somebody is promised time, and the policy keeps promises.
    fn has_contracts(&self) -> bool {
        self.keeps && self.schedule.promised() > 0
    }

    /// How long the parts of a request may be that is begun now.
    pub(crate) fn cuts(&self, service: Service) -> Cuts {
        match service {
            _ if !self.has_contracts() => Cuts::NONE,
            Service::Guaranteed => self.cutter.cuts(),
            Service::Extra => self.slack_cutter.cuts(),
        }
    }

    /// Whether writes are to be on stable storage when they come back, so that a flush has nothing
    /// left to do. A flush cannot be cut; where it has taken too long twice, it has had too much to
    /// do.
    pub(crate) fn writes_through(&self) -> bool {
        self.has_contracts() && self.long_flushes >= LONG_FLUSHES
    }

    /// Chooses whose unit is next, if the disk could take one. Ask [`Disk::takes`], then follow
    /// with [`Disk::begin`] and [`Schedule::head`].
    pub(crate) fn pick(&mut self, now: Moment) -> Option<Pick> {
        self.find_overdue(now);
        if self.is_full() {
            return None;
        }
        let pick = self.schedule.pick(now);
        // Somebody may keep a place for a unit inside; not for longer than that may be there.
        self.waits = pick.is_none() && self.has_contracts();
        pick
    }

    /// Whether the unit that was picked goes to the disk now; else it waits until another one is
    /// back, or the policy picks somebody else.
    pub(crate) fn takes(&mut self, pick: &Pick, work: Work, now: Moment) -> bool {
        // Slack that does not come back is not given more.
        let stuck = pick.service == Service::Extra && self.inside.iter().any(|unit| unit.overdue);
        let fits = !stuck && self.window.fits(pick.service, self.estimate(work, now), true);
        self.waits = self.has_contracts() && !fits;
        !self.waits
    }

    fn is_full(&self) -> bool {
        self.inside.len() >= self.depth
    }

    /// Takes units out of the window that have been inside for longer than any may be, and tells
    /// the policy of them: those that are late are missed, whether or not they ever come back.
    pub(crate) fn find_overdue(&mut self, now: Moment) {
        let longest = self.gauge.declared().time();
        for unit in &mut self.inside {
            if now.since(unit.begun) < longest {
                continue;
            }
            if !std::mem::replace(&mut unit.overdue, true) {
                self.window.end(unit.ticket.estimate);
            }
            self.schedule.policy().overdue(&mut unit.ticket, now);
        }
    }

    fn estimate(&self, work: Work, now: Moment) -> Amount {
        let estimate = self.model.estimate(work.kind, work.bytes, now);
        if work.plain {
            return estimate;
        }
        // What is not known need not go alone: a thread may have to look at tables first, and
        // nobody shall wait for that.
        estimate.min(self.model.weight(work.kind, work.bytes).saturating_mul(2))
    }

    /// The unit that was picked goes to the disk.
    pub(crate) fn begin(&mut self, pick: &Pick, work: Work, now: Moment) -> Unit {
        let estimate = self.estimate(work, now);
        let ticket = self.schedule.hand_out(pick, estimate, now);
        self.window.begin(estimate);
        let id = self.meter.begin(self.model.weight(work.kind, work.bytes), now);
        self.inside.push(Inside { id, begun: now, ticket, overdue: false });
        Unit { id, work }
    }

    /// A unit came back. `how` is asked once, with the time at which the unit began.
    pub(crate) fn end(
        &mut self,
        unit: Unit,
        now: Moment,
        how: impl FnOnce(Moment) -> Circumstances,
    ) {
        let Unit { id, work } = unit;
        let Some(ended) = self.meter.end(id, now) else { return };
        if let Some(ticket) = self.leave_window(id) {
            self.schedule.policy().complete(ticket, ended.share, now);
        }
        let how = how(ended.begun);
        if !how.undisturbed {
            self.gauge.leave_out(work.kind);
        } else if how.plain && self.has_contracts() {
            self.gauge.note(work.kind, ended.share, now);
            self.cutter.note(work, ended.share);
            self.slack_cutter.note(work, ended.share);
            let long = work.kind == Kind::Flush && ended.share > self.gauge.declared();
            self.long_flushes = self.long_flushes.saturating_add(u32::from(long));
        }
        if how.undisturbed && how.plain && ended.alone {
            self.model.learn(work.kind, work.bytes, ended.share, now);
        }
    }

    /// When to pick again although nothing happens.
    pub(crate) fn timeout(&self, now: Moment) -> Option<Moment> {
        if self.is_full() {
            return None;
        }
        let within = self.inside.iter().filter(|unit| self.waits && !unit.overdue);
        let overdue = within.map(|unit| unit.begun.saturating_add(self.gauge.declared().time()));
        overdue.chain(self.schedule.timeout(now)).min()
    }

    fn leave_window(&mut self, id: UnitId) -> Option<Ticket> {
        let place = self.inside.iter().position(|unit| unit.id == id)?;
        let unit = self.inside.remove(place);
        if !unit.overdue {
            self.window.end(unit.ticket.estimate);
        }
        Some(unit.ticket)
    }

    pub(crate) fn busy(&self) -> Span {
        self.meter.busy()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.meter.in_flight()
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
