//! The host's side of the devices that a tenant process serves itself: what is passed to it for
//! them, and what is kept here as long as it runs.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use moirai_launch::OwnDevice;

use super::vsock::Vsock;
use moirai_config::model;

/// Permissions of the sockets through which the host reaches a guest: whoever runs the host
/// service.
const SOCKET_MODE: u32 = 0o600;

/// What is made for a tenant's own devices.
#[derive(Debug, Default)]
pub(super) struct OwnDevices {
    /// For the tenant process, in the order of [`model::Tenant::own_devices`].
    pub(super) fds: Vec<OwnedFd>,
    /// Takes its socket away when it is dropped.
    pub(super) vsock: Option<Vsock>,
    /// The host's end of the virtio console.
    pub(super) console: Option<UnixStream>,
}

impl OwnDevices {
    /// Makes what the devices of `spec` need.
    ///
    /// # Errors
    /// The kernel refuses a socket, or its path is too long.
    pub(super) fn new(state_dir: &Path, spec: &model::Tenant) -> io::Result<Self> {
        let mut made = Self::default();
        for device in &spec.own_devices {
            match device {
                OwnDevice::Vsock { .. } => {
                    let (vsock, theirs) = Vsock::start(state_dir, &spec.name, SOCKET_MODE)?;
                    let socket = vsock.path().display();
                    tracing::info!(tenant = spec.name, %socket, "listens for clients of the guest");
                    made.vsock = Some(vsock);
                    made.fds.push(theirs);
                }
                OwnDevice::Console => {
                    let (ours, theirs) = UnixStream::pair()?;
                    ours.set_nonblocking(true)?;
                    made.console = Some(ours);
                    made.fds.push(theirs.into());
                }
                OwnDevice::Rng | OwnDevice::Balloon => {}
            }
        }
        Ok(made)
    }
}
