//! The vhost-user peers: what they say, which of their descriptors are watched, how they are left.

use moirai_devices::backend::Ring as _;
use moirai_devices::blk;
use moirai_devices::vhost::{DeviceProfile, Event, Session};
use moirai_scheduler::Nanos;
use rustix::fd::AsFd;

use super::background::background;
use super::device::{Body, Device};
use super::event_loop::EventLoop;
use super::populate::{Report, populate};
use super::serve::announce;
use super::token::Token;
use super::{DeviceId, IoDomainError, Peer};

impl EventLoop {
    /// Handles what a device's vhost-user peer said.
    pub(super) fn session(&mut self, id: DeviceId, now: Nanos) {
        let Some(device) = self.devices.get_mut(&id).filter(|device| !device.left) else { return };
        let ready = match device.session.ready() {
            Ok(ready) => ready,
            Err(error) => {
                let why = format!("vhost-user: {error}");
                device.failures = device.failures.saturating_add(1);
                // As in `Device::fail`: a peer can come back and do it again for ever.
                let failures = device.failures;
                if failures.is_power_of_two() {
                    tracing::warn!(tenant = %device.tenant, failures, "{why}");
                }
                device.failed = Some(why);
                return self.stop_serving(id, now);
            }
        };
        if ready.again {
            self.again.push(id);
        }
        for event in ready.events {
            self.event(id, event, now);
        }
    }

    fn event(&mut self, id: DeviceId, event: Event, now: Nanos) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        match event {
            Event::Memory(memory) => device.memory = populate(self.core, &memory),
            Event::Features(features) => match &mut device.body {
                Body::Net(net) => net.card.set_features(features),
                Body::Blk(blk) => {
                    blk.frontends.iter_mut().for_each(|it| it.set_features(features));
                }
            },
            Event::QueueStarted { index } => {
                device.failed = None;
                if let Some(running) = device.running.get_mut(usize::from(index)) {
                    *running = true;
                }
                self.watch_kick(id, index);
                self.kicked(id, index, true, now);
            }
            Event::QueueKickChanged { index } => {
                self.watch_kick(id, index);
                self.kicked(id, index, true, now);
            }
            Event::QueueStopped { index, drain } => {
                if let Some(running) = device.running.get_mut(usize::from(index)) {
                    *running = false;
                }
                let _ = self.ring.cancel(Token::Kick(id, index).encode());
                if drain {
                    device.draining.push(index);
                }
            }
            Event::Closed => self.stop_serving(id, now),
        }
    }

    /// Another peer for a device whose peers come and go.
    pub(super) fn connect(
        &mut self,
        id: DeviceId,
        peer: Peer,
        now: Nanos,
    ) -> Result<(), IoDomainError> {
        let device = self.devices.get_mut(&id).ok_or(IoDomainError::UnknownDevice(id))?;
        device.exported = true;
        device.next_peer = Some(peer);
        self.stop_serving(id, now);
        Ok(())
    }

    /// Begins a session with the peer that waits. The last one's requests have to be done: a write of
    /// the dead that reaches the disk after one of the living would be a lost write.
    fn welcome(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let Some(Peer { socket, unsealed_memory }) = device.next_peer.take() else { return };
        let profile = device.session.profile().clone();
        let profile = DeviceProfile { allow_unsealed_memory: unsealed_memory, ..profile };
        let session = match Session::new(socket, profile) {
            Ok(session) => session,
            Err(error) => return tracing::warn!(tenant = %device.tenant, "a new peer: {error}"),
        };
        let old = std::mem::replace(&mut device.session, session);
        background("unmap", self.core, move || drop(old));
        device.memory = Report::default();
        (device.left, device.failed) = (false, None);
        device.unsignalled.fill(false);
        match &mut device.body {
            Body::Blk(blk) => blk.frontends.iter_mut().for_each(blk::Frontend::abandon),
            Body::Net(net) => net.card.abandon(),
        }
        tracing::info!(tenant = %device.tenant, "a peer has connected");
        self.watch_session(id);
    }

    /// Takes leave of peers that are gone: gives their memory back, greets the next ones.
    fn exchange_peers(&mut self) {
        let gone = |device: &&mut Device| device.left && device.exported && device.is_idle();
        let mut next = Vec::new();
        for device in self.devices.values_mut().filter(gone) {
            if device.next_peer.is_some() {
                next.push(device.id);
            } else if device.session.memory().is_some() {
                let left_behind = device.session.forget();
                background("unmap", self.core, move || drop(left_behind));
            }
        }
        next.into_iter().for_each(|id| self.welcome(id));
    }

    /// The peer is gone or broken: nothing of it is served any more until it is detached, or another
    /// one has connected.
    fn stop_serving(&mut self, id: DeviceId, now: Nanos) {
        self.abandon_unfinished(id, now);
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.left = true;
        if device.exported {
            // Whoever accepts the next peer waits for this.
            device.session.hang_up();
        }
        device.running.fill(false);
        device.polled.fill(false);
        device.draining.clear();
        match &mut device.body {
            Body::Blk(blk) => blk.waiting.clear(),
            Body::Net(net) => net.waiting.clear(),
        }
        announce(&mut self.disks, &mut self.links, device, now);
        self.unwatch(id);
    }

    /// Signals the guests, and answers peers that wait for a queue to be empty.
    pub(super) fn finish_turn(&mut self) {
        self.exchange_peers();
        for device in self.devices.values_mut() {
            device.signal();
            if device.draining.is_empty() {
                continue;
            }
            let body = &device.body;
            let (done, rest) = device.draining.iter().partition(|&&queue| match body {
                Body::Blk(blk) => blk.is_drained(queue),
                Body::Net(net) => net.is_drained(queue),
            });
            device.draining = rest;
            let done: Vec<u16> = done;
            for queue in done {
                match device.session.drained(queue) {
                    // What the peer said while it waited was left unread.
                    Ok(()) => self.again.push(device.id),
                    Err(error) => device.fail(queue, error.to_string()),
                }
            }
        }
    }

    pub(super) fn watch_doorbell(&mut self) {
        let token = Token::Doorbell.encode();
        if let Err(error) = self.ring.poll_readable(self.inbox.bell(), token) {
            tracing::error!(group = %self.name, "the I/O domain is deaf: {error}");
        }
    }

    pub(super) fn watch_tap(&mut self, place: usize) {
        let (Some(link), Ok(number)) = (self.links.get(place), u16::try_from(place)) else {
            return;
        };
        let token = Token::Tap(number).encode();
        if let Err(error) = self.ring.poll_readable(link.tap().as_fd(), token) {
            tracing::error!(group = %self.name, "a link is deaf: {error}");
        }
    }

    pub(super) fn watch_session(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get(&id).filter(|device| !device.left) else {
            return;
        };
        let token = Token::Session(id).encode();
        if let Err(error) = self.ring.poll_readable(device.session.as_fd(), token) {
            tracing::error!(group = %self.name, "a device is deaf: {error}");
        }
    }

    pub(super) fn watch_kick(&mut self, id: DeviceId, queue: u16) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let token = Token::Kick(id, queue).encode();
        let _ = self.ring.cancel(token);
        let Some(kick) = device.session.queue(queue).and_then(|vring| vring.kick()) else { return };
        if let Err(error) = self.ring.poll_readable(kick, token) {
            tracing::error!(group = %self.name, "a queue is deaf: {error}");
        }
    }

    pub(super) fn unwatch(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get(&id) else { return };
        let queues = u16::try_from(device.running.len()).unwrap_or(u16::MAX);
        let kicks = (0..queues).map(|queue| Token::Kick(id, queue));
        for token in kicks.chain([Token::Session(id)]) {
            let _ = self.ring.cancel(token.encode());
        }
    }
}
