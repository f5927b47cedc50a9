//! What a session is told at its birth, and what it tells its owner.

use std::sync::Arc;

use crate::memory::GuestMemory;

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
    /// Features were negotiated (also [`features`](super::Session::features)).
    Features(u64),
    /// The queue may be served: it has memory, addresses and a kick descriptor, and is enabled.
    /// Watch its kick descriptor and look at the ring once now.
    QueueStarted {
        /// Which queue.
        index: u16,
    },
    /// Take no more from this queue, stop watching its kick descriptor. With `drain` the peer waits
    /// until everything in flight was completed: call [`drained`](super::Session::drained) then.
    QueueStopped {
        /// Which queue.
        index: u16,
        /// Whether the peer waits for [`drained`](super::Session::drained).
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

/// What [`ready`](super::Session::ready) did.
#[derive(Debug, Default)]
pub struct Ready {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// More messages may wait than one call is willing to handle: call again soon, without waiting
    /// for the socket to become readable.
    pub again: bool,
    /// No message is read now, because requests in flight still use as many memory tables as there
    /// may be: call again in a while.
    pub pause: bool,
}
