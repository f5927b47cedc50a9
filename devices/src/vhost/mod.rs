//! One vhost-user connection, seen from the device's side (the "backend" of the specification).
//!
//! `wire` reads and writes messages without ever blocking, `memory` validates and maps memory
//! tables. `vring` holds what is known of a queue, `state` says what it may do next. `eventfd`
//! notifies and is notified, `inflight` keeps what must outlive this process. `session` is the
//! protocol: which message is legal when, and what it changes. A process that its guest may have
//! taken over writes everything that arrives here.
//! <https://qemu-project.gitlab.io/qemu/interop/vhost-user.html>

mod error;
mod eventfd;
mod events;
mod inflight;
mod memory;
mod session;
mod state;
mod vring;
mod wire;

#[cfg(test)]
mod tests;

pub use error::SessionError;
pub use eventfd::prepare as prepare_notifications;
pub use events::{DEFAULT_MAX_MEMORY_BYTES, DeviceProfile, Event, Ready};
pub use memory::MemoryError;
pub use session::Session;
pub use vring::Vring;
