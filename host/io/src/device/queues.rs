//! The queues of a device: which run, which the loop looks at by itself, whose drivers are to be
//! told.

use super::{Device, Queue};
use crate::populate::Presence;

/// Its queues.
impl<St> Device<St> {
    pub(super) fn queue(&self, queue: u16) -> Queue {
        self.queues.get(usize::from(queue)).copied().unwrap_or_default()
    }

    pub(super) fn queue_mut(&mut self, queue: u16) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(queue))
    }

    /// Numbers of its queues.
    pub(crate) fn queues(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    /// Whether requests are taken from this queue.
    pub(crate) fn runs(&self, queue: u16) -> bool {
        self.failed.is_none() && self.queue(queue).runs
    }

    /// The queues that requests are taken from, one bit for each.
    pub(crate) fn running(&self) -> u64 {
        self.queues().filter(|queue| self.runs(*queue)).fold(0, |bits, queue| bits | 1 << queue)
    }

    /// The driver has set this queue up; what was wrong before is over. True if something was: then
    /// its other queues may have been asked in vain meanwhile.
    pub(crate) fn start(&mut self, queue: u16) -> bool {
        if let Some(queue) = self.queue_mut(queue) {
            queue.runs = true;
        }
        self.failed.take().is_some()
    }

    /// Nothing more is taken from this queue; `drains`: its peer waits until nothing of it is in
    /// flight.
    pub(crate) fn stop(&mut self, queue: u16, drains: bool) {
        if let Some(queue) = self.queue_mut(queue) {
            (queue.runs, queue.drains) = (false, queue.drains || drains);
        }
    }

    pub(crate) fn is_polled(&self, queue: u16) -> bool {
        self.queue(queue).polled
    }

    /// From now on the loop looks at this queue by itself; whether that is new.
    pub(crate) fn poll(&mut self, queue: u16) -> bool {
        if self.queues.get(usize::from(queue)).is_none_or(|queue| queue.polled) {
            return false;
        }
        // If the driver cannot be told it just kicks once more than it needs to.
        let told = self.session.queue(queue).is_some_and(|vring| vring.disable_kicks().is_ok());
        if let Some(queue) = self.queue_mut(queue) {
            queue.polled = told;
        }
        told
    }

    /// Puts a queue into the list of polled ones; whether it was not there.
    pub(crate) fn list(&mut self, queue: u16) -> bool {
        self.queue_mut(queue).is_some_and(|queue| !std::mem::replace(&mut queue.listed, true))
    }

    /// It has left that list.
    pub(crate) fn unlist(&mut self, queue: u16) {
        if let Some(queue) = self.queue_mut(queue) {
            queue.listed = false;
        }
    }

    /// The driver of this queue is to kick again. True if something arrived meanwhile: then the
    /// loop goes on looking.
    pub(crate) fn arm(&mut self, queue: u16) -> bool {
        if self.memory.get() == Presence::Coming {
            return false;
        }
        let armed = self.session.queue(queue).map(|vring| vring.enable_kicks());
        if let Some(queue) = self.queue_mut(queue) {
            queue.polled = false;
        }
        match armed {
            // What waits in the ring of a queue that is stopped or broken waits for its driver.
            Some(Ok(arrived)) => arrived && self.runs(queue) && self.poll(queue),
            Some(Err(error)) => {
                self.fail(queue, format!("cannot arm the queue: {error}"));
                false
            }
            None => false,
        }
    }

    /// The driver is to be told about completions on this queue at the end of the turn.
    pub(crate) fn mark(&mut self, queue: u16) {
        if let Some(queue) = self.queue_mut(queue) {
            queue.unsignalled = true;
        }
    }

    /// Tells the driver about completions, once for all of a turn.
    pub(crate) fn signal(&mut self) {
        for index in self.queues() {
            let Some(queue) = self.queue_mut(index) else { continue };
            if !std::mem::take(&mut queue.unsignalled) {
                continue;
            }
            let told = self.session.queue(index).map(|vring| vring.signal());
            if let Some(Err(error)) = told {
                self.fail(index, format!("cannot signal the driver: {error}"));
            }
        }
    }
}
