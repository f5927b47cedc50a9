//! virtio-net, virtio 1.2 section 5.1: a card of several pairs of queues and a control queue, with
//! checksums and segmentation left to the link.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `config.rs`, `offload.rs` | what a card shows to its guest, and what its link does for it |
//! | `card.rs` | all queues of one card |
//! | `tx.rs`, `rx.rs`, `control.rs` | one queue each |
//! | `header.rs` | the header before each packet |
//! | `claims.rs` | what a packet says of who sent it |
//! | `packet.rs`, `segment.rs` | Ethernet, IP, TCP headers; cutting packets |
//! | `wire.rs` | what packets cost |

pub mod card;
mod claims;
pub mod config;
pub mod control;
pub mod header;
mod offload;
mod packet;
pub mod rx;
mod segment;
pub mod tx;

pub use card::{Card, Role};
pub use claims::{Claims, Offence};
pub use config::{MacAddr, Nic};
pub use header::{Checksum, HeaderError, Protocol, Segmentation, VNET_HEADER_LEN, VnetHeader};
pub use moirai_abi::limits::NET_PAIRS_MAX as MAX_PAIRS;
pub use moirai_abi::wire;
pub use offload::Offload;
pub use segment::NotCuttable;

/// Virtio device id.
pub const DEVICE_ID: u32 = 1;
/// Descriptors of each queue that we offer. A card needs many: a packet may take three, and a burst
/// is many packets.
pub const QUEUE_SIZE: u16 = 1024;

/// Queues of a card with so many pairs: these and the control queue.
#[must_use]
pub fn queues(pairs: u16) -> u16 {
    pairs.saturating_mul(2).saturating_add(1)
}

#[cfg(test)]
mod tests;
