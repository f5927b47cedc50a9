//! virtio-blk, virtio 1.2 section 5.2.
//!
//! `name` is what a disk answers when it is asked who it is. `config` says what the guest may read
//! and negotiate, `request` turns a chain into a typed request, `frontend` moves requests between
//! ring and I/O domain. The I/O itself is [`crate::backend::volume`].

pub mod config;
pub mod frontend;
mod name;
pub mod request;

pub use config::{DISK_ID_LEN, Disk, Topology};
pub use frontend::{Frontend, FrontendError, Next, Outcome, Token};
pub use name::{disk_id, disk_id_of};
pub use request::{Op, ParseError, Range, Request};

/// Unit of the addresses and of the capacity in virtio-blk, whatever the block size is.
pub const SECTOR_BYTES: u64 = 512;

#[cfg(test)]
mod tests;
