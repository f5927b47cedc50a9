//! virtio-blk, virtio 1.2 section 5.2.
//!
//! `config` says what the guest may read and negotiate. `request` turns a chain into a typed
//! request, `chain` is what goes back to the driver, `frontend` moves requests between ring and I/O
//! domain. The I/O itself is [`crate::backend::volume`].

mod chain;
pub mod config;
pub mod frontend;
pub mod request;

pub use chain::{Taken, TakenChain};
pub use config::{Disk, Topology};
pub use frontend::{Frontend, FrontendError, Next, Outcome};
pub use moirai_abi::disk_id::{DISK_ID_LEN, disk_id, disk_id_of};
pub use request::{Op, ParseError, Range, Request};

/// Virtio device id.
pub const DEVICE_ID: u32 = 2;
/// Descriptors of each queue that we offer.
pub const QUEUE_SIZE: u16 = 256;
/// Unit of the addresses and of the capacity in virtio-blk, whatever the block size is.
pub const SECTOR_BYTES: u64 = 512;

#[cfg(test)]
mod tests;
