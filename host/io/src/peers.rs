//! The vhost-user peers: what they say, which of their descriptors are watched, how they are left.

use moirai_devices::backend::{Link as _, Ring as _};
use moirai_devices::vhost::{DeviceProfile, Event, Session};
use moirai_scheduler::Moment;
use rustix::fd::AsFd;

use crate::device::{Body, Place};
use crate::domain::{Domain, announce};
use crate::populate::{Report, populate};
use crate::seams::{Machine as _, Seams};
use crate::token::Token;
use crate::{DeviceId, IoDomainError, Peer};

impl<S: Seams> Domain<S> {
    /// Handles what a device's vhost-user peer said.
    pub(crate) fn session(&mut self, id: DeviceId, now: Moment) {
        let Some(device) = self.devices.get_mut(id).filter(|device| !device.has_left()) else {
            return;
        };
        let begin = self.machine.now();
        if !device.talk.has(begin) {
            return self.retries.muted.push(id, begin);
        }
        match device.session.ready() {
            Ok(ready) => {
                if ready.again {
                    self.devices.read_again(id);
                }
                if ready.pause {
                    self.retries.muted.push(id, begin);
                }
                for event in ready.events {
                    self.event(id, event, now);
                }
            }
            Err(error) => {
                device.note_failure(format!("vhost-user: {error}"));
                self.stop_serving(id, now);
            }
        }
        let cost = self.machine.now().since(begin);
        if let Some(device) = self.devices.get_mut(id) {
            device.talk.pay(begin, cost);
            device.usage.io_cpu += cost.service();
        }
    }

    /// Ends the sessions whose peer's memory could not be accessed.
    pub(crate) fn end_lost(&mut self, now: Moment) {
        for id in self.devices.lost() {
            if let Some(device) = self.devices.get_mut(id) {
                device.note_failure("its memory could not be accessed (SIGBUS)".to_owned());
            }
            self.stop_serving(id, now);
        }
    }

    fn event(&mut self, id: DeviceId, event: Event, now: Moment) {
        let Some(device) = self.devices.get_mut(id) else { return };
        match event {
            Event::Memory(memory) => {
                let before = std::mem::take(&mut device.memory);
                device.memory = populate(&self.machine, &memory, before);
                self.devices.await_memory(id);
            }
            Event::Features(features) => match &mut device.body {
                Body::Net(net) => net.card.set_features(features),
                Body::Blk(blk) => {
                    blk.frontends.iter_mut().for_each(|it| it.set_features(features));
                }
            },
            Event::QueueStarted { index } => {
                let queues = if device.start(index) { device.queues() } else { index..index + 1 };
                self.listen(Token::Kick(id, index), now);
                queues.for_each(|queue| self.kicked(id, queue, true, now));
            }
            Event::QueueKickChanged { index } => {
                self.listen(Token::Kick(id, index), now);
                self.kicked(id, index, true, now);
            }
            Event::QueueStopped { index, drain } => {
                device.stop(index, drain);
                let _ = self.ring.cancel(Token::Kick(id, index).encode());
                self.devices.touch(id);
            }
            Event::Closed => self.stop_serving(id, now),
        }
    }

    /// Another peer for a device whose peers come and go.
    pub(crate) fn connect(
        &mut self,
        id: DeviceId,
        peer: Peer,
        now: Moment,
    ) -> Result<(), IoDomainError> {
        let device = self.devices.get_mut(id).ok_or(IoDomainError::UnknownDevice(id))?;
        device.expect(peer);
        if let (Place::Link(link), _) = device.place()
            && let Some(link) = self.links.get_mut(link)
        {
            link.neighbours.renew(id);
        }
        self.stop_serving(id, now);
        Ok(())
    }

    /// The peer is gone or broken: nothing of it is served any more until it is detached, or
    /// another one has connected.
    fn stop_serving(&mut self, id: DeviceId, now: Moment) {
        self.abandon_unfinished(id, now);
        let Some(device) = self.devices.get_mut(id) else { return };
        device.leave();
        announce(&mut self.disks, &mut self.links, device, now);
        self.unwatch(id);
        self.devices.touch(id);
    }

    /// Signals the guests, answers peers that wait for a queue to be empty, takes leave of those
    /// that are gone and greets the next ones.
    pub(crate) fn finish_turn(&mut self, now: Moment) {
        for id in self.devices.take_touched() {
            self.exchange_peers(id, now);
            let Some(device) = self.devices.get_mut(id) else { continue };
            device.signal();
            let drained = device.drained();
            for &queue in &drained {
                if let Err(error) = device.session.drained(queue) {
                    device.fail(queue, error.to_string());
                }
            }
            if !drained.is_empty() {
                // What the peer said while it waited was left unread.
                self.devices.read_again(id);
            }
        }
    }

    /// Gives back the memory of a peer that is gone, and begins a session with the one that waits.
    fn exchange_peers(&mut self, id: DeviceId, now: Moment) {
        let Some(device) = self.devices.get_mut(id).filter(|device| device.is_abandoned()) else {
            return;
        };
        if let Some(left_behind) = device.session.forget() {
            let leavings = device.leavings();
            device.memory = Report::default();
            self.machine.send_off("unmap", Box::new(move || drop((left_behind, leavings))));
        }
        if device.is_being_cleared() {
            return self.retries.muted.push(id, now);
        }
        let Some(Peer { socket, unsealed_memory }) = device.take_next_peer() else { return };
        let profile = device.session.profile().clone();
        let profile = DeviceProfile { allow_unsealed_memory: unsealed_memory, ..profile };
        let session = match Session::new(socket, profile) {
            Ok(session) => session,
            Err(error) => return tracing::warn!(tenant = %device.tenant, "a new peer: {error}"),
        };
        let old = device.welcome(session);
        tracing::info!(tenant = %device.tenant, "a peer has connected");
        self.machine.send_off("unmap", Box::new(move || drop(old)));
        self.listen(Token::Session(id), now);
    }

    /// Has the ring tell when there is something to hear; a kick and a TAP are listened to afresh.
    pub(crate) fn listen(&mut self, token: Token, now: Moment) {
        if matches!(token, Token::Kick(..) | Token::Tap(_)) {
            let _ = self.ring.cancel(token.encode());
        }
        let heard = match token {
            Token::Doorbell => Some(self.inbox.bell()),
            Token::Tap(link) => {
                self.links.get(usize::from(link)).and_then(|link| link.wire_end().bell())
            }
            Token::Session(id) => {
                let device = self.devices.get(id).filter(|device| !device.has_left());
                device.map(|device| device.session.as_fd())
            }
            Token::Kick(id, queue) => {
                let device = self.devices.get_mut(id);
                device.and_then(|device| device.session.queue(queue)?.kick())
            }
            Token::Job(_) => None,
        };
        let Some(descriptor) = heard else { return };
        if let Err(error) = self.ring.poll_readable(descriptor, token.encode()) {
            tracing::warn!(group = %self.name, "cannot listen to {token:?} at present: {error}");
            self.retries.unheard.push(token, now);
        }
    }

    pub(crate) fn unwatch(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get(id) else { return };
        let kicks = device.queues().map(|queue| Token::Kick(id, queue));
        for token in kicks.chain([Token::Session(id)]) {
            let _ = self.ring.cancel(token.encode());
        }
    }
}
