//! The protocol: messages in, events and replies out. `session/queues.rs` has the part about memory
//! and queues.
//!
//! While a stopped queue drains, the session reads no further message. A peer that keeps to the
//! protocol waits for the answer; what another one sends stays in the socket.

mod queues;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};

use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures,
};

use super::eventfd::prepare;
use super::memory::MemoryTable;
use super::wire::{self, Message, Received, Receiver};
use super::{DeviceProfile, Event, Ready, SessionError, Vring};
use crate::memory::GuestMemory;
use queues::vring_state;

/// Messages that one call of [`Session::ready`] handles at most.
const MESSAGES_PER_CALL: usize = 64;

/// Longest read of the configuration space, as in QEMU.
const MAX_CONFIG_BYTES: u32 = 256;

/// What the peer gets for a message.
pub(super) enum Answer {
    /// An acknowledgement, if it asked for one.
    Ack,
    /// "That failed", if it asked; the session goes on.
    Nack,
    /// A reply in any case.
    Reply(Vec<u8>),
    /// The same, with a descriptor.
    File(Vec<u8>, OwnedFd),
    /// A reply after the queue was drained.
    Later,
}

/// One vhost-user connection.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    receiver: Receiver,
    pub(super) profile: DeviceProfile,
    features: u64,
    protocol: Protocol,
    pub(super) table: Option<MemoryTable>,
    /// All that have been mapped and may still be in use.
    pub(super) tables: Vec<Weak<GuestMemory>>,
    pub(super) vrings: Vec<Vring>,
    /// What happened and was not reported yet.
    pub(super) events: Vec<Event>,
    /// The GET_VRING_BASE request that waits for its queue to drain.
    pub(super) awaited: Option<u16>,
    /// The peer is gone and this was reported.
    closed: bool,
}

impl Session {
    /// Takes over a connected socket and makes it non-blocking.
    ///
    /// # Errors
    /// The socket refuses to become non-blocking, the kernel cannot notify without waiting, or the
    /// profile's queue size is no power of two.
    pub fn new(stream: UnixStream, profile: DeviceProfile) -> Result<Self, SessionError> {
        stream.set_nonblocking(true)?;
        prepare()?;
        let vrings = (0..profile.queues)
            .map(|index| Vring::new(index, profile.max_queue_size))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            stream,
            receiver: Receiver::default(),
            profile,
            features: 0,
            protocol: Protocol::empty(),
            table: None,
            tables: Vec::new(),
            vrings,
            events: Vec::new(),
            awaited: None,
            closed: false,
        })
    }

    /// Handles what the peer has sent. Never blocks. Call it when the socket is readable.
    ///
    /// # Errors
    /// The peer broke the protocol or memory could not be mapped; drop the session.
    pub fn ready(&mut self) -> Result<Ready, SessionError> {
        for _ in 0..MESSAGES_PER_CALL {
            if self.closed || self.vrings.iter().any(Vring::is_draining) {
                return Ok(self.take_events(false));
            }
            if self.is_crowded() {
                return Ok(Ready { pause: true, ..self.take_events(false) });
            }
            match self.receiver.receive(self.stream.as_fd())? {
                Received::Message(message) => self.handle(message)?,
                Received::Nothing => return Ok(self.take_events(false)),
                Received::Closed => {
                    self.closed = true;
                    self.events.push(Event::Closed);
                    return Ok(self.take_events(false));
                }
            }
        }
        Ok(self.take_events(true))
    }

    fn take_events(&mut self, again: bool) -> Ready {
        Ready { events: std::mem::take(&mut self.events), again, pause: false }
    }

    /// All requests of a queue that had to be drained are completed: tells the peer. Call
    /// [`Session::ready`] afterwards: it read nothing while the queue drained.
    ///
    /// # Errors
    /// The peer is gone or does not read its replies.
    pub fn drained(&mut self, index: u16) -> Result<(), SessionError> {
        let vring = self.vrings.get_mut(usize::from(index)).filter(|vring| vring.is_draining());
        let Some(vring) = vring else { return Ok(()) };
        let base = u32::from(vring.base());
        vring.stop();
        if self.awaited == Some(index) {
            self.awaited = None;
            let reply = vring_state(index, base);
            wire::reply(self.stream.as_fd(), FrontendReq::GET_VRING_BASE.into(), &reply)?;
        }
        Ok(())
    }

    /// What the session offers to its peer.
    pub fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    /// Hangs up: the peer and every copy of the socket notice. What the session knows stays.
    pub fn hang_up(&self) {
        // It fails if the peer was faster.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Takes the guest's memory, its queues and unused files out of a session that is over; `None`
    /// if it has none. Unmapping takes time, and closing can take for ever: drop the result on a
    /// thread that may wait.
    pub fn forget(&mut self) -> Option<impl Send + 'static> {
        self.vrings.iter_mut().for_each(Vring::stop);
        let logs: Vec<_> = self.vrings.iter_mut().filter_map(Vring::take_log).collect();
        let (table, strange) = (self.table.take(), self.receiver.take_strange());
        let anything = table.is_some() || !logs.is_empty() || !strange.is_empty();
        anything.then_some((table, logs, strange))
    }

    /// The feature bits that the driver has chosen.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The guest's memory, once there is some.
    pub fn memory(&self) -> Option<&Arc<GuestMemory>> {
        self.table.as_ref().map(|table| &table.guest)
    }

    /// Whether memory that the peer has handed over could not be accessed ([`faults`]). What the
    /// session has read and written since is worth nothing: end it.
    ///
    /// [`faults`]: crate::memory::faults
    pub fn has_lost_memory(&self) -> bool {
        self.table.as_ref().is_some_and(MemoryTable::is_lost)
            || self.vrings.iter().any(Vring::has_lost_notes)
    }

    /// A queue, running or not.
    pub fn queue(&mut self, index: u16) -> Option<&mut Vring> {
        self.vrings.get_mut(usize::from(index))
    }

    fn handle(&mut self, mut message: Message) -> Result<(), SessionError> {
        let request = message.request;
        let wants_ack = message.need_reply && self.protocol.contains(Protocol::REPLY_ACK);
        let answer = self.apply(&mut message);
        let status = match &answer {
            Ok(Answer::Reply(payload)) => {
                return wire::reply(self.stream.as_fd(), request, payload);
            }
            Ok(Answer::File(payload, file)) => {
                return wire::reply_with(self.stream.as_fd(), request, payload, &[file.as_fd()]);
            }
            Ok(Answer::Later) => return Ok(()),
            Ok(Answer::Ack) => 0_u64,
            Ok(Answer::Nack) | Err(_) => 1,
        };
        let acked = match wants_ack {
            true => wire::reply(self.stream.as_fd(), request, &status.to_ne_bytes()),
            false => Ok(()),
        };
        match answer {
            // Told that it failed, the peer may go on without.
            Err(SessionError::Unsupported(_)) if wants_ack => acked,
            Err(error) => Err(error),
            Ok(_) => acked,
        }
    }

    fn apply(&mut self, message: &mut Message) -> Result<Answer, SessionError> {
        let unsupported = SessionError::Unsupported(message.request);
        let Some(code) = message.code() else { return Err(unsupported) };
        match code {
            FrontendReq::GET_FEATURES => number(self.offered()),
            FrontendReq::SET_FEATURES => self.set_features(message.u64()?),
            FrontendReq::GET_PROTOCOL_FEATURES => number(protocol_offered().bits()),
            FrontendReq::SET_PROTOCOL_FEATURES => self.set_protocol_features(message.u64()?),
            FrontendReq::SET_OWNER => message.empty().map(|()| Answer::Ack),
            FrontendReq::RESET_OWNER => self.reset_owner(),
            FrontendReq::GET_QUEUE_NUM => number(self.profile.queues.into()),
            FrontendReq::GET_CONFIG => self.get_config(message),
            // Nothing in our configuration spaces can be written.
            FrontendReq::SET_CONFIG => Ok(Answer::Nack),
            FrontendReq::SET_MEM_TABLE => self.set_mem_table(message),
            FrontendReq::SET_VRING_NUM => self.set_vring_num(message.body()?),
            FrontendReq::SET_VRING_ADDR => self.set_vring_addr(message.body()?),
            FrontendReq::SET_VRING_BASE => self.set_vring_base(message.body()?),
            FrontendReq::GET_VRING_BASE => self.get_vring_base(message.body()?),
            FrontendReq::SET_VRING_ENABLE => self.set_vring_enable(message.body()?),
            FrontendReq::GET_INFLIGHT_FD => self.get_inflight(message),
            FrontendReq::SET_INFLIGHT_FD => self.set_inflight(message),
            FrontendReq::SET_VRING_KICK => self.set_vring_kick(message),
            FrontendReq::SET_VRING_CALL => {
                let (index, eventfd) = self.vring_file(message)?;
                self.vring(index.into())?.set_call(eventfd);
                Ok(Answer::Ack)
            }
            FrontendReq::SET_VRING_ERR => {
                let (index, eventfd) = self.vring_file(message)?;
                self.vring(index.into())?.set_error(eventfd);
                Ok(Answer::Ack)
            }
            _ => Err(unsupported),
        }
    }

    fn offered(&self) -> u64 {
        self.profile.features | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn set_features(&mut self, asked: u64) -> Result<Answer, SessionError> {
        let offered = self.offered();
        let protocol_bit = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        let features = asked & !protocol_bit;
        let runs = self.vrings.iter().any(Vring::is_running);
        if asked & !offered != 0 || (runs && features != self.features) {
            return Err(SessionError::BadFeatures { asked, offered });
        }
        self.features = features;
        self.events.push(Event::Features(features));
        if asked & protocol_bit == 0 {
            // Without protocol features there is no SET_VRING_ENABLE: rings are born enabled.
            for vring in &mut self.vrings {
                vring.set_enabled(true);
            }
        }
        self.refresh_all()
    }

    fn set_protocol_features(&mut self, asked: u64) -> Result<Answer, SessionError> {
        let offered = protocol_offered();
        self.protocol = Protocol::from_bits(asked)
            .filter(|asked| offered.contains(*asked))
            .ok_or(SessionError::BadFeatures { asked, offered: offered.bits() })?;
        Ok(Answer::Ack)
    }

    fn reset_owner(&mut self) -> Result<Answer, SessionError> {
        for (index, vring) in (0..).zip(&mut self.vrings) {
            vring.set_enabled(false);
            if vring.drain() {
                self.events.push(Event::QueueStopped { index, drain: true });
            }
        }
        Ok(Answer::Ack)
    }

    /// The reply echoes the request with the bytes filled in; one without bytes means failure.
    fn get_config(&mut self, message: &Message) -> Result<Answer, SessionError> {
        let (asked, space): (VhostUserConfig, _) = message.head()?;
        let VhostUserConfig { offset, size, flags } = asked;
        let len = space.len();
        let good = size <= MAX_CONFIG_BYTES && usize::try_from(size) == Ok(len);
        let words = [offset, if good { size } else { 0 }, flags].map(u32::to_ne_bytes);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let config = self.profile.config.iter().skip(offset).chain(std::iter::repeat(&0));
        let bytes = config.take(if good { len } else { 0 });
        Ok(Answer::Reply(words.as_flattened().iter().chain(bytes).copied().collect()))
    }
}

fn protocol_offered() -> Protocol {
    Protocol::CONFIG | Protocol::REPLY_ACK | Protocol::MQ | Protocol::INFLIGHT_SHMFD
}

fn number(value: u64) -> Result<Answer, SessionError> {
    Ok(Answer::Reply(value.to_ne_bytes().to_vec()))
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
