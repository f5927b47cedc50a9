//! How host service and tenant process hand over the sockets of vsock streams: one JSON message per
//! `SOCK_SEQPACKET` datagram, the socket beside it (`docs/design/0007-linux-tenants.md`).

use serde::{Deserialize, Serialize};

use super::channel::Channel;

/// From the host service to a tenant process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToTenant {
    /// A client wants a port of the guest. Descriptor: the client's socket, past its `CONNECT`
    /// line. The tenant process writes `OK PORT\n` when the guest accepts, or hangs up.
    Connect {
        /// Port of the guest.
        port: u32,
    },
    /// The answer to [`FromTenant::Open`]. Descriptor: a connected socket; none if nobody listens.
    Opened {
        /// That of the question.
        id: u64,
    },
}

/// From a tenant process to the host service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromTenant {
    /// The guest wants a port of the host.
    Open {
        /// The port.
        port: u32,
        /// Names the question; used once.
        id: u64,
    },
}

/// The host's end.
pub type HostHandover = Channel<ToTenant, FromTenant>;
/// The tenant's end.
pub type TenantHandover = Channel<FromTenant, ToTenant>;
