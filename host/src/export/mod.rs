//! Sockets at which VMMs that are not ours find our volumes and links.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `socket.rs` | the file in the file system: made with its mode, removed with the value |
//! | `listener.rs` | who is connected: one peer at a time, the next ones wait |
//!
//! Knows nothing of devices: a connected socket goes to whoever was named at the start. Neighbours:
//! `service/export.rs` owns these values and hands the sockets to the I/O domain.

mod listener;
mod socket;

pub use listener::Listener;
pub(crate) use socket::name_beside;
pub use socket::{ExportSocket, SocketError, remove_stale};
