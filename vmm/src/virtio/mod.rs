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

pub mod device;
pub mod queue;
pub mod status;
pub mod transport;
pub mod vhost;
pub mod wire;

pub use device::Device;
pub use vhost::VhostError;

/// What drives a device behind the transport; `Vhost` is one, the tests have another.
pub trait Backend {
    /// Feature bits that may be offered to the driver.
    fn features(&self) -> u64;

    /// The configuration space. Reads beyond its end give zeros.
    fn config(&self) -> &[u8];

    /// Serve these queues with these features; a queue that is `None` is not used. The rings lie in
    /// guest memory as a whole and are aligned: the transport has checked that.
    ///
    /// # Errors
    /// The device has failed.
    fn start(&mut self, features: u64, queues: &[Option<queue::Ring>]) -> Result<(), VhostError>;

    /// Serve no queue; returns when no more guest memory is touched.
    ///
    /// # Errors
    /// The device has failed, and whether it still touches memory is unknown.
    fn stop(&mut self) -> Result<(), VhostError>;
}
