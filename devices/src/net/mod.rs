//! virtio-net, virtio 1.2 section 5.1. Queues come in pairs: even ones receive, odd ones transmit.

pub mod config;
pub mod header;
pub mod rx;
pub mod tx;

pub use config::{MacAddr, Nic};
pub use header::{Checksum, HeaderError, VNET_HEADER_LEN, VnetHeader};

#[cfg(test)]
mod tests;
