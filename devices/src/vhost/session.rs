//! The protocol: which message is legal when, and what it changes.
//!
//! While a stopped queue drains, no further message is read: its peer waits for the answer anyway,
//! and what an impatient one sends stays in the socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfig, VhostUserMemory, VhostUserMemoryRegion,
    VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures, VhostUserVringAddr,
    VhostUserVringState,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::memory::{Limits, MemoryTable};
use super::vring::RingAddresses;
use super::wire::{self, Message, Received, Receiver};
use super::{SessionError, Vring};
use crate::memory::GuestMemory;

/// Messages that one call of [`Session::ready`] handles at most.
const MESSAGES_PER_CALL: usize = 64;

/// Longest read of the configuration space, as in QEMU.
const MAX_CONFIG_BYTES: u32 = 256;

/// Default of [`DeviceProfile::max_memory_bytes`]: 1 TiB.
pub const DEFAULT_MAX_MEMORY_BYTES: u64 = 1 << 40;

/// What a session offers to its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceProfile {
    /// Virtio feature bits.
    pub features: u64,
    /// Configuration space; reads beyond its end give zeros.
    pub config: Vec<u8>,
    /// Number of queues.
    pub queues: u16,
    /// Largest size of a queue, a power of two.
    pub max_queue_size: u16,
    /// Accept memory that its owner could truncate, which would kill this process with SIGBUS.
    /// Only for VMMs that are trusted and cannot seal their memory.
    pub allow_unsealed_memory: bool,
    /// Most guest memory that is mapped, in bytes: address space is shared by all sessions.
    pub max_memory_bytes: u64,
}

/// What a message changed for the owner of the session.
#[derive(Debug)]
pub enum Event {
    /// There is a new memory table. Requests in flight keep the old one alive.
    Memory(Arc<GuestMemory>),
    /// Features were negotiated (also `Session::features`).
    Features(u64),
    /// The queue may be served: it has memory, addresses and a kick descriptor, and is enabled.
    /// Watch its kick descriptor and look at the ring once now.
    QueueStarted {
        /// Which queue.
        index: u16,
    },
    /// Take no more from this queue, stop watching its kick descriptor. With `drain` the peer waits
    /// until everything in flight was completed: call [`Session::drained`] then.
    QueueStopped {
        /// Which queue.
        index: u16,
        /// Whether the peer waits for [`Session::drained`].
        drain: bool,
    },
    /// The kick descriptor of a running queue is another one now.
    QueueKickChanged {
        /// Which queue.
        index: u16,
    },
    /// The peer is gone. Nothing follows.
    Closed,
}

/// What [`Session::ready`] did.
#[derive(Debug, Default)]
pub struct Ready {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// More messages may wait than one call is willing to handle: call again soon, without waiting
    /// for the socket to become readable.
    pub again: bool,
}

/// What the peer gets for a message.
enum Answer {
    /// An acknowledgement, if it asked for one.
    Ack,
    /// "That failed", if it asked; the session goes on.
    Nack,
    /// A reply in any case.
    Reply(Vec<u8>),
    /// A reply after the queue was drained.
    Later,
}

/// One vhost-user connection.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    receiver: Receiver,
    profile: DeviceProfile,
    features: u64,
    protocol: Protocol,
    memory: Option<MemoryTable>,
    vrings: Vec<Vring>,
    events: Vec<Event>,
    /// The GET_VRING_BASE request that waits for its queue to drain.
    awaited: Option<u16>,
}

impl Session {
    /// Takes over a connected socket and makes it non-blocking.
    ///
    /// # Errors
    /// The socket refuses to become non-blocking, or the profile's queue size is no power of two.
    pub fn new(stream: UnixStream, profile: DeviceProfile) -> Result<Self, SessionError> {
        stream.set_nonblocking(true)?;
        let vrings = (0..profile.queues)
            .map(|index| Vring::new(index, profile.max_queue_size))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            stream,
            receiver: Receiver::default(),
            profile,
            features: 0,
            protocol: Protocol::empty(),
            memory: None,
            vrings,
            events: Vec::new(),
            awaited: None,
        })
    }

    /// Handles what the peer has sent. Never blocks. Call it when the socket is readable.
    ///
    /// # Errors
    /// The peer broke the protocol or memory could not be mapped; drop the session.
    pub fn ready(&mut self) -> Result<Ready, SessionError> {
        for _ in 0..MESSAGES_PER_CALL {
            if self.vrings.iter().any(|vring| vring.draining) {
                return Ok(self.take_events(false));
            }
            match self.receiver.receive(self.stream.as_fd())? {
                Received::Message(message) => self.handle(message)?,
                Received::Nothing => return Ok(self.take_events(false)),
                Received::Closed => {
                    self.events.push(Event::Closed);
                    return Ok(self.take_events(false));
                }
            }
        }
        Ok(self.take_events(true))
    }

    fn take_events(&mut self, again: bool) -> Ready {
        Ready { events: std::mem::take(&mut self.events), again }
    }

    /// All requests of a queue that had to be drained are completed: tells the peer. Call
    /// [`Session::ready`] afterwards: it read nothing while the queue drained.
    ///
    /// # Errors
    /// The peer is gone or does not read its replies.
    pub fn drained(&mut self, index: u16) -> Result<(), SessionError> {
        let vring = self.vrings.get_mut(usize::from(index)).filter(|vring| vring.draining);
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

    /// The feature bits that the driver has chosen.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Whether the driver has chosen feature bit number `bit`.
    pub fn has_feature(&self, bit: u32) -> bool {
        self.features.checked_shr(bit).unwrap_or(0) & 1 == 1
    }

    /// The guest's memory, once there is some.
    pub fn memory(&self) -> Option<&Arc<GuestMemory>> {
        self.memory.as_ref().map(|table| &table.guest)
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
            FrontendReq::SET_VRING_KICK => self.set_vring_kick(message),
            FrontendReq::SET_VRING_CALL => {
                let (index, eventfd) = self.vring_file(message)?;
                self.vring(index.into())?.set_call(eventfd);
                Ok(Answer::Ack)
            }
            FrontendReq::SET_VRING_ERR => {
                let (index, eventfd) = self.vring_file(message)?;
                self.vring(index.into())?.error = eventfd;
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
        let runs = self.vrings.iter().any(|vring| vring.running);
        if asked & !offered != 0 || (runs && features != self.features) {
            return Err(SessionError::BadFeatures { asked, offered });
        }
        self.features = features;
        self.events.push(Event::Features(features));
        if asked & protocol_bit == 0 {
            // Without protocol features there is no SET_VRING_ENABLE: rings are born enabled.
            for vring in &mut self.vrings {
                vring.enabled = true;
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
            vring.enabled = false;
            if vring.started {
                (vring.draining, vring.running) = (true, false);
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

    fn set_mem_table(&mut self, message: &mut Message) -> Result<Answer, SessionError> {
        let (table, mut rest): (VhostUserMemory, _) = message.head()?;
        let count = usize::try_from(table.num_regions).unwrap_or(usize::MAX);
        let region_len = size_of::<VhostUserMemoryRegion>();
        if count == 0 || rest.len() != count.saturating_mul(region_len) {
            let expected = count.saturating_mul(region_len).saturating_add(8);
            let got = message.payload().len();
            return Err(SessionError::WrongSize { request: message.request, got, expected });
        }
        let mut regions = Vec::with_capacity(count);
        while let Some((bytes, tail)) = rest.split_at_checked(region_len) {
            let Some(region) = vm_memory::ByteValued::from_slice(bytes) else { break };
            regions.push(*region);
            rest = tail;
        }
        let files = message.take_files(count)?;
        let limits = Limits {
            max_bytes: self.profile.max_memory_bytes,
            allow_unsealed: self.profile.allow_unsealed_memory,
        };
        let table = MemoryTable::map(&regions, files, limits)?;
        for vring in &mut self.vrings {
            vring.locate(Some(&table))?;
            vring.revalidate()?;
        }
        self.events.push(Event::Memory(Arc::clone(&table.guest)));
        self.memory = Some(table);
        self.refresh_all()
    }

    fn set_vring_num(&mut self, state: VhostUserVringState) -> Result<Answer, SessionError> {
        self.idle_vring(state.index, FrontendReq::SET_VRING_NUM)?.set_size(state.num)?;
        Ok(Answer::Ack)
    }

    fn set_vring_addr(&mut self, body: VhostUserVringAddr) -> Result<Answer, SessionError> {
        let index = body.index;
        let vring = usize::try_from(index).ok().and_then(|index| self.vrings.get_mut(index));
        let vring = vring.ok_or(SessionError::NoSuchQueue(index))?;
        vring.addresses = Some(RingAddresses {
            descriptors: body.descriptor,
            available: body.available,
            used: body.used,
        });
        vring.locate(self.memory.as_ref())?;
        vring.revalidate()?;
        self.refresh_all()
    }

    fn set_vring_base(&mut self, state: VhostUserVringState) -> Result<Answer, SessionError> {
        let base = u16::try_from(state.num).map_err(|_| SessionError::BadValue {
            request: FrontendReq::SET_VRING_BASE.into(),
            value: u64::from(state.num),
        })?;
        self.idle_vring(state.index, FrontendReq::SET_VRING_BASE)?.set_base(base);
        Ok(Answer::Ack)
    }

    fn get_vring_base(&mut self, state: VhostUserVringState) -> Result<Answer, SessionError> {
        let vring = self.vring(state.index)?;
        let index =
            u16::try_from(state.index).map_err(|_| SessionError::NoSuchQueue(state.index))?;
        if !vring.started {
            let base = u32::from(vring.base());
            return Ok(Answer::Reply(vring_state(index, base)));
        }
        (vring.draining, vring.running) = (true, false);
        self.awaited = Some(index);
        self.events.push(Event::QueueStopped { index, drain: true });
        Ok(Answer::Later)
    }

    fn set_vring_enable(&mut self, state: VhostUserVringState) -> Result<Answer, SessionError> {
        let enabled = match state.num {
            0 => false,
            1 => true,
            value => {
                let request = FrontendReq::SET_VRING_ENABLE.into();
                return Err(SessionError::BadValue { request, value: value.into() });
            }
        };
        self.vring(state.index)?.enabled = enabled;
        self.refresh_all()
    }

    fn set_vring_kick(&mut self, message: &mut Message) -> Result<Answer, SessionError> {
        let (index, eventfd) = self.vring_file(message)?;
        let vring = self.vring(index.into())?;
        vring.kick = Some(eventfd.ok_or(SessionError::NoKick(index))?);
        vring.started = true;
        if vring.running {
            self.events.push(Event::QueueKickChanged { index });
        }
        self.refresh_all()
    }

    /// The queue index and eventfd of a KICK, CALL or ERR message; bit 8 says that there is none.
    fn vring_file(
        &mut self,
        message: &mut Message,
    ) -> Result<(u16, Option<OwnedFd>), SessionError> {
        let value = message.u64()?;
        let request = message.request;
        if value > 0x1ff {
            return Err(SessionError::BadValue { request, value });
        }
        let index = u16::try_from(value & 0xff).unwrap_or(u16::MAX);
        self.vring(index.into())?;
        let mut files = message.take_files(usize::from(value & 0x100 == 0))?;
        let Some(file) = files.pop() else { return Ok((index, None)) };
        if !is_eventfd(&file) {
            return Err(SessionError::NotEventfd(index));
        }
        Ok((index, Some(file)))
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring, SessionError> {
        let vring = usize::try_from(index).ok().and_then(|index| self.vrings.get_mut(index));
        vring.ok_or(SessionError::NoSuchQueue(index))
    }

    fn idle_vring(&mut self, index: u32, request: FrontendReq) -> Result<&mut Vring, SessionError> {
        let vring = self.vring(index)?;
        match (u16::try_from(index), vring.started) {
            (Ok(index), true) => Err(SessionError::QueueRunning { index, request: request.into() }),
            _ => Ok(vring),
        }
    }

    /// Starts and stops queues according to what is known of them now.
    fn refresh_all(&mut self) -> Result<Answer, SessionError> {
        for (index, vring) in (0..).zip(&mut self.vrings) {
            if !vring.refresh(self.features)? {
                continue;
            }
            if vring.running && self.features >> VIRTIO_F_VERSION_1 & 1 == 0 {
                return Err(SessionError::LegacyDriver);
            }
            self.events.push(match vring.running {
                true => Event::QueueStarted { index },
                false => Event::QueueStopped { index, drain: false },
            });
        }
        Ok(Answer::Ack)
    }
}

fn protocol_offered() -> Protocol {
    Protocol::CONFIG | Protocol::REPLY_ACK | Protocol::MQ
}

fn number(value: u64) -> Result<Answer, SessionError> {
    Ok(Answer::Reply(value.to_ne_bytes().to_vec()))
}

fn vring_state(index: u16, num: u32) -> Vec<u8> {
    [u32::from(index).to_ne_bytes(), num.to_ne_bytes()].concat()
}

/// Anything else could block us when read or written.
fn is_eventfd(file: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).is_ok_and(|target| target.as_os_str() == "anon_inode:[eventfd]")
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
