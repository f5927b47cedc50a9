//! virtio-vsock, virtio 1.2 section 5.10: stream sockets between a guest and its host.
//!
//! [`Mux`] owns the connections and serves the two queues; a [`connection`] is one stream: a socket
//! of the host on one side, packets and credit on the other. The owner knows who listens on the
//! host, and hands over connected sockets.
//!
//! A guest and its peers can make this hold at most [`MAX_CONNECTIONS`] streams with
//! [`BUFFER_BYTES`] each, allocated only for what waits, and [`MAX_RESETS`] unsent answers.

pub mod connection;
pub mod mux;
pub mod packet;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

pub use mux::{Id, Mux};

/// Virtio device id.
pub const DEVICE_ID: u32 = 19;
/// `rx`, `tx` and `event`. No event is ever sent: a guest does not move to another host.
pub const QUEUES: u16 = 3;
/// Index of the queue with buffers for the guest.
pub const RECEIVE_QUEUE: usize = 0;
/// Index of the queue with packets of the guest.
pub const TRANSMIT_QUEUE: usize = 1;
/// The guest may use stream sockets, and no others (5.10.3).
const VIRTIO_VSOCK_F_STREAM: u32 = 0;
/// The feature bits that the device offers.
pub const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_VSOCK_F_STREAM;

/// Context id of the host.
pub const HOST_CID: u64 = 2;
/// Most streams of a guest at a time, those included that still deliver after the guest has closed.
pub const MAX_CONNECTIONS: usize = 511;
/// What a guest may send on a stream before the host has read it.
pub const BUFFER_BYTES: u32 = 128 << 10;
/// Most resets that wait for a buffer of the guest. While there are so many, nothing is taken from
/// the guest.
pub const MAX_RESETS: usize = 256;
/// Largest payload of a packet, either way.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// The configuration space: the guest's context id.
pub fn config_space(guest_cid: u32) -> [u8; 8] {
    u64::from(guest_cid).to_le_bytes()
}

#[cfg(test)]
mod tests;
