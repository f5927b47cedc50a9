//! Virtio device models and the host I/O behind them.
//!
//! The crate turns bytes of hostile guests into typed requests and typed requests into host I/O. It
//! owns no thread, reads no clock and knows neither scheduler nor KVM: its one user, the I/O
//! domain, owns the event loop and decides whom to serve.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`vhost`] | one vhost-user connection: memory, queues, features |
//! | [`blk`], [`net`] | what the guest reads, bytes to values, ring to request and back |
//! | [`rng`], [`console`], [`balloon`], [`vsock`] | of the tenant process; nobody shares them |
//! | [`fault`] | what the drivers of those do wrong |
//! | [`backend`] | io_uring, volumes, TAP, and the stand-ins for tests |
//! | [`memory`], [`virtqueue`] | guest memory as host addresses; chains and the used ring |
//! | [`counters`] | where the payload bytes went |

pub mod backend;
pub mod balloon;
pub mod blk;
pub mod console;
pub mod counters;
pub mod fault;
pub mod memory;
#[cfg(any(test, feature = "mock"))]
pub mod mock;
pub mod net;
pub mod rng;
pub mod stream;
pub mod vhost;
pub mod virtqueue;
pub mod vsock;
