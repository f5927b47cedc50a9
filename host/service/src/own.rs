//! The host's side of the devices that a tenant process serves itself: what is passed to it for
//! them, what is kept here as long as it runs, and the balloon's wishes and answers.

use moirai_api::BalloonView;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use moirai_launch::{BalloonReport, FromHost, OwnDevice};

use super::tenant::Tenant;
use super::vsock::Vsock;
use moirai_config::model;

/// Permissions of the sockets through which the host reaches a guest: whoever runs the host
/// service.
const SOCKET_MODE: u32 = 0o600;
/// How long a tenant process may take to say how full its balloon is.
const BALLOON_PATIENCE: Duration = Duration::from_millis(500);

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

/// The balloon of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Balloon {
    /// Memory that the guest is to give back.
    target_bytes: u64,
    /// Nobody has told the tenant process yet, or it is to be asked.
    unsaid: bool,
    /// What it has answered, and how often.
    report: BalloonReport,
    answers: u64,
}

impl Balloon {
    /// The message that the tenant process is to get now, if any.
    pub(super) fn message(&mut self) -> Option<FromHost> {
        let bytes = Some(self.target_bytes);
        std::mem::take(&mut self.unsaid).then_some(FromHost::Balloon { bytes })
    }

    /// Notes an answer.
    pub(super) fn answered(&mut self, report: BalloonReport) {
        self.report = report;
        self.answers += 1;
    }

    /// What is shown.
    pub(super) fn view(&self) -> BalloonView {
        BalloonView {
            target_bytes: self.target_bytes,
            actual_bytes: self.report.actual_bytes,
            free_bytes: self.report.free_bytes,
            available_bytes: self.report.available_bytes,
        }
    }
}

impl Tenant {
    /// Whether the guest has a balloon.
    pub(super) fn has_balloon(&self) -> bool {
        self.with(|live| live.spec.own_devices.contains(&OwnDevice::Balloon))
    }

    /// Wants the guest to keep no more than `bytes` of its memory, if it has a balloon.
    pub(super) fn keep_memory(&self, bytes: u64) {
        self.with(|live| live.balloon.target_bytes = live.spec.memory.saturating_sub(bytes));
        self.ask_balloon();
    }

    /// Asks how full the balloon is and waits a moment for the answer.
    pub(super) fn ask_balloon(&self) {
        if !self.has_balloon() {
            return;
        }
        let before = self.with(|live| {
            live.balloon.unsaid = true;
            live.balloon.answers
        });
        self.ring();
        self.wait_until(BALLOON_PATIENCE, |live| live.balloon.answers != before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_said_once_and_an_answer_is_shown() {
        let mut balloon = Balloon { target_bytes: 4096, unsaid: true, ..Balloon::default() };
        assert_eq!(balloon.message(), Some(FromHost::Balloon { bytes: Some(4096) }));
        assert_eq!(balloon.message(), None);
        balloon.answered(BalloonReport { actual_bytes: 8192, ..BalloonReport::default() });
        assert_eq!((balloon.view().target_bytes, balloon.view().actual_bytes), (4096, 8192));
    }
}
