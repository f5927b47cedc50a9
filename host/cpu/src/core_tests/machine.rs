//! A machine in virtual time: one core, a kernel that runs the highest real-time priority first and
//! shares the rest fairly, threads that burn or sleep and take their time on the way to their gates
//! and back.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use moirai_scheduler::{Amount, Moment, Span};

use crate::kernel::{Class, CpuTime, Threads};

/// What a round costs on the machine.
pub(super) const ROUND_COST: Span = Span::from_micros(15);
/// The grain of the simulated kernel.
pub(super) const STEP: Span = Span::from_micros(5);
/// How long a thread still runs when its gate is closed, and when it is opened.
const WAY: Span = Span::from_micros(20);

/// When a thread wants to run, by the virtual time.
pub(super) type Wants = fn(Moment) -> bool;

/// What a thread does.
pub(super) enum Load {
    When(Wants),
    Jobs(Jobs),
    /// Runs for the first and sleeps for the second, what is left of the run, the end of the sleep.
    Naps(Amount, Span, Amount, Moment),
}

/// A periodic task that measures each of its jobs itself.
pub(super) struct Jobs {
    pub(super) period: Span,
    pub(super) work: Amount,
    /// When the job under way was due to start, or the next one is.
    pub(super) release: Moment,
    left: Amount,
    /// From the release to the end of each job, and to its start.
    pub(super) took: Vec<Span>,
    pub(super) started: Vec<Span>,
}

impl Load {
    pub(super) fn jobs(period: Span, work: Amount, release: Moment) -> Self {
        let (took, started) = (Vec::new(), Vec::new());
        Self::Jobs(Jobs { period, work, release, left: work, took, started })
    }

    pub(super) fn naps(work: Amount, think: Span) -> Self {
        Self::Naps(work, think, work, Moment::ZERO)
    }

    pub(super) fn wants(&self, now: Moment) -> bool {
        match self {
            Self::When(wants) => wants(now),
            Self::Jobs(jobs) => now >= jobs.release,
            Self::Naps(_, _, _, until) => now >= *until,
        }
    }

    /// It runs for a step from `now` on.
    fn step(&mut self, now: Moment) {
        match self {
            Self::When(_) => {}
            Self::Jobs(jobs) if now >= jobs.release => {
                if jobs.left == jobs.work {
                    jobs.started.push(now - jobs.release);
                }
                jobs.left = jobs.left.saturating_sub(STEP.service());
                if jobs.left.is_zero() {
                    jobs.took.push(now + STEP - jobs.release);
                    (jobs.release, jobs.left) = (jobs.release + jobs.period, jobs.work);
                }
            }
            Self::Jobs(_) => {}
            Self::Naps(work, think, left, until) => {
                *left = left.saturating_sub(STEP.service());
                if left.is_zero() {
                    (*left, *until) = (*work, now + STEP + *think);
                }
            }
        }
    }
}

pub(super) struct SimThread {
    pub(super) load: Load,
    pub(super) class: Class,
    /// What is left of its way to the gate, or back from it.
    pub(super) way: Span,
    pub(super) time: CpuTime,
    /// When it was given steps that it was owed.
    pub(super) owed: Vec<Moment>,
    /// How long it has waited since it ran: the kernel counts a wait when it is over.
    pub(super) waiting: Span,
    /// How often it has gone to sleep.
    pub(super) sleeps: u64,
    /// How long it had run when it was last seen runnable.
    pub(super) seen: Option<Amount>,
}

#[derive(Default)]
pub(super) struct Machine {
    pub(super) now: Moment,
    pub(super) threads: Vec<SimThread>,
    pub(super) turn: usize,
    pub(super) idle: Span,
    /// What a switch takes, of which this is still to be taken.
    pub(super) switch: Span,
    pub(super) switching: Span,
    /// What all switches took.
    pub(super) switched: Span,
    /// Who has the core.
    pub(super) current: Option<usize>,
    /// The dispatcher ran since.
    pub(super) dispatched: bool,
}

impl SimThread {
    fn is_runnable(&self, now: Moment) -> bool {
        self.way > Span::ZERO || (self.class != Class::Gated && self.load.wants(now))
    }
}

impl Machine {
    /// The dispatcher runs; everybody else who could waits.
    pub(super) fn dispatch(&mut self) {
        let now = self.now;
        for thread in self.threads.iter_mut().filter(|thread| thread.is_runnable(now)) {
            thread.waiting += ROUND_COST;
        }
        self.now += ROUND_COST;
        self.dispatched = true;
    }

    /// The machine stands still; whoever could run waits.
    pub(super) fn stall(&mut self, length: Span) {
        let now = self.now;
        for thread in self.threads.iter_mut().filter(|thread| thread.is_runnable(now)) {
            thread.waiting += length;
        }
        self.now += length;
    }

    pub(super) fn step(&mut self) {
        let now = self.now;
        let runnable = |thread: &SimThread| thread.is_runnable(now);
        let rank = |thread: &SimThread| match thread.class {
            Class::Guaranteed(priority) => priority,
            Class::Fair(_) | Class::Gated => 0,
        };
        let best = self.threads.iter().filter(|thread| runnable(thread)).map(rank).max();
        let count = self.threads.len();
        let first = (0..count).map(|n| (self.turn + n) % count).find(|&n| {
            let thread = &self.threads[n];
            runnable(thread) && Some(rank(thread)) == best
        });
        self.turn = first.map_or(self.turn, |first| first + 1);
        self.idle += if first.is_none() { STEP } else { Span::ZERO };
        let switched = first != self.current;
        if let Some(first) = first.filter(|_| switched || self.dispatched) {
            // What the dispatcher costs is in its round.
            self.switching = if switched { self.switch } else { self.switching };
            self.threads[first].time.runs += 1;
        }
        (self.current, self.dispatched) = (first, false);
        let switches = self.switching > Span::ZERO;
        self.switched += if switches { STEP } else { Span::ZERO };
        self.switching = self.switching.saturating_sub(STEP);
        for (place, thread) in self.threads.iter_mut().enumerate() {
            if Some(place) == first && !switches {
                thread.time.run += STEP.service();
                if thread.class == Class::Gated || matches!(thread.class, Class::Guaranteed(_)) {
                    thread.owed.push(now);
                }
                thread.time.wait += std::mem::take(&mut thread.waiting);
                if thread.way > Span::ZERO {
                    thread.way = thread.way.saturating_sub(STEP);
                } else {
                    thread.load.step(now);
                }
                thread.sleeps += u64::from(!thread.is_runnable(now + STEP));
            } else if thread.is_runnable(now) {
                thread.waiting += STEP;
            }
        }
        self.now += STEP;
    }
}

pub(super) struct Handle {
    pub(super) machine: Rc<RefCell<Machine>>,
    pub(super) place: usize,
}

impl Threads for Handle {
    fn cpu_time(&mut self) -> io::Result<CpuTime> {
        Ok(self.machine.borrow().threads[self.place].time)
    }

    fn sleeps(&mut self) -> io::Result<u64> {
        Ok(self.machine.borrow().threads[self.place].sleeps)
    }

    fn is_runnable(&mut self) -> io::Result<bool> {
        let machine = &mut *self.machine.borrow_mut();
        let thread = &mut machine.threads[self.place];
        let runnable = thread.is_runnable(machine.now);
        let run = runnable.then_some(thread.time.run);
        assert!(run.is_none() || run != thread.seen, "it waits since it was asked last");
        thread.seen = run;
        Ok(runnable)
    }

    fn set_class(&mut self, class: Class) -> io::Result<()> {
        let thread = &mut self.machine.borrow_mut().threads[self.place];
        if (class == Class::Gated) != (thread.class == Class::Gated) {
            thread.way = WAY;
        }
        thread.class = class;
        Ok(())
    }
}
