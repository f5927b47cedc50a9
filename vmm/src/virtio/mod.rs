//! Virtio devices of the guest: the MMIO transport (virtio 1.2, section 4.2) in front, a
//! vhost-user backend in the host service behind. This process is not on the data path and does
//! not know what a device does.
//!
//! ```text
//! guest --registers--> transport --start, stop--> vhost --messages--> I/O domain
//!       --kick (ioeventfd)------------------------------------------>
//!       <----------------------------------------call (irqfd)--------
//! ```
//!
//! [`transport`] decodes registers over [`status`] and [`queue`], [`vhost`] speaks vhost-user over
//! [`wire`], [`device`] connects both with KVM.

pub mod backend;
pub mod device;
pub mod queue;
pub mod status;
pub mod transport;
pub mod vhost;
pub mod wire;
pub mod wires;

pub use backend::{Backend, BackendError, DeviceEvents};
pub use device::Device;
pub use vhost::{Vhost, VhostError};
