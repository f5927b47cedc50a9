//! The protocol: which message is legal when, and what it changes.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::Vring;
use crate::memory::GuestMemory;

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

/// The peer broke the protocol; close the session and stop its queues.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The socket failed.
    #[error("vhost-user socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// One vhost-user connection.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    profile: DeviceProfile,
    features: u64,
    memory: Option<Arc<GuestMemory>>,
    vrings: Vec<Vring>,
}

impl Session {
    /// Takes over a connected socket and makes it non-blocking.
    ///
    /// # Errors
    /// The socket refuses to become non-blocking.
    pub fn new(stream: UnixStream, profile: DeviceProfile) -> Result<Self, SessionError> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, profile, features: 0, memory: None, vrings: Vec::new() })
    }

    /// Handles what the peer has sent. Never blocks. Call it when the socket is readable.
    ///
    /// # Errors
    /// The peer broke the protocol or memory could not be mapped; drop the session.
    pub fn ready(&mut self) -> Result<Ready, SessionError> {
        let _ = &self.profile;
        Ok(Ready::default())
    }

    /// All requests of a queue that had to be drained are completed: tells the peer.
    ///
    /// # Errors
    /// The peer does not read its replies.
    pub fn drained(&mut self, index: u16) -> Result<(), SessionError> {
        let _ = index;
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
        self.memory.as_ref()
    }

    /// A queue, running or not.
    pub fn queue(&mut self, index: u16) -> Option<&mut Vring> {
        self.vrings.get_mut(usize::from(index))
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
