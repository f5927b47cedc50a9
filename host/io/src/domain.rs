//! The loop itself: takes completions and requests, asks the schedulers, gives requests to disks
//! and packets to links, signals the guests, sleeps.
//!
//! A *turn* is one pass. Nothing in a turn waits, and every step of it is bounded, so no tenant
//! holds up another one: a ring gives at most a batch, a socket at most a few messages, a TAP at
//! most a burst. What is left over is looked at in the next turn. A turn costs what there is to do:
//! it goes through lists of work, not through the devices.

use std::time::Duration;

use moirai_devices::backend::{Completion, Ring as _};
use moirai_runtime::{Inbox, StallLog};
use moirai_scheduler::{Moment, Span};

use crate::DeviceId;
use crate::command::Command;
use crate::device::Place;
use crate::devices::Devices;
use crate::disk::Disk;
use crate::jobs::Jobs;
use crate::link::Link;
use crate::outages::Outages;
use crate::retries::Retries;
use crate::seams::{Machine, Seams};
use crate::token::Token;

/// What a domain is made of.
pub(crate) struct Parts<S: Seams> {
    pub(crate) name: String,
    pub(crate) machine: S::Machine,
    pub(crate) ring: S::Ring,
    pub(crate) inbox: Inbox<Command<S::Storage>>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) links: Vec<Link<S::Link>>,
    pub(crate) poll: Span,
    pub(crate) stalls: StallLog,
}

/// All state of one I/O domain. Owned by its thread.
pub(crate) struct Domain<S: Seams> {
    pub(crate) name: String,
    pub(crate) machine: S::Machine,
    pub(crate) ring: S::Ring,
    pub(crate) inbox: Inbox<Command<S::Storage>>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) links: Vec<Link<S::Link>>,
    pub(crate) devices: Devices<S::Storage>,
    pub(crate) jobs: Jobs,
    pub(crate) retries: Retries,
    pub(crate) outages: Outages,
    pub(crate) rest: Rest,
    pub(crate) ended: bool,
    /// Picks of a client that had nothing: none, as long as every head is announced.
    pub(crate) idle_picks: u64,
}

/// How the loop has slept, and how long it looks for work before it does.
#[derive(Debug)]
pub(crate) struct Rest {
    poll: Span,
    pub(crate) polled: Span,
    pub(crate) sleeps: u64,
    /// When there last was something to do for a disk. Polling saves a disk's client the wake-up
    /// between two requests; packets wait for the wire anyway.
    active_at: Moment,
}

impl<S: Seams> Domain<S> {
    pub(crate) fn new(parts: Parts<S>) -> Self {
        let Parts { name, machine, ring, inbox, disks, links, poll, stalls } = parts;
        let mut domain = Self {
            name,
            machine,
            ring,
            inbox,
            disks,
            links,
            devices: Devices::default(),
            jobs: Jobs::default(),
            retries: Retries::default(),
            outages: Outages::new(stalls),
            rest: Rest { poll, polled: Span::ZERO, sleeps: 0, active_at: Moment::ZERO },
            ended: false,
            idle_picks: 0,
        };
        domain.listen(Token::Doorbell, Moment::ZERO);
        let links = 0..u16::try_from(domain.links.len()).unwrap_or(u16::MAX);
        links.for_each(|link| domain.listen(Token::Tap(link), Moment::ZERO));
        domain
    }

    /// Serves until somebody says that it is enough.
    pub(crate) fn run(mut self) {
        while !self.ended {
            self.cycle();
        }
    }

    /// One turn, and the sleep after it.
    pub(crate) fn cycle(&mut self) {
        let begin = self.machine.now();
        self.machine.turns(begin);
        let busy = self.turn(begin);
        let end = self.machine.now();
        let polling = !busy && end.since(self.rest.active_at) < self.rest.poll;
        if polling {
            self.rest.polled += end - begin;
        }
        let timeout =
            if busy || polling || self.arm(end) { Some(Duration::ZERO) } else { self.timeout(end) };
        if self.ring.offloads() {
            let (ring, name) = (&mut self.ring, &self.name);
            self.machine.with_workers_below(&mut || note(name, ring.submit()));
        }
        if timeout != Some(Duration::ZERO) {
            self.machine.rests(end);
        }
        note(&self.name, self.ring.submit_and_wait(timeout));
        if timeout != Some(Duration::ZERO) {
            self.rest.sleeps += 1;
            if let Some(planned) = timeout.and_then(|rest| after(end, rest)) {
                self.outages.note(planned, self.machine.now());
            }
        }
    }

    /// One pass over what there is to do; true if there was something.
    fn turn(&mut self, now: Moment) -> bool {
        let mut busy = false;
        // Before anything that moves the schedulers' clocks beyond the ends of packets.
        self.links.iter_mut().for_each(|link| link.settle(now));
        while let Some(completion) = self.ring.next_completion() {
            busy = true;
            self.jobs.stir();
            self.complete(completion, now);
        }
        for (slot, _) in self.jobs.due(now) {
            self.go_on(slot, now);
        }
        for token in self.retries.unheard.due(now) {
            self.listen(token, now);
        }
        for device in self.retries.muted.due(now) {
            self.devices.read_again(device);
            self.devices.touch(device);
        }
        for device in self.devices.take_again() {
            self.session(device, now);
        }
        busy |= self.look(now);
        for link in 0..self.links.len() {
            busy |= self.receive(link);
            busy |= self.serve_link(link);
        }
        for disk in 0..self.disks.len() {
            if self.serve_disk(disk) {
                (busy, self.rest.active_at) = (true, now);
            }
        }
        self.end_lost(now);
        self.finish_turn(now);
        self.audit(now);
        busy
    }

    fn complete(&mut self, completion: Completion, now: Moment) {
        let Completion { token, result, more } = completion;
        let cancelled = result.as_ref().err().and_then(std::io::Error::raw_os_error);
        let cancelled = cancelled == Some(libc::ECANCELED);
        match Token::decode(token) {
            // Whoever cancelled it watches again if there is something to watch.
            Some(Token::Session(_) | Token::Kick(..) | Token::Tap(_)) if cancelled => {}
            Some(Token::Doorbell) => {
                self.inbox.silence();
                if !more {
                    self.listen(Token::Doorbell, now);
                }
                self.obey(now);
            }
            Some(Token::Session(id)) => {
                self.session(id, now);
                if !more {
                    self.listen(Token::Session(id), now);
                }
            }
            Some(Token::Kick(id, queue)) => self.kicked(id, queue, more, now),
            Some(Token::Tap(link)) => {
                let Some(place) = self.links.get_mut(usize::from(link)) else { return };
                place.unread = true;
                if !more && !place.intake.is_closed() {
                    self.listen(Token::Tap(link), now);
                }
            }
            Some(Token::Job(slot)) => {
                self.rest.active_at = now;
                self.came_back(slot, token, result, now);
            }
            None => {}
        }
    }

    /// Takes requests off the rings that are polled. A ring is polled from a kick on until nothing
    /// was found in it for a while, or the loop goes to sleep.
    fn look(&mut self, now: Moment) -> bool {
        let mut found = false;
        let mut place = 0;
        while let Some((polled, device)) = self.devices.polled(place) {
            let taken = device.take(polled.queue, now, &mut self.links);
            if taken.new_head {
                announce(&mut self.disks, &mut self.links, device, now);
            }
            found |= taken.more || taken.new_head;
            if taken.any {
                self.devices.found(place, now);
                self.devices.touch(polled.device);
            } else if polled.is_idle(now) && self.may_arm(polled.device, polled.queue, now) {
                found |= self.arm_at(place);
            }
            place += 1;
        }
        found
    }

    pub(crate) fn kicked(&mut self, id: DeviceId, queue: u16, more: bool, now: Moment) {
        if !more {
            self.listen(Token::Kick(id, queue), now);
        }
        let Some(device) = self.devices.get_mut(id).filter(|device| device.runs(queue)) else {
            return;
        };
        if let Some(vring) = device.session.queue(queue) {
            // A kick that cannot be read was none.
            let _ = vring.drain_kick();
        }
        if !device.gives_requests(queue) {
            return;
        }
        self.devices.poll(id, queue, now);
        let Some(device) = self.devices.get_mut(id) else { return };
        if device.take(queue, now, &mut self.links).new_head {
            announce(&mut self.disks, &mut self.links, device, now);
        }
        self.devices.touch(id);
    }

    /// Before sleeping: drivers shall kick again. True if something arrived meanwhile.
    fn arm(&mut self, now: Moment) -> bool {
        let mut arrived = false;
        let mut place = 0;
        while let Some((polled, _)) = self.devices.polled(place) {
            if self.may_arm(polled.device, polled.queue, now) {
                arrived |= self.arm_at(place);
            }
            place += 1;
        }
        arrived
    }

    fn arm_at(&mut self, place: usize) -> bool {
        self.devices.polled(place).is_some_and(|(polled, device)| device.arm(polled.queue))
    }

    /// Whether a queue's driver has to kick. The packets of a link that is busy or has a backlog
    /// need no kick: they are looked for when it is free.
    fn may_arm(&self, id: DeviceId, queue: u16, now: Moment) -> bool {
        let Some(device) = self.devices.get(id) else { return true };
        let Place::Link(link) = device.place().0 else { return true };
        let rests =
            self.links.get(link).is_none_or(|link| !link.has_backlog() && link.is_free(now));
        // A driver waits for the answer to a command, however busy the link is.
        rests || device.is_control(queue)
    }

    /// How long there is nothing to do, unless something happens.
    fn timeout(&mut self, now: Moment) -> Option<Duration> {
        /// How often the loop looks whether a guest's memory is present by now.
        const POPULATING_LOOK: Span = Span::from_millis(2);
        let coming = self.devices.awaits_memory().then_some(now + POPULATING_LOOK);
        let links = self.links.iter().filter_map(|link| link.timeout(now));
        let disks = self.disks.iter().filter_map(|disk| disk.timeout(now));
        let unread = self.links.iter().filter(|link| link.unread);
        let unread = unread.map(|link| link.intake.opens_at(now));
        let again = self.devices.has_again().then_some(now);
        let retries = self.jobs.timeout().into_iter().chain(self.retries.at());
        let next = links.chain(disks).chain(unread).chain(again).chain(coming).chain(retries).min();
        next.map(|next| next.since(now).duration())
    }
}

/// Tells a device's scheduler what its first waiting request is now.
pub(crate) fn announce<St: moirai_devices::backend::Storage, L>(
    disks: &mut [Disk],
    links: &mut [Link<L>],
    device: &crate::device::Device<St>,
    now: Moment,
) {
    let head = device.head(links);
    match device.place() {
        (Place::Disk(place), client) => {
            if let Some(disk) = disks.get_mut(place) {
                disk.schedule.head(client, head, now);
            }
        }
        (Place::Link(place), client) => {
            if let Some(link) = links.get_mut(place) {
                link.schedule().head(client, head, now);
            }
        }
    }
}

/// The kernel being short of memory for an instant is no reason to stop serving.
fn note(name: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(group = %name, "io_uring: {error}");
    }
}

fn after(time: Moment, rest: Duration) -> Option<Moment> {
    Some(time.saturating_add(Span::from_duration(rest))).filter(|end| *end < Moment::MAX)
}
