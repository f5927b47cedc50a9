//! How the host service starts a tenant process and talks to it (`docs/design/0001-seams.md`).
//!
//! [`spec`] says what is launched, [`messages`] what is said, [`channel`] carries it over a
//! `SOCK_SEQPACKET` socket, [`spawn`] starts the process. This is the whole seam between the host
//! service and a tenant; it knows neither KVM nor virtio.
//!
//! ```text
//! host                                tenant
//!  spawn ---------- descriptor 3 ----->
//!  Launch(spec) + LaunchFds ---------->  sandbox, VM, boot
//!  <------------------------ Running{vcpu_tids}     (or Failed, and the process ends)
//!  Stop | Kill | Reset --------------->
//!  <------------------------ Exited{reason}         and the process ends
//! ```

pub mod channel;
pub mod handover;
pub mod kvm;
pub mod messages;
pub mod process;
pub mod spawn;
pub mod spec;

pub use channel::{ChannelError, HostChannel, TenantChannel, pair};
pub use kvm::{KvmError, open_kvm};
pub use messages::{BalloonReport, ExitReason, FromHost, Stage, ToHost};
pub use process::{CONTROL_FD, Ended, Process, prepare_to_spawn};
pub use spawn::{Child, SpawnError, Surroundings, spawn, spawn_in};
pub use spec::{Boot, DeviceSpec, LaunchFds, LaunchSpec, OwnDevice, Sandbox, SpecError, Transport};
