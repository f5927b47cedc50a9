//! What a device fails at, and how its peers come and go.

use std::sync::Arc;

use moirai_devices::backend::Storage;
use moirai_devices::vhost::Session;

use super::{Body, Device};
use crate::Peer;
use crate::populate::Report;

/// What it fails at, and its peers.
impl<St> Device<St> {
    /// A queue's ring is broken: the device stops until its driver resets it.
    pub(crate) fn fail(&mut self, queue: u16, why: String) {
        if let Some(vring) = self.session.queue(queue) {
            vring.fail();
        }
        if let Some(queue) = self.queue_mut(queue) {
            queue.runs = false;
        }
        self.note_failure(why);
    }

    /// It does not work any more.
    pub(crate) fn note_failure(&mut self, why: String) {
        self.failures = self.failures.saturating_add(1);
        // A driver can break its ring and reset its device a thousand times a second, a peer can
        // come back and break the protocol; the log tells of the first few times and then ever more
        // seldom.
        let failures = self.failures;
        if failures.is_power_of_two() {
            tracing::warn!(tenant = %self.tenant, failures, "device failed: {why}");
        }
        self.failed = Some(why);
    }

    /// Why it does not work, if so.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Its peer is gone.
    pub(crate) fn has_left(&self) -> bool {
        self.left
    }
}

impl<St: Storage> Device<St> {
    /// Why it does not work, or why what stands behind it does not.
    pub(crate) fn trouble(&self) -> Option<&str> {
        let behind = match &self.body {
            Body::Blk(blk) => blk.volume.failure(),
            Body::Net(_) => None,
        };
        self.failed().or(behind)
    }

    /// The peer is gone or broken: nothing of it is served any more.
    pub(crate) fn leave(&mut self) {
        self.left = true;
        if self.exported {
            // Whoever accepts the next peer waits for this.
            self.session.hang_up();
        }
        for queue in &mut self.queues {
            (queue.runs, queue.polled, queue.drains) = (false, false, false);
        }
        match &mut self.body {
            Body::Blk(blk) => blk.waiting.clear(),
            Body::Net(net) => net.waiting.clear(),
        }
    }

    /// Another peer is to be served when the last one's requests are done.
    pub(crate) fn expect(&mut self, peer: Peer) {
        self.exported = true;
        self.next_peer = Some(peer);
    }

    /// The peer that is to be served now, if nothing of the last one is in a disk: a write of the
    /// dead that reaches the disk after one of the living would be a lost write.
    pub(crate) fn take_next_peer(&mut self) -> Option<Peer> {
        if self.is_abandoned() { self.next_peer.take() } else { None }
    }

    /// For whoever takes away what a peer has left behind, until that is done.
    pub(crate) fn leavings(&self) -> Arc<()> {
        Arc::clone(&self.leavings)
    }

    /// Whether another peer waits and what the last one has left is not yet taken away: closing a
    /// file of its can take as long as it likes, and the next one could leave such a file again.
    pub(crate) fn is_being_cleared(&self) -> bool {
        self.next_peer.is_some() && Arc::strong_count(&self.leavings) > 1
    }

    /// Whether its last peer has left for good, and nothing of it is in a disk.
    pub(crate) fn is_abandoned(&self) -> bool {
        let idle = match &self.body {
            Body::Blk(blk) => blk.in_flight == 0,
            Body::Net(_) => true,
        };
        self.left && self.exported && idle
    }

    /// A new peer is served by this session; the old one, to be dropped where there is time for it.
    pub(crate) fn welcome(&mut self, session: Session) -> Session {
        self.memory = Report::default();
        (self.left, self.failed) = (false, None);
        self.queues.iter_mut().for_each(|queue| queue.unsignalled = false);
        match &mut self.body {
            Body::Blk(blk) => blk.abandon(),
            Body::Net(net) => net.card.abandon(),
        }
        std::mem::replace(&mut self.session, session)
    }

    /// The queues that have become empty, whose peer waits for that.
    pub(crate) fn drained(&mut self) -> Vec<u16> {
        let mut drained = Vec::new();
        for (index, queue) in (0..).zip(&mut self.queues) {
            let empty = || match &self.body {
                Body::Blk(blk) => blk.is_drained(index),
                Body::Net(net) => net.is_drained(index),
            };
            if queue.drains && empty() {
                queue.drains = false;
                drained.push(index);
            }
        }
        drained
    }
}
