//! The thread of a vCPU, asked no more than necessary whether it waits for the core.

use std::io;

use moirai_scheduler::Moment;

use crate::kernel::Threads;

/// A thread, and whether it is known to wait.
#[derive(Debug)]
pub(super) struct Watched<T> {
    thread: T,
    /// It was seen runnable first at this time, and has not run since.
    since: Option<Moment>,
}

impl<T> Watched<T> {
    pub(super) fn new(thread: T) -> Self {
        Self { thread, since: None }
    }

    /// The thread, for whatever else it is asked.
    pub(super) fn thread(&mut self) -> &mut T {
        &mut self.thread
    }

    /// It has run: a wait that was seen is over.
    pub(super) fn ran(&mut self) {
        self.since = None;
    }
}

impl<T: Threads> Watched<T> {
    /// Since when it is known to run or wait for the core, if it does. One that waits is asked
    /// once: nobody falls asleep without having run, and the kernel writes some fifty numbers to
    /// answer.
    pub(super) fn waits_since(&mut self, now: Moment) -> io::Result<Option<Moment>> {
        if self.since.is_none() && self.thread.is_runnable()? {
            self.since = Some(now);
        }
        Ok(self.since)
    }
}
