//! Why a session was given up: one variant per rule of the protocol that a peer can break.

use std::io;

use super::memory::MemoryError;

/// The peer broke the protocol, or its memory cannot be used. Drop the session and stop its queues;
/// nobody else is harmed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The socket failed.
    #[error("vhost-user socket: {0}")]
    Socket(#[from] io::Error),
    /// The peer does not read its replies, and we do not wait for it.
    #[error("the peer does not read its replies")]
    RepliesNotRead,
    /// A header with another version than 1, or marked as a reply.
    #[error("request {request} has header flags {flags:#x}")]
    BadHeader {
        /// Number of the request.
        request: u32,
        /// Its flags.
        flags: u32,
    },
    /// A payload that no message of ours can have.
    #[error("request {request} announces {size} bytes")]
    TooLong {
        /// Number of the request.
        request: u32,
        /// Announced length.
        size: u32,
    },
    /// More descriptors than any message may carry.
    #[error("too many file descriptors in one message")]
    TooManyFiles,
    /// A descriptor of something that could make us wait.
    #[error(
        "a file descriptor came that is neither memory (a memfd; QEMU: memory-backend-memfd) nor \
         an eventfd"
    )]
    StrangeFile,
    /// A payload of the wrong length.
    #[error("request {request} has a payload of {got} bytes, not {expected}")]
    WrongSize {
        /// Number of the request.
        request: u32,
        /// Bytes that came.
        got: usize,
        /// Bytes that the request has.
        expected: usize,
    },
    /// Descriptors missing or too many.
    #[error("request {request} came with {got} file descriptors, not {expected}")]
    WrongFiles {
        /// Number of the request.
        request: u32,
        /// Descriptors that came.
        got: usize,
        /// Descriptors that belong to it.
        expected: usize,
    },
    /// A request that we never offered.
    #[error("request {0} was not negotiated")]
    Unsupported(u32),
    /// Feature bits that were not offered, or another set while queues run.
    #[error("features {asked:#x} cannot be set (offered {offered:#x})")]
    BadFeatures {
        /// What the peer wants.
        asked: u64,
        /// What there is.
        offered: u64,
    },
    /// A queue was started without VIRTIO_F_VERSION_1.
    #[error("the driver is a legacy one (VIRTIO_F_VERSION_1 not negotiated)")]
    LegacyDriver,
    /// No such queue.
    #[error("queue {0} does not exist")]
    NoSuchQueue(u32),
    /// A queue may not be changed so while it runs.
    #[error("request {request} for queue {index} while that queue runs")]
    QueueRunning {
        /// The queue.
        index: u16,
        /// Number of the request.
        request: u32,
    },
    /// A size that is zero, no power of two, or too large.
    #[error("queue {index} cannot have size {size}")]
    BadQueueSize {
        /// The queue.
        index: u16,
        /// The size.
        size: u32,
    },
    /// A value outside its range, e.g. neither 0 nor 1 to enable a queue.
    #[error("request {request} has the value {value:#x}")]
    BadValue {
        /// Number of the request.
        request: u32,
        /// The value.
        value: u64,
    },
    /// The ring's addresses are misaligned or not in the memory table.
    #[error("ring of queue {index} does not lie in the guest's memory")]
    RingOutsideMemory {
        /// The queue.
        index: u16,
    },
    /// A queue without kick descriptor would have to be polled for ever.
    #[error("queue {0} has no kick descriptor; polled queues are not offered")]
    NoKick(u16),
    /// A kick, call or error descriptor that is no eventfd could block us.
    #[error("the descriptor of queue {0} is no eventfd")]
    NotEventfd(u16),
    /// The memory for requests in flight has no room for the queue.
    #[error("the in-flight memory has no room for queue {index} of {size} descriptors")]
    InflightTooSmall {
        /// The queue.
        index: u16,
        /// Its descriptors.
        size: u16,
    },
    /// The memory table is unusable.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
