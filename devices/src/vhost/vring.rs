//! One queue of a session: its ring, its eventfds, and whether it runs.
//!
//! What it does is one [`VringState`], which only `Vring::enter` writes. Only a running ring gives
//! out chains; one that has memory and addresses still takes completions.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VRING_AVAIL_F_NO_INTERRUPT};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::SessionError;
use super::eventfd::{drain, notify};
use super::inflight::Log;
use super::memory::MemoryTable;
use super::state::{VringChange, VringState};
use crate::memory::GuestMemory;

/// Where the peer keeps the ring, in its own address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VringAddresses {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// A queue as vhost-user describes it.
#[derive(Debug)]
pub struct Vring {
    index: u16,
    queue: Queue,
    state: VringState,
    /// The peer's leave to run. It outlives a stop, and may come before the start.
    enabled: bool,
    memory: Option<Arc<GuestMemory>>,
    addresses: Option<VringAddresses>,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    error: Option<OwnedFd>,
    /// Where requests in flight are noted, if the peer wants that.
    log: Option<Log>,
    /// What an earlier process took from the ring and did not return, oldest first.
    unfinished: VecDeque<u16>,
    /// The used index up to which the driver was told, or did not want to be.
    signalled_used: u16,
}

impl Vring {
    pub(super) fn new(index: u16, max_size: u16) -> Result<Self, SessionError> {
        let queue = Queue::new(max_size)
            .map_err(|_| SessionError::BadQueueSize { index, size: max_size.into() })?;
        Ok(Self {
            index,
            queue,
            state: VringState::Stopped,
            enabled: false,
            memory: None,
            addresses: None,
            kick: None,
            call: None,
            error: None,
            log: None,
            unfinished: VecDeque::new(),
            signalled_used: 0,
        })
    }

    /// Memory and ring for a frontend's `next_request` and `complete`; `None` unless the ring is
    /// set up. A ring that is disabled or draining still takes completions.
    pub fn parts(&mut self) -> Option<(&Arc<GuestMemory>, &mut Queue)> {
        Some((self.memory.as_ref()?, &mut self.queue))
    }

    /// The head of a chain that was taken from the ring before this connection and never returned.
    /// Serve all of these before anything from the ring.
    pub fn next_unfinished(&mut self) -> Option<u16> {
        self.unfinished.pop_front()
    }

    /// Notes that the chain at `head` was taken; call it before the request can have any effect.
    pub fn note_taken(&mut self, head: u16) {
        if let Some(log) = &mut self.log {
            log.taken(head);
        }
    }

    /// Notes that a chain was returned; call it before the next one is taken or returned. `None` if
    /// it was answered without having been noted as taken.
    pub fn note_returned(&mut self, head: Option<u16>) {
        if let Some(log) = &mut self.log {
            log.returned(head, self.queue.next_used());
        }
    }

    /// Whether requests may be taken from it.
    pub fn is_running(&self) -> bool {
        self.state == VringState::Running
    }

    /// Whether it has a kick descriptor and was not stopped since.
    pub(super) fn is_started(&self) -> bool {
        self.state != VringState::Stopped
    }

    /// Whether the peer waits until all is returned.
    pub(super) fn is_draining(&self) -> bool {
        self.state == VringState::Draining
    }

    /// The one place that changes the state. Returns whether the queue began or ceased to run.
    fn enter(&mut self, change: VringChange) -> bool {
        let ran = self.is_running();
        self.state = self.state.after(change);
        ran != self.is_running()
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
        self.kick.as_ref().map_or(Ok(false), drain)
    }

    /// Tells the driver about used chains if it wants to know (EVENT_IDX, NO_INTERRUPT). Returns
    /// whether it was told. Call it once after a batch of completions.
    ///
    /// # Errors
    /// The ring is not in memory or the eventfd cannot be written.
    pub fn signal(&mut self) -> io::Result<bool> {
        if !self.driver_wants_signal()? {
            return Ok(false);
        }
        self.call.as_ref().map_or(Ok(false), |call| notify(call).map(|()| true))
    }

    fn driver_wants_signal(&mut self) -> io::Result<bool> {
        let Some(mem) = &self.memory else { return Ok(false) };
        let (old, new) = (self.signalled_used, self.queue.next_used());
        self.signalled_used = new;
        // The used index must be visible to a driver that changes its wish after we read it.
        fence(Ordering::SeqCst);
        let load = |offset: u64| {
            let address = self.queue.avail_ring().saturating_add(offset);
            mem.load(GuestAddress(address), Ordering::Relaxed).map(u16::from_le)
        };
        if self.queue.event_idx_enabled() {
            let used_event =
                load(4 + 2 * u64::from(self.queue.size())).map_err(io::Error::other)?;
            // virtio 1.2, 2.7.10: was the index that the driver named passed since we last looked?
            return Ok(new.wrapping_sub(used_event).wrapping_sub(1) < new.wrapping_sub(old));
        }
        let flags = load(0).map_err(io::Error::other)?;
        Ok(new != old && u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver to kick again (call before sleeping). Returns whether chains arrived
    /// meanwhile: then look at the ring again instead.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn enable_kicks(&mut self) -> io::Result<bool> {
        let Some(mem) = &self.memory else { return Ok(false) };
        self.queue.enable_notification(&**mem).map_err(io::Error::other)
    }

    /// Tells the driver not to kick, for the time that the ring is polled.
    ///
    /// # Errors
    /// The ring is not in memory.
    pub fn disable_kicks(&mut self) -> io::Result<()> {
        let Some(mem) = &self.memory else { return Ok(()) };
        self.queue.disable_notification(&**mem).map_err(io::Error::other)
    }

    /// The ring is broken: it gives out nothing more until its driver has stopped and set it up
    /// again. Tells the peer by the queue's error eventfd.
    pub fn fail(&mut self) {
        self.enter(VringChange::Failed);
        if let Some(error) = &self.error {
            // A peer that cannot be told finds out by its queue standing still.
            let _ = notify(error);
        }
    }

    /// Takes the descriptor by which the driver kicks: that starts the queue.
    pub(super) fn set_kick(&mut self, kick: OwnedFd) {
        self.kick = Some(kick);
        self.enter(VringChange::Kicked);
    }

    pub(super) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    pub(super) fn set_error(&mut self, error: Option<OwnedFd>) {
        self.error = error;
    }

    pub(super) fn set_log(&mut self, log: Log) {
        self.log = Some(log);
    }

    /// Whether the memory for its notes was lost.
    pub(super) fn has_lost_notes(&self) -> bool {
        self.log.as_ref().is_some_and(Log::is_lost)
    }

    pub(super) fn take_log(&mut self) -> Option<Log> {
        self.log.take()
    }

    pub(super) fn set_addresses(&mut self, addresses: VringAddresses) {
        self.addresses = Some(addresses);
    }

    pub(super) fn set_size(&mut self, size: u32) -> Result<(), SessionError> {
        let bad = SessionError::BadQueueSize { index: self.index, size };
        let Ok(size) = u16::try_from(size) else { return Err(bad) };
        self.queue.try_set_size(size).map_err(|_| bad)
    }

    /// The next chain to take, as SET_VRING_BASE and GET_VRING_BASE count it.
    pub(super) fn set_base(&mut self, base: u16) {
        self.queue.set_next_avail(base);
    }

    pub(super) fn base(&self) -> u16 {
        self.queue.next_avail()
    }

    /// What was signalled to the descriptor before may never have been seen, so a running queue
    /// signals the new one; a needless interrupt does no harm.
    pub(super) fn set_call(&mut self, call: Option<OwnedFd>) {
        self.call = call;
        if let (true, Some(call)) = (self.is_running(), &self.call) {
            // If it fails, so will the next signal, which has somebody to report to.
            let _ = notify(call);
        }
    }

    /// Finds the ring's addresses in the memory table; both may still be missing.
    pub(super) fn locate(&mut self, table: Option<&MemoryTable>) -> Result<(), SessionError> {
        let (Some(addresses), Some(table)) = (self.addresses, table) else { return Ok(()) };
        let outside = |()| SessionError::RingOutsideMemory { index: self.index };
        let find = |addr| table.guest_address(addr).ok_or(());
        let descriptors = find(addresses.descriptors).map_err(outside)?;
        let available = find(addresses.available).map_err(outside)?;
        let used = find(addresses.used).map_err(outside)?;
        self.queue
            .try_set_desc_table_address(descriptors)
            .and_then(|()| self.queue.try_set_avail_ring_address(available))
            .and_then(|()| self.queue.try_set_used_ring_address(used))
            .map_err(|_| SessionError::RingOutsideMemory { index: self.index })?;
        self.memory = Some(Arc::clone(&table.guest));
        Ok(())
    }

    /// Begins to run if all is there for it, or ceases to. Returns whether that changed.
    pub(super) fn refresh(&mut self, features: u64) -> Result<bool, SessionError> {
        let Some(mem) = self.memory.clone().filter(|_| self.enabled) else {
            return Ok(self.enter(VringChange::Ready(false)));
        };
        let fresh = self.state == VringState::Started;
        if fresh || self.state == VringState::Paused {
            self.queue.set_event_idx(features >> VIRTIO_RING_F_EVENT_IDX & 1 == 1);
            self.queue.set_ready(true);
            if !self.queue.is_valid(&*mem) {
                return Err(SessionError::RingOutsideMemory { index: self.index });
            }
        }
        if fresh {
            self.resume(&mem)?;
        }
        Ok(self.enter(VringChange::Ready(true)))
    }

    /// Finds out from the ring and the notes where whoever served it before has stopped.
    fn resume(&mut self, mem: &GuestMemory) -> Result<(), SessionError> {
        let outside = |_| SessionError::RingOutsideMemory { index: self.index };
        let used = self.queue.used_idx(mem, Ordering::Acquire).map_err(outside)?.0;
        self.queue.set_next_used(used);
        self.signalled_used = used;
        let Some(log) = &mut self.log else { return Ok(()) };
        let size = self.queue.size();
        if size > log.size {
            return Err(SessionError::InflightTooSmall { index: self.index, size });
        }
        self.unfinished = log.recover(mem, &self.queue, used).into();
        // Whatever was taken is either used or in flight; the peer cannot know how many are.
        let unfinished = u16::try_from(self.unfinished.len()).unwrap_or(u16::MAX);
        self.queue.set_next_avail(used.wrapping_add(unfinished));
        Ok(())
    }

    /// Checks that a running ring still lies in memory after its addresses or the table changed.
    pub(super) fn revalidate(&self) -> Result<(), SessionError> {
        match &self.memory {
            Some(mem) if self.is_running() && !self.queue.is_valid(&**mem) => {
                Err(SessionError::RingOutsideMemory { index: self.index })
            }
            _ => Ok(()),
        }
    }

    /// Gives out nothing more, so that the peer can have everything back. Returns whether there is
    /// something to wait for: a stopped queue has nothing.
    pub(super) fn drain(&mut self) -> bool {
        self.enter(VringChange::Drained);
        self.is_draining()
    }

    /// Forgets the ring; its peer sets it up anew to start again. Call and error descriptors stay:
    /// some frontends send them once.
    pub(super) fn stop(&mut self) {
        self.queue.reset();
        (self.memory, self.addresses, self.kick) = (None, None, None);
        self.enter(VringChange::Stopped);
        self.unfinished.clear();
    }
}
