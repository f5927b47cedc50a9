//! One tenant's device: its vhost-user session, its frontend, and the requests that were taken off
//! its ring and wait for the scheduler.
//!
//! Requests are taken off the ring as soon as they are seen, so that their order of arrival is
//! known; their number is bounded by the size of the ring. A failed device keeps its place until it
//! is detached: it serves nothing and says why.

use std::collections::VecDeque;

use moirai_devices::backend::{Storage as _, Volume};
use moirai_devices::blk;
use moirai_devices::net::{Card, Role, tx};
use moirai_devices::vhost::{Session, Vring};
use moirai_scheduler::{Contract, Head, Nanos};

use super::backlog::Backlog;
use super::populate::{Presence, Report};
use super::record::Record;
use super::{DeviceId, Peer};

/// How many chains are taken off one ring at a time, so that no tenant holds up the loop.
const BATCH: usize = 64;

/// A request that waits for the scheduler.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) unit: T,
    pub(super) queue: u16,
    pub(super) arrival: Nanos,
}

/// One device.
pub(super) struct Device {
    pub(super) id: DeviceId,
    pub(super) tenant: String,
    pub(super) contract: Contract,
    pub(super) session: Session,
    pub(super) body: Body,
    /// Whether all of the guest's memory is present in this process.
    pub(super) memory: Report,
    /// Queues that may be served, by index.
    pub(super) running: Vec<bool>,
    /// Queues whose driver is told not to kick because the loop looks by itself.
    pub(super) polled: Vec<bool>,
    /// Queues whose peer waits until nothing is in flight.
    pub(super) draining: Vec<u16>,
    /// Queues with completions that the driver was not told about.
    pub(super) unsignalled: Vec<bool>,
    pub(super) failed: Option<String>,
    /// How often that has happened.
    pub(super) failures: u32,
    /// The peer hung up or was hung up on; nothing of it is listened to.
    pub(super) left: bool,
    /// For a device whose peers come and go: the one that is served when the last one's requests
    /// are done.
    pub(super) next_peer: Option<Peer>,
    /// Whether its peers come and go.
    pub(super) exported: bool,
    pub(super) usage: Usage,
    /// How well its contract was kept.
    pub(super) record: Record,
}

/// What a device has cost and what it got, apart from its account with the scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) completed: u64,
    pub(super) bytes: u64,
    pub(super) latency_max: Nanos,
    pub(super) queued_max: usize,
    pub(super) io_cpu: Nanos,
    pub(super) received: u64,
}

/// What kind of device it is.
pub(super) enum Body {
    Blk(Blk),
    Net(Net),
}

/// A virtio-blk device.
pub(super) struct Blk {
    /// Place of its disk in the domain.
    pub(super) disk: usize,
    pub(super) volume: Volume,
    /// Of a contract that was written as a rate: the bandwidth by which it became a slice, in bytes
    /// per second.
    pub(super) bandwidth: Option<u64>,
    pub(super) frontends: Vec<blk::Frontend>,
    pub(super) waiting: VecDeque<Waiting<blk::Request>>,
    /// Requests in the disk of which only some parts were begun, by their numbers there; the rest goes
    /// before what is waiting.
    pub(super) unfinished: VecDeque<Waiting<u32>>,
    pub(super) in_flight: usize,
}

/// A virtio-net device.
pub(super) struct Net {
    /// Place of its link in the domain.
    pub(super) link: usize,
    pub(super) card: Card,
    pub(super) waiting: Backlog,
}

/// What [`Device::take`] found on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// There is a new head of the queue to tell the scheduler.
    pub(super) new_head: bool,
    /// The ring may hold more.
    pub(super) more: bool,
}

impl Device {
    pub(super) fn new(
        id: DeviceId,
        tenant: String,
        contract: Contract,
        session: Session,
        body: Body,
        queues: usize,
    ) -> Self {
        Self {
            id,
            tenant,
            contract,
            session,
            body,
            memory: Report::default(),
            running: vec![false; queues],
            polled: vec![false; queues],
            draining: Vec::new(),
            unsignalled: vec![false; queues],
            failed: None,
            failures: 0,
            left: false,
            next_peer: None,
            exported: false,
            usage: Usage::default(),
            record: Record::default(),
        }
    }

    /// Whether requests are taken from this queue.
    pub(super) fn runs(&self, queue: u16) -> bool {
        self.failed.is_none() && self.running.get(usize::from(queue)).copied().unwrap_or(false)
    }

    /// Number of queues.
    pub(super) fn queues(&self) -> u16 {
        u16::try_from(self.running.len()).unwrap_or(u16::MAX)
    }

    /// Whether requests come from this queue; they do not from a network device's receive queues.
    pub(super) fn gives_requests(&self, queue: u16) -> bool {
        match &self.body {
            Body::Blk(_) => true,
            Body::Net(net) => matches!(net.card.role(queue), Role::Transmit(_) | Role::Control),
        }
    }

    /// Whether nothing of its peer is in a disk.
    pub(super) fn is_idle(&self) -> bool {
        match &self.body {
            Body::Blk(blk) => blk.in_flight == 0,
            Body::Net(_) => true,
        }
    }

    /// Requests that wait for the scheduler.
    pub(super) fn queued(&self) -> usize {
        match &self.body {
            Body::Blk(blk) => blk.waiting.len(),
            Body::Net(net) => net.waiting.len(),
        }
    }

    /// Takes a batch of requests off a ring.
    pub(super) fn take(&mut self, queue: u16, now: Nanos) -> Taken {
        let nothing = Taken { new_head: false, more: false };
        if !self.runs(queue) || self.memory.get() == Presence::Coming {
            return nothing;
        }
        let Some(vring) = self.session.queue(queue) else { return nothing };
        let before = match &self.body {
            Body::Blk(blk) => blk.waiting.len(),
            Body::Net(net) => net.waiting.len(),
        };
        let mut answered = false;
        let more = match &mut self.body {
            Body::Blk(blk) => {
                let Some(frontend) = blk.frontends.get_mut(usize::from(queue)) else {
                    return nothing;
                };
                let waiting = &mut blk.waiting;
                batch(|| {
                    let unfinished = vring.next_unfinished();
                    let Some((memory, ring)) = vring.parts() else { return Ok(false) };
                    let next = match unfinished {
                        Some(head) => frontend.request_again(memory, ring, head),
                        None => frontend.next_request(memory, ring),
                    };
                    match next.map_err(|error| error.to_string())? {
                        blk::Next::Request(unit) => {
                            vring.note_taken(unit.token.head());
                            waiting.push_back(Waiting { unit, queue, arrival: now });
                        }
                        blk::Next::Answered => {
                            vring.note_returned(unfinished);
                            answered = true;
                        }
                        blk::Next::Empty => return Ok(false),
                    }
                    Ok(true)
                })
            }
            Body::Net(net) => net.take(vring, queue, now, &mut answered),
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

    /// A queue's ring is broken: the device stops until its driver resets it.
    pub(super) fn fail(&mut self, queue: u16, why: String) {
        if let Some(vring) = self.session.queue(queue) {
            vring.fail();
        }
        if let Some(running) = self.running.get_mut(usize::from(queue)) {
            *running = false;
        }
        self.failures = self.failures.saturating_add(1);
        // A driver can break its ring and reset its device a thousand times a second; the log tells
        // of the first few times and then ever more seldom.
        let failures = self.failures;
        if failures.is_power_of_two() {
            tracing::warn!(tenant = %self.tenant, queue, failures, "device failed: {why}");
        }
        self.failed = Some(why);
    }

    /// The driver is to be told about completions on this queue at the end of the turn.
    pub(super) fn mark(&mut self, queue: u16) {
        if let Some(flag) = self.unsignalled.get_mut(usize::from(queue)) {
            *flag = true;
        }
    }

    /// Tells the driver about completions, once for all of a turn.
    pub(super) fn signal(&mut self) {
        for queue in 0..self.unsignalled.len() {
            if !std::mem::take(&mut self.unsignalled[queue]) {
                continue;
            }
            let Ok(index) = u16::try_from(queue) else { continue };
            let told = self.session.queue(index).map(|vring| vring.signal());
            if let Some(Err(error)) = told {
                self.fail(index, format!("cannot signal the driver: {error}"));
            }
        }
    }

    /// Prepares for sleep: asks the drivers to kick again. True if something arrived meanwhile.
    pub(super) fn arm(&mut self, queue: u16) -> bool {
        if self.memory.get() == Presence::Coming {
            return false;
        }
        let Some(polled) = self.polled.get_mut(usize::from(queue)).filter(|polled| **polled) else {
            return false;
        };
        *polled = false;
        let armed = self.session.queue(queue).map(|vring| vring.enable_kicks());
        match armed {
            Some(Ok(arrived)) => arrived,
            Some(Err(error)) => {
                self.fail(queue, format!("cannot arm the queue: {error}"));
                false
            }
            None => false,
        }
    }

    /// From now on the loop looks at this queue by itself.
    pub(super) fn poll(&mut self, queue: u16) {
        if self.polled.get(usize::from(queue)).copied().unwrap_or(true) {
            return;
        }
        // If the driver cannot be told it just kicks once more than it needs to.
        if self.session.queue(queue).is_some_and(|vring| vring.disable_kicks().is_ok())
            && let Some(polled) = self.polled.get_mut(usize::from(queue))
        {
            *polled = true;
        }
    }
}

impl Blk {
    /// What the scheduler may know of the first waiting request.
    ///
    /// None while its image's worker is busy: what would wait for it must not take up the disk's
    /// depth, which is others', too.
    pub(super) fn head(&self) -> Option<Head> {
        if self.volume.is_busy() {
            return None;
        }
        if let Some(first) = self.unfinished.front() {
            return Some(Head { cost: 0, arrival: first.arrival, position: 0 });
        }
        self.waiting.front().map(|first| {
            let position = match &first.unit.op {
                blk::Op::Read { offset_bytes } | blk::Op::Write { offset_bytes, .. } => {
                    offset_bytes / blk::SECTOR_BYTES
                }
                blk::Op::Flush | blk::Op::Discard(_) | blk::Op::WriteZeroes(_) => 0,
            };
            // What it may cost is for the disk's window to know, not for its policy.
            Head { cost: 0, arrival: first.arrival, position }
        })
    }

    /// Whether nothing of this queue is waiting or in flight.
    pub(super) fn is_drained(&self, queue: u16) -> bool {
        let frontend = self.frontends.get(usize::from(queue));
        frontend.is_none_or(|frontend| frontend.in_flight() == 0)
    }
}

impl Net {
    /// Takes a batch of packets off a transmit queue, or answers a batch of commands; whether there
    /// may be more. `answered`: the driver is to be told about chains that went back.
    fn take(
        &mut self,
        vring: &mut Vring,
        queue: u16,
        now: Nanos,
        answered: &mut bool,
    ) -> Result<bool, String> {
        let role = self.card.role(queue);
        batch(|| {
            let Some((memory, ring)) = vring.parts() else { return Ok(false) };
            let Role::Transmit(pair) = role else {
                let served = role == Role::Control
                    && self.card.serve_control(memory, ring).map_err(|e| e.to_string())?;
                *answered |= served;
                return Ok(served);
            };
            let Some(frontend) = self.card.transmit(pair) else { return Ok(false) };
            match frontend.next_packet(memory, ring).map_err(|e| e.to_string())? {
                tx::Next::Packet(unit) => {
                    self.waiting.push_back(pair, Waiting { unit, queue, arrival: now });
                }
                tx::Next::Dropped => {
                    vring.note_returned(None);
                    *answered = true;
                }
                tx::Next::Empty => return Ok(false),
            }
            Ok(true)
        })
    }

    /// Whether nothing of this queue is waiting.
    pub(super) fn is_drained(&self, queue: u16) -> bool {
        self.card.in_flight(queue) == 0
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
