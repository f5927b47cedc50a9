//! One tenant's device: its vhost-user session, its frontend, and the requests that were taken off
//! its ring and wait for the scheduler.
//!
//! Requests are taken off the ring as soon as they are seen, so that their order of arrival is
//! known; their number is bounded by the size of the ring. A failed device keeps its place until it
//! is detached: it serves nothing and says why.

use moirai_devices::backend::Storage;
use moirai_devices::net::Role;
use moirai_devices::vhost::Session;
use moirai_scheduler::{ClientId, Contract, Head, Nanos};

use crate::blk::Blk;
use crate::link::Link;
use crate::nic::Net;
use crate::populate::{Presence, Report};
use crate::record::Record;
use crate::{DeviceId, Peer};

/// How many chains are taken off one ring at a time, so that no tenant holds up the loop.
const BATCH: usize = 64;

/// A queue as the loop sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    /// It may be served.
    runs: bool,
    /// Its driver is told not to kick, because the loop looks by itself.
    polled: bool,
    /// It is in the loop's list of polled queues.
    listed: bool,
    /// Its peer waits until nothing is in flight.
    drains: bool,
    /// It has completions that the driver was not told about.
    unsignalled: bool,
}

/// One device.
pub(crate) struct Device<St> {
    pub(crate) id: DeviceId,
    pub(crate) tenant: String,
    pub(crate) contract: Contract,
    pub(crate) session: Session,
    pub(crate) body: Body<St>,
    /// Whether all of the guest's memory is present in this process.
    pub(crate) memory: Report,
    queues: Vec<Queue>,
    /// Why it does not work, if so.
    failed: Option<String>,
    /// How often that has happened.
    failures: u32,
    /// The peer hung up or was hung up on; nothing of it is listened to.
    left: bool,
    /// For a device whose peers come and go: the one that is served when the last one's requests
    /// are done.
    next_peer: Option<Peer>,
    /// Whether its peers come and go.
    exported: bool,
    /// It is in the loop's list of devices with something to do at the end of the turn.
    pub(crate) touched: bool,
    pub(crate) usage: Usage,
    /// How well its contract was kept.
    pub(crate) record: Record,
}

/// What a device has cost and what it got, apart from its account with the scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) completed: u64,
    pub(crate) bytes: u64,
    pub(crate) latency_max: Nanos,
    pub(crate) queued_max: usize,
    pub(crate) io_cpu: Nanos,
    pub(crate) received: u64,
}

/// What kind of device it is.
pub(crate) enum Body<St> {
    Blk(Blk<St>),
    Net(Net),
}

/// What a device is a client of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The disk of this number in the domain.
    Disk(usize),
    /// The link of this number.
    Link(usize),
}

/// What [`Device::take`] found on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// There is a new head of the queue to tell the scheduler.
    pub(crate) new_head: bool,
    /// The ring may hold more.
    pub(crate) more: bool,
}

impl<St: Storage> Device<St> {
    pub(crate) fn new(
        id: DeviceId,
        tenant: String,
        contract: Contract,
        session: Session,
        body: Body<St>,
        queues: u16,
    ) -> Self {
        Self {
            id,
            tenant,
            contract,
            session,
            body,
            memory: Report::default(),
            queues: vec![Queue::default(); usize::from(queues)],
            failed: None,
            failures: 0,
            left: false,
            next_peer: None,
            exported: false,
            touched: false,
            usage: Usage::default(),
            record: Record::default(),
        }
    }

    /// Whose client it is, and under which number.
    pub(crate) fn place(&self) -> (Place, ClientId) {
        match &self.body {
            Body::Blk(blk) => (Place::Disk(blk.disk), blk.client),
            Body::Net(net) => (Place::Link(net.link), net.client),
        }
    }

    /// What its scheduler may know of its first waiting request. `links`: all of the domain.
    pub(crate) fn head<L>(&self, links: &[Link<L>]) -> Option<Head> {
        match &self.body {
            Body::Blk(blk) => blk.head(),
            Body::Net(net) => net.head(links.get(net.link)?),
        }
    }

    /// The same of a device on this link.
    pub(crate) fn head_on<L>(&self, link: &Link<L>) -> Option<Head> {
        match &self.body {
            Body::Blk(_) => None,
            Body::Net(net) => net.head(link),
        }
    }

    /// Whether it is the queue by which a driver sends commands.
    pub(crate) fn is_control(&self, queue: u16) -> bool {
        matches!(&self.body, Body::Net(net) if net.card.role(queue) == Role::Control)
    }

    /// Whether requests come from this queue; they do not from a network device's receive queues.
    pub(crate) fn gives_requests(&self, queue: u16) -> bool {
        match &self.body {
            Body::Blk(_) => true,
            Body::Net(net) => matches!(net.card.role(queue), Role::Transmit(_) | Role::Control),
        }
    }

    /// Requests that wait for the scheduler.
    pub(crate) fn queued(&self) -> usize {
        match &self.body {
            Body::Blk(blk) => blk.waiting.len(),
            Body::Net(net) => net.waiting.len(),
        }
    }

    /// Takes a batch of requests off a ring.
    pub(crate) fn take(&mut self, queue: u16, now: Nanos) -> Taken {
        let nothing = Taken { new_head: false, more: false };
        if !self.runs(queue) || self.memory.get() == Presence::Coming {
            return nothing;
        }
        let before = self.queued();
        let Some(vring) = self.session.queue(queue) else { return nothing };
        let mut answered = false;
        let more = match &mut self.body {
            Body::Blk(blk) => batch(|| blk.take(vring, queue, now, &mut answered)),
            Body::Net(net) => batch(|| net.take(vring, queue, now, &mut answered)),
        };
        if answered {
            self.mark(queue);
        }
        let queued = self.queued();
        self.usage.queued_max = self.usage.queued_max.max(queued);
        let new_head = before == 0 && queued > 0;
        match more {
            Ok(more) => Taken { new_head, more },
            Err(why) => {
                self.fail(queue, why);
                Taken { new_head, more: false }
            }
        }
    }
}

/// Its queues.
impl<St> Device<St> {
    fn queue(&self, queue: u16) -> Queue {
        self.queues.get(usize::from(queue)).copied().unwrap_or_default()
    }

    fn queue_mut(&mut self, queue: u16) -> Option<&mut Queue> {
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

/// Calls `next` until it says that there is no more, or a batch is full. True if there may be more.
fn batch(mut next: impl FnMut() -> Result<bool, String>) -> Result<bool, String> {
    for _ in 0..BATCH {
        if !next()? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
impl<St> Device<St> {
    /// Where its queues stand, for who looks for a fault.
    pub(crate) fn describe(&self) -> String {
        format!("memory {:?}, left {}, {:?}", self.memory.get(), self.left, self.queues)
    }
}
