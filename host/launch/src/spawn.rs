//! Starts a tenant process and sends it what it is to be.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::channel::{ChannelError, HostChannel, pair};
use super::messages::FromHost;
use super::process::{Ended, Process};
use super::spec::{LaunchFds, LaunchSpec, SpecError};

/// A tenant process. Dropping it kills the process and reaps it.
#[derive(Debug)]
pub struct Child {
    process: Process,
    control: HostChannel,
}

/// Where a tenant process finds itself.
#[derive(Default)]
pub struct Surroundings<'a> {
    /// Where its errors and panics go; `None`: where ours go.
    pub stderr: Option<OwnedFd>,
    /// Called with its number before it knows what it is to do and has taken anything.
    pub adopt: Option<&'a dyn Fn(u32) -> io::Result<()>>,
}

/// Starts `binary` and sends it its launch message.
///
/// # Errors
/// A specification that cannot be, a binary that cannot be run, or a child that died at once.
pub fn spawn(binary: &Path, spec: &LaunchSpec, fds: LaunchFds) -> Result<Child, SpawnError> {
    spawn_in(Surroundings::default(), binary, spec, fds)
}

/// The same, in these surroundings.
///
/// # Errors
/// Those of [`spawn`], and what `adopt` says.
pub fn spawn_in(
    surroundings: Surroundings<'_>,
    binary: &Path,
    spec: &LaunchSpec,
    fds: LaunchFds,
) -> Result<Child, SpawnError> {
    spec.validate()?;
    let (got, needed) = (fds.in_order().len(), spec.descriptors());
    if got != needed || fds.initrd.is_some() != spec.initrd {
        return Err(SpecError::Descriptors { got, needed }.into());
    }
    let run_error = |error| SpawnError::Run { binary: binary.to_path_buf(), error };
    let (control, theirs) = pair().map_err(run_error)?;
    let process = Process::start(binary, c"moirai-tenant", theirs.into(), surroundings.stderr);
    let child = Child { process: process.map_err(run_error)?, control };
    if let Some(adopt) = surroundings.adopt {
        adopt(child.pid()).map_err(SpawnError::Adopt)?;
    }
    let fds: Vec<_> = fds.in_order().into_iter().map(AsFd::as_fd).collect();
    child.control.send(&FromHost::Launch(spec.clone()), &fds)?;
    Ok(child)
}

impl Child {
    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A descriptor that becomes readable when the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd()
    }

    /// The control socket. It reports end of stream when the process is gone.
    #[must_use]
    pub fn control(&self) -> &HostChannel {
        &self.control
    }

    /// Kills the process; harmless if it has ended.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Reaps the process if it has ended; `None` if it lives.
    ///
    /// # Errors
    /// Those of `waitid`.
    pub fn try_wait(&mut self) -> io::Result<Option<Ended>> {
        self.process.try_wait()
    }

    /// Waits until the process has ended and reaps it.
    ///
    /// # Errors
    /// Those of `waitid`.
    pub fn wait(&mut self) -> io::Result<Ended> {
        self.process.wait()
    }
}

/// Why a tenant process could not be started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The launch breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The tenant binary cannot be run.
    #[error(
        "cannot run the tenant binary {binary}: {error}; it belongs beside `moirai`, or set \
         MOIRAI_TENANT to its path"
    )]
    Run {
        /// What was to be run.
        binary: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The process cannot be placed.
    #[error("the tenant process cannot be given its limits: {0}")]
    Adopt(#[source] io::Error),
    /// The process ended before it took its launch message.
    #[error("the tenant process did not take its launch message: {0}")]
    Channel(#[from] ChannelError),
}
