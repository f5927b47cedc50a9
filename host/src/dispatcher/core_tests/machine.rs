//! A machine in virtual time: one core, a kernel that runs the highest real-time priority first and shares
//! the rest fairly, threads that burn or sleep and take their time on the way to their gates and back.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use moirai_scheduler::Nanos;

use crate::dispatcher::kernel::{Class, CpuTime, Threads};

/// What a round costs on the machine.
pub(super) const ROUND_COST: Nanos = 15_000;
/// The grain of the simulated kernel.
pub(super) const STEP: Nanos = 5_000;
/// How long a thread still runs when its gate is closed, and when it is opened.
const WAY: Nanos = 20_000;

/// When a thread wants to run, by the virtual time.
pub(super) type Wants = fn(Nanos) -> bool;

pub(super) struct SimThread {
    pub(super) wants: Wants,
    pub(super) class: Class,
    /// What is left of its way to the gate, or back from it.
    pub(super) way: Nanos,
    pub(super) time: CpuTime,
    /// How long it had run when it was last seen runnable.
    pub(super) seen: Option<Nanos>,
}

#[derive(Default)]
pub(super) struct Machine {
    pub(super) now: Nanos,
    pub(super) threads: Vec<SimThread>,
    pub(super) turn: usize,
    pub(super) idle: Nanos,
}

impl SimThread {
    fn is_runnable(&self, now: Nanos) -> bool {
        self.way > 0 || (self.class != Class::Gated && (self.wants)(now))
    }
}

impl Machine {
    /// The dispatcher runs; everybody else who could waits.
    pub(super) fn dispatch(&mut self) {
        let now = self.now;
        for thread in self.threads.iter_mut().filter(|thread| thread.is_runnable(now)) {
            thread.time.wait += ROUND_COST;
        }
        self.now += ROUND_COST;
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
        self.idle += if first.is_none() { STEP } else { 0 };
        for (place, thread) in self.threads.iter_mut().enumerate() {
            if Some(place) == first {
                thread.time.run += STEP;
                thread.way = thread.way.saturating_sub(STEP);
            } else if thread.is_runnable(now) {
                thread.time.wait += STEP;
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
