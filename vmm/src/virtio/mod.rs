//! Virtio devices of the guest: registers in front, a backend behind.
//!
//! ```text
//! guest --registers--> transport --start, stop--> backend: vhost --messages--> I/O domain
//!       |                                              or: a thread of this process (`own`)
//!       --kick (ioeventfd)--------------------------------------------------->
//!       <----------------------------------------------------call (irqfd)----
//! ```
//!
//! [`transport`] shows a device in a window or as a PCI function, over [`status`] and [`queue`];
//! [`backend`] is the seam to what serves the queues; [`vhost`] is the one in another process, over
//! [`wire`]. [`device`] connects all with KVM, a PCI function by [`wires`]. For a device behind
//! vhost-user this process is not on the data path and does not know what it does.

pub mod backend;
pub mod device;
mod error;
pub mod queue;
pub mod status;
pub mod transport;
pub mod vhost;
pub mod wire;
pub mod wires;

pub use backend::{Backend, DeviceEvents};
pub use device::Device;
pub use error::{BackendError, VhostError};
pub use vhost::Vhost;
