//! A load at work: turns a [`Load`] into jobs in a queue.
//!
//! Owns the queue of one client on one resource. The engine calls [`Source::fire`] when the time
//! that the source asked for has come, and [`Source::finished`] when a job ended.

use std::collections::VecDeque;

use moirai_scheduler::device::Kind;
use moirai_scheduler::{Amount, Contract, Moment, Span};

use crate::load::{Load, Time};
use crate::random::Random;
use crate::scenario::Resource;

/// Longest queue; what comes on top is dropped and counted.
const QUEUE_MAX: usize = 100_000;

/// Shortest time between two firings of a timer, and least cost of a job, in nanoseconds: what is
/// shorter is no load but a way to make a simulation endless.
const INTERVAL_MIN: Span = Span::from_micros(1);
const COST_MIN: Amount = Amount::from_nanos(100);

/// An amount of work that is never done.
const ENDLESS: Amount = Amount::from_nanos(1 << 62);

/// A unit of work: a request, a packet, or what a thread computes between two sleeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) arrival: Moment,
    /// Service it still needs.
    pub(crate) left: Amount,
    /// What it says it needs.
    pub(crate) announced: Amount,
    /// Where on the medium.
    pub(crate) position: u64,
    /// When it should be done, where that can be said.
    pub(crate) due: Option<Moment>,
    /// What it does to a disk.
    pub(crate) kind: Kind,
    /// It is one of a source that always has more; nobody waits for it to be done.
    pub(crate) endless: bool,
}

/// The source of one client's work.
#[derive(Debug)]
pub(crate) struct Source {
    load: Load,
    contract: Contract,
    preemptible: bool,
    unit: Amount,
    random: Random,
    queue: VecDeque<Job>,
    /// Always more work, at present.
    busy: bool,
    /// Units of a busy source so far.
    made: u64,
    pub(crate) dropped: u64,
}

impl Source {
    pub(crate) fn new(load: Load, contract: Contract, resource: &Resource, seed: u64) -> Self {
        Self {
            load,
            contract,
            preemptible: resource.kind == crate::Kind::Cpu,
            unit: resource.unit.max(COST_MIN),
            random: Random::new(seed),
            queue: VecDeque::new(),
            busy: false,
            made: 0,
            dropped: 0,
        }
    }

    /// When the source first wants to fire.
    pub(crate) fn start(&mut self) -> Option<Moment> {
        match &self.load {
            Load::Idle {} => None,
            Load::Periodic { phase, .. } => Some(Moment::ZERO + phase.span()),
            Load::Bursty { gap, .. } | Load::Random { gap, .. } | Load::HostStall { gap, .. } => {
                Some(Moment::from_nanos(self.random.around(gap.0.max(1))))
            }
            _ => Some(Moment::ZERO),
        }
    }

    /// Its time has come: queues work and says when it wants to fire again.
    pub(crate) fn fire(&mut self, now: Moment) -> Option<Moment> {
        match self.load.clone() {
            Load::Idle {} => None,
            Load::HostStall { gap, length } => {
                Some(now.saturating_add(length.span()).saturating_add(self.after(gap.span())))
            }
            Load::Busy { .. }
            | Load::Inflate { .. }
            | Load::SmallPackets { .. }
            | Load::Writes { .. } => {
                self.busy = true;
                None
            }
            Load::Periodic { period, work, .. } => {
                let due = now.saturating_add(self.contract.deadline());
                self.put(now, work.work(), (work.work() <= self.contract.slice()).then_some(due));
                Some(now.saturating_add(period.span().max(INTERVAL_MIN)))
            }
            Load::Bursty { gap, count, work } => {
                for _ in 0..count {
                    if !self.put(now, work.work(), None) {
                        break;
                    }
                }
                Some(now.saturating_add(self.after(gap.span())))
            }
            Load::OnOff { on, off, .. } => {
                self.busy = !self.busy;
                if !self.busy {
                    self.queue.clear();
                }
                let next = if self.busy { on } else { off }.span();
                Some(now.saturating_add(next.max(INTERVAL_MIN)))
            }
            Load::Random { gap, work } => {
                let work = Amount::from_nanos(self.random.around(work.0.max(1)));
                self.put(now, work, None);
                Some(now.saturating_add(self.after(gap.span())))
            }
            Load::Single { .. } | Load::LatencyThief { .. } | Load::BlockBeforeCharge { .. } => {
                self.put(now, self.cycle().0, None);
                None
            }
        }
    }

    /// All jobs are done: when the source wants to fire because of it.
    pub(crate) fn finished(&self, now: Moment) -> Option<Moment> {
        match self.load {
            Load::Single { .. } | Load::LatencyThief { .. } | Load::BlockBeforeCharge { .. } => {
                Some(now.saturating_add(self.cycle().1))
            }
            _ => None,
        }
    }

    /// How long the machine stands still when this source fires.
    pub(crate) fn stall(&self) -> Option<Span> {
        match self.load {
            Load::HostStall { length, .. } => Some(length.span()),
            _ => None,
        }
    }

    /// The first job; a busy source always has one.
    pub(crate) fn head(&mut self, now: Moment) -> Option<&mut Job> {
        if self.queue.is_empty() && self.busy {
            let job = self.endless(now);
            self.queue.push_back(job);
        }
        self.queue.front_mut()
    }

    /// Takes the first job out.
    pub(crate) fn pop(&mut self, now: Moment) -> Option<Job> {
        self.head(now)?;
        self.queue.pop_front()
    }

    /// A unit that was in the device when the simulation ended is not done.
    pub(crate) fn restore(&mut self, job: Job) {
        self.queue.push_front(job);
    }

    /// The jobs that are not done.
    pub(crate) fn undone(&self) -> impl Iterator<Item = &Job> {
        self.queue.iter().filter(|job| !job.endless)
    }

    /// Work and pause of sources that do one thing at a time.
    fn cycle(&self) -> (Amount, Span) {
        let slice = self.contract.slice().max(Amount::ONE);
        match &self.load {
            Load::Single { work, think } => (work.work(), think.span()),
            Load::LatencyThief { work, pause } => {
                (work.map_or(slice, Time::work), pause.map_or(self.contract.deadline(), Time::span))
            }
            Load::BlockBeforeCharge { work } => {
                let less = slice.saturating_sub(Amount::ONE).max(Amount::ONE);
                (work.map_or(less, Time::work), Span::ONE)
            }
            _ => (Amount::ZERO, Span::ZERO),
        }
    }

    fn endless(&mut self, now: Moment) -> Job {
        self.made = self.made.wrapping_add(1);
        let mut kind = Kind::Read;
        let (unit, announced) = match &self.load {
            Load::Inflate { announced, unit } => {
                let unit = unit.map_or(self.unit, Time::work);
                (unit, announced.map_or(unit / 10, Time::work))
            }
            Load::SmallPackets { unit } => {
                let unit = unit.map_or(self.unit / 100, Time::work);
                (unit, unit)
            }
            Load::Busy { unit } | Load::OnOff { unit, .. } => {
                let unit = unit.map_or(self.unit, Time::work);
                (unit, unit)
            }
            Load::Writes { unit, count, flush } => {
                let flushes = self.made.is_multiple_of(u64::from(*count) + 1);
                kind = if flushes { Kind::Flush } else { Kind::Write };
                let unit = if flushes { flush } else { unit };
                let unit = unit.map_or(self.unit, Time::work);
                (unit, if flushes { Amount::ZERO } else { unit })
            }
            _ => (self.unit, self.unit),
        };
        let left = if self.preemptible { ENDLESS } else { unit.clamp(COST_MIN, self.unit) };
        Job {
            arrival: now,
            left,
            announced,
            position: self.random.draw() >> 24,
            due: None,
            kind,
            endless: true,
        }
    }

    fn after(&mut self, mean: Span) -> Span {
        Span::from_nanos(self.random.around(mean.as_nanos().max(1))).max(INTERVAL_MIN)
    }

    /// Queues `work`, in units where the resource has units; the last one is `due`. False if the
    /// queue is full.
    fn put(&mut self, arrival: Moment, work: Amount, due: Option<Moment>) -> bool {
        let unit = match &self.load {
            Load::Periodic { unit: Some(unit), .. } => unit.work().clamp(COST_MIN, self.unit),
            _ => self.unit,
        };
        let mut rest = work.max(COST_MIN);
        while rest > Amount::ZERO {
            if self.queue.len() >= QUEUE_MAX {
                self.dropped = self.dropped.saturating_add(1);
                return false;
            }
            let left = if self.preemptible { rest } else { rest.min(unit) };
            rest -= left;
            let due = due.filter(|_| rest.is_zero());
            let position = self.random.draw() >> 24;
            let endless = false;
            self.queue.push_back(Job {
                arrival,
                left,
                announced: left,
                kind: Kind::Read,
                position,
                due,
                endless,
            });
        }
        true
    }
}
