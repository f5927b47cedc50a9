//! One vhost-user connection, seen from the device's side (the "backend" of the specification).
//!
//! `wire` reads and writes messages without ever blocking, `memory` validates and maps memory
//! tables, `vring` holds what is known of a queue, `session` is the protocol.
//! <https://qemu-project.gitlab.io/qemu/interop/vhost-user.html>

mod session;
mod vring;

pub use session::{DeviceProfile, Event, Ready, Session, SessionError};
pub use vring::Vring;
