//! The API of the host service as it goes over the wire, and the client. It knows no server.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `bodies.rs`, `change.rs` | what is asked for |
//! | `view.rs`, `phase.rs`, `stats.rs`, `kept.rs` | what is answered |
//! | `counters.rs` | the one table of what is measured: names, meanings, how each is read |
//! | `error.rs` | what a refused request is told |
//! | `client.rs` | requests over the unix socket, within limits of time and size |
//!
//! Types of the configuration appear as they are in `moirai_config`. Neighbours: the host service
//! answers, the commands and the demo ask.

mod bodies;
#[cfg(test)]
mod bodies_tests;
mod change;
pub mod client;
mod counters;
mod error;
mod kept;
mod phase;
mod stats;
mod view;

pub use bodies::{Exports, Launch};
pub use change::Change;
pub use client::{Client, ClientError};
pub use counters::{Family, Kind, families};
pub use error::{ErrorBody, ErrorKind};
pub use kept::KeptEvent;
pub use phase::Phase;
pub use stats::{
    CoreStats, DiskStats, DomainStats, FailedTenant, LinkStats, NoiseStats, PartStats,
    SpoofedStats, Stats, TenantStats, ThreadStats,
};
pub use view::{BalloonView, DeviceView, End, ExportView, HostView, TenantView};
