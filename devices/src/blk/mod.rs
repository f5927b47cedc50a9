//! virtio-blk, virtio 1.2 section 5.2.
//!
//! `name` is what a disk answers when it is asked who it is. `config` says what the guest may read
//! and negotiate, `request` turns a chain into a typed request, `frontend` moves requests between
//! ring and I/O domain. The I/O itself is [`crate::backend::volume`].

pub mod config;
pub mod frontend;
pub mod request;

pub use config::{Disk, Topology};
pub use frontend::{Frontend, FrontendError, Next, Outcome, Token};
pub use moirai_abi::disk_id::{DISK_ID_LEN, disk_id, disk_id_of};
pub use request::{Op, ParseError, Range, Request};

/// Unit of the addresses and of the capacity in virtio-blk, whatever the block size is.
pub const SECTOR_BYTES: u64 = 512;

#[cfg(test)]
mod tests;
