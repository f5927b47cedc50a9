//! The loop itself: takes completions and requests, asks the schedulers, gives requests to disks and
//! packets to links, signals the guests, sleeps.
//!
//! A *turn* is one pass. Nothing in a turn waits, and every step of it is bounded, so no tenant
//! holds up another one: a ring gives at most a batch, a socket at most a few messages, a TAP at
//! most a burst. What is left over is looked at in the next turn.

use std::collections::BTreeMap;
use std::time::Duration;

use moirai_devices::backend::uring::Uring;
use moirai_devices::backend::{Completion, Ring as _};
use moirai_devices::net::Role;
use moirai_scheduler::Nanos;

use super::DeviceId;
use super::audit::Hiccups;
use super::device::{Body, Device};
use super::disk::Disk;
use super::handle::{Command, PRIORITY};
use super::link::Link;
use super::populate::Presence;
use super::requests::InFlight;
use super::serve::announce;
use super::token::Token;
use moirai_runtime::Inbox;
use moirai_runtime::{StallLog, now, set_scheduler_inherited};

/// How often the loop looks whether a guest's memory is present by now.
const POPULATING_LOOK: Nanos = 2_000_000;

/// All state of one I/O domain. Owned by its thread.
pub(super) struct EventLoop {
    pub(super) name: String,
    pub(super) core: Option<usize>,
    pub(super) ring: Uring,
    pub(super) inbox: Inbox<Command>,
    pub(super) disks: Vec<Disk>,
    pub(super) links: Vec<Link>,
    pub(super) devices: BTreeMap<DeviceId, Device>,
    /// Disk requests in flight, by the number in their token.
    pub(super) jobs: Vec<Option<InFlight>>,
    /// Jobs that found the ring full.
    pub(super) stalled: Vec<u32>,
    /// Sessions with more messages than one turn handles.
    pub(super) again: Vec<DeviceId>,
    pub(super) poll_ns: Nanos,
    pub(super) polled_ns: Nanos,
    pub(super) sleeps: u64,
    /// When there last was something to do for a disk. Polling saves a disk's client the wake-up
    /// between two requests; packets wait for the wire anyway.
    pub(super) active_at: Nanos,
    /// When misses were last attributed.
    pub(super) audited_at: Nanos,
    pub(super) stalls: StallLog,
    pub(super) hiccups: Hiccups,
    pub(super) ended: bool,
}

impl EventLoop {
    pub(super) fn run(mut self) {
        self.watch_doorbell();
        for link in 0..self.links.len() {
            self.watch_tap(link);
        }
        while !self.ended {
            let begin = now();
            let busy = self.turn(begin);
            let end = now();
            let polling = !busy && end.saturating_sub(self.active_at) < self.poll_ns;
            if polling {
                self.polled_ns += end - begin;
            }
            let timeout =
                if busy || polling || self.arm() { Some(Duration::ZERO) } else { self.rest(end) };
            self.hand_to_workers();
            // The kernel being short of memory for an instant is no reason to stop serving.
            if let Err(error) = self.ring.submit_and_wait(timeout) {
                tracing::warn!(group = %self.name, "io_uring: {error}");
            }
            if timeout != Some(Duration::ZERO) {
                self.sleeps += 1;
                if let Some(planned) = timeout.and_then(|rest| after(end, rest)) {
                    self.hiccups.note(planned, now());
                }
            }
        }
    }

    /// Submits what the kernel's workers will do: flushes, discards, what has to wait for pages. A
    /// worker takes class and priority of this thread when it is made, and is to stand below it, but
    /// above everything that serves no contract: a flush that waits for a share of the core keeps its
    /// place in the disk for that long.
    fn hand_to_workers(&mut self) {
        if !self.ring.offloads() {
            return;
        }
        // Without the right to real-time priority this thread would not have started.
        let _ = set_scheduler_inherited(libc::SCHED_FIFO, PRIORITY - 1);
        if let Err(error) = self.ring.submit() {
            tracing::warn!(group = %self.name, "io_uring: {error}");
        }
        let _ = set_scheduler_inherited(libc::SCHED_FIFO, PRIORITY);
    }

    /// One pass over everything; true if there was something to do.
    fn turn(&mut self, now: Nanos) -> bool {
        let mut busy = false;
        // Before anything that moves the schedulers' clocks beyond the ends of packets.
        self.links.iter_mut().for_each(|link| link.settle(now));
        while let Some(completion) = self.ring.next_completion() {
            busy = true;
            self.complete(completion, now);
        }
        for slot in std::mem::take(&mut self.stalled) {
            self.step(slot, None, now);
        }
        for device in std::mem::take(&mut self.again) {
            self.session(device, now);
        }
        busy |= self.look(now);
        for link in 0..self.links.len() {
            busy |= self.receive(link);
            busy |= self.serve_link(link);
        }
        for disk in 0..self.disks.len() {
            if self.serve_disk(disk) {
                (busy, self.active_at) = (true, now);
            }
        }
        self.finish_turn();
        self.audit(now);
        busy
    }

    /// Takes requests off the rings that are polled. A ring is polled from its first kick on until
    /// the loop goes to sleep.
    fn look(&mut self, now: Nanos) -> bool {
        let mut found = false;
        for device in self.devices.values_mut() {
            for queue in 0..device.queues() {
                if !device.polled.get(usize::from(queue)).copied().unwrap_or(false) {
                    continue;
                }
                let taken = device.take(queue, now);
                found |= taken.more;
                if taken.new_head {
                    found = true;
                    announce(&mut self.disks, &mut self.links, device, now);
                }
            }
        }
        found
    }

    fn complete(&mut self, completion: Completion, now: Nanos) {
        let Completion { token, result, more } = completion;
        let cancelled = result.as_ref().err().and_then(std::io::Error::raw_os_error);
        let cancelled = cancelled == Some(libc::ECANCELED);
        match Token::decode(token) {
            // Whoever cancelled it watches again if there is something to watch.
            Some(Token::Session(_) | Token::Kick(..)) if cancelled => {}
            Some(Token::Doorbell) => {
                self.inbox.silence();
                if !more {
                    self.watch_doorbell();
                }
                self.obey(now);
            }
            Some(Token::Session(id)) => {
                self.session(id, now);
                if !more {
                    self.watch_session(id);
                }
            }
            Some(Token::Kick(id, queue)) => self.kicked(id, queue, more, now),
            Some(Token::Tap(link)) => {
                let link = usize::from(link);
                if let Some(link) = self.links.get_mut(link) {
                    link.unread = true;
                }
                if !more {
                    self.watch_tap(link);
                }
            }
            Some(Token::Job(slot)) => {
                self.active_at = now;
                self.step(slot, Some((token, result)), now);
            }
            None => {}
        }
    }

    pub(super) fn kicked(&mut self, id: DeviceId, queue: u16, more: bool, now: Nanos) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if !device.runs(queue) {
            return;
        }
        if let Some(vring) = device.session.queue(queue) {
            // A kick that cannot be read was none.
            let _ = vring.drain_kick();
        }
        if !more {
            self.watch_kick(id, queue);
        }
        let Some(device) = self.devices.get_mut(&id) else { return };
        if device.gives_requests(queue) {
            device.poll(queue);
            if device.take(queue, now).new_head {
                announce(&mut self.disks, &mut self.links, device, now);
            }
        }
    }

    /// Before sleeping: drivers shall kick again. True if something arrived meanwhile. The packets
    /// of a link that is busy or has a backlog need no kick: they are looked for when it is free.
    fn arm(&mut self) -> bool {
        let now = now();
        let mut arrived = false;
        let links: Vec<bool> = (0..self.links.len())
            .map(|link| self.backlog(link) || !self.links[link].is_free(now))
            .collect();
        for device in self.devices.values_mut() {
            let later = |device: &Device, queue| match &device.body {
                Body::Net(net) => {
                    let busy = links.get(net.link).copied().unwrap_or(false);
                    // A driver waits for the answer to a command, however busy the link is.
                    busy && net.card.role(queue) != Role::Control
                }
                Body::Blk(_) => false,
            };
            for queue in 0..device.queues() {
                if !later(device, queue) && device.arm(queue) {
                    device.poll(queue);
                    arrived = true;
                }
            }
        }
        arrived
    }

    fn backlog(&self, place: usize) -> bool {
        self.devices.values().any(|device| match &device.body {
            Body::Net(net) => net.link == place && !net.waiting.is_empty(),
            Body::Blk(_) => false,
        })
    }

    /// How long there is nothing to do, unless something happens.
    fn rest(&self, now: Nanos) -> Option<Duration> {
        let links = self.links.iter().enumerate();
        let links = links.filter_map(|(place, link)| link.timeout(self.backlog(place), now));
        let disks = self.disks.iter().filter_map(|disk| disk.timeout(now));
        let unread = self.links.iter().any(|link| link.unread).then_some(now);
        let again = (!self.again.is_empty()).then_some(now);
        let coming = self.devices.values().any(|device| device.memory.get() == Presence::Coming);
        let coming = coming.then_some(now + POPULATING_LOOK);
        let next = links.chain(disks).chain(unread).chain(again).chain(coming).min();
        next.map(|next| Duration::from_nanos(next.saturating_sub(now)))
    }
}

fn after(time: Nanos, rest: Duration) -> Option<Nanos> {
    time.checked_add(Nanos::try_from(rest.as_nanos()).ok()?)
}
