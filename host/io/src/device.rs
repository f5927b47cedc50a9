//! One tenant's device: its vhost-user session, its frontend, and the requests that were taken off
//! its ring and wait for the scheduler.
//!
//! Requests are taken off the ring as soon as they are seen, so that their order of arrival is
//! known; their number is bounded by the size of the ring. A failed device keeps its place until it
//! is detached: it serves nothing and says why.

mod peers;
mod queues;

use std::sync::Arc;

use moirai_devices::backend::Storage;
use moirai_devices::net::Role;
use moirai_devices::vhost::Session;
use moirai_scheduler::{Amount, ClientId, Head, Moment, Span};

use crate::blk::Blk;
use crate::budget::Budget;
use crate::link::Link;
use crate::nic::{Net, Sender};
use crate::populate::{Presence, Report};
use crate::record::Record;
use crate::{DeviceId, Peer};

/// Thousandths of the loop's time that a peer may take by its messages, and how much of it at once.
/// A few dozen messages set a device up; what a peer sends beyond that stays in its socket.
const TALK: u64 = 20;
const TALK_BURST: Span = Span::from_millis(20);
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
    /// Held by whoever unmaps and closes what the last peer has left behind.
    leavings: Arc<()>,
    /// It is in the loop's list of devices with something to do at the end of the turn.
    pub(crate) touched: bool,
    /// What its peer's messages may cost.
    pub(crate) talk: Budget,
    pub(crate) usage: Usage,
    /// How well its contract was kept.
    pub(crate) record: Record,
}

/// What a device has cost and what it got, apart from its account with the scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) completed: u64,
    pub(crate) bytes: u64,
    pub(crate) latency_max: Span,
    pub(crate) queued_max: usize,
    pub(crate) io_cpu: Amount,
    pub(crate) received: u64,
    /// Packets for it that were dropped because receiving them would have taken too much time.
    pub(crate) over_budget: u64,
    /// Of `io_cpu`: what receiving has taken.
    pub(crate) receive_cpu: Amount,
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
    /// Something was in it: a request, or one that went back at once.
    pub(crate) any: bool,
}

impl<St: Storage> Device<St> {
    pub(crate) fn new(
        id: DeviceId,
        tenant: String,
        session: Session,
        body: Body<St>,
        queues: u16,
    ) -> Self {
        Self {
            id,
            tenant,
            session,
            body,
            memory: Report::default(),
            queues: vec![Queue::default(); usize::from(queues)],
            failed: None,
            failures: 0,
            left: false,
            next_peer: None,
            exported: false,
            leavings: Arc::new(()),
            touched: false,
            talk: Budget::new(TALK, TALK_BURST),
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
    /// `links`: all of the domain.
    pub(crate) fn take<L>(&mut self, queue: u16, now: Moment, links: &mut [Link<L>]) -> Taken {
        let nothing = Taken { new_head: false, more: false, any: false };
        if !self.runs(queue) || self.memory.get() == Presence::Coming {
            return nothing;
        }
        let before = self.queued();
        let Some(vring) = self.session.queue(queue) else { return nothing };
        let mut answered = false;
        let more = match &mut self.body {
            Body::Blk(blk) => batch(|| blk.take(vring, queue, now, &mut answered)),
            Body::Net(net) => {
                let mut link = links.get_mut(net.link);
                let from = Sender { id: self.id, queue, now, tenant: &self.tenant };
                batch(|| net.take(vring, &from, link.as_deref_mut(), &mut answered))
            }
        };
        if answered {
            self.mark(queue);
        }
        let queued = self.queued();
        self.usage.queued_max = self.usage.queued_max.max(queued);
        let new_head = before == 0 && queued > 0;
        let any = answered || queued > before;
        match more {
            Ok(more) => Taken { new_head, more, any },
            Err(why) => {
                self.fail(queue, why);
                Taken { new_head, more: false, any: true }
            }
        }
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
