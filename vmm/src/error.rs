//! Why there is no tenant: what went wrong, in which step of the launch, and what an operator can
//! do.

use std::io;

use thiserror::Error;

use crate::boot::ImageError;
use crate::memory::MemoryError;
use crate::sandbox::SandboxError;
use crate::virtio::device::DeviceError;
use moirai_launch::{ChannelError, SpecError, Stage};

/// Why a tenant process could not do its work.
#[derive(Debug, Error)]
pub enum TenantError {
    /// Started by hand.
    #[error(
        "descriptor 3 is no control socket: the host service starts this process; by hand, say \
         `moirai-tenant run IMAGE`"
    )]
    NoControl,
    /// The control socket.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The first message is not a launch.
    #[error("the first message on the control socket is not a launch")]
    NotALaunch,
    /// The process cannot be shut in; the host has been told.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The VM cannot be built; the host has been told.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The kernel refused something that cannot fail.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Why a VM cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The launch message breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// KVM refused a step.
    #[error("KVM: {step}: {error}")]
    Kvm {
        /// What was being done.
        step: &'static str,
        /// What KVM said.
        error: kvm_ioctls::Error,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A device.
    #[error("device {index}: {error}")]
    Device {
        /// Position in [`moirai_launch::LaunchSpec::devices`].
        index: usize,
        /// What went wrong.
        error: DeviceError,
    },
    /// The gate page, an eventfd, a thread.
    #[error("{step}: {error}")]
    System {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// A vCPU cannot be made or does not take its state.
    #[error("vCPU {index}: {error}")]
    Vcpu {
        /// Which.
        index: u8,
        /// What KVM said.
        error: kvm_ioctls::Error,
    },
}

impl BuildError {
    /// The step of the launch in which this happened.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Spec(_) => Stage::Spec,
            Self::Kvm { .. } => Stage::Kvm,
            Self::Memory(_) => Stage::Memory,
            Self::Image(_) => Stage::Image,
            Self::Device { .. } => Stage::Devices,
            Self::System { .. } | Self::Vcpu { .. } => Stage::Vcpus,
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Spec(_) => "correct the launch",
            Self::Kvm { .. } => {
                "check that /dev/kvm works on this host (dmesg says what KVM found)"
            }
            Self::Memory(_) => "give the tenant less memory, or the host more",
            Self::Image(error) => error.hint(),
            Self::Device { .. } => "look for the cause in the log of the host's I/O domain",
            Self::System { .. } => "raise the limits of the host service (processes, open files)",
            Self::Vcpu { .. } => "check the image's ring-3 note; boot = \"pvh\" does without it",
        }
    }
}

pub(crate) fn kvm_error(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> BuildError {
    move |error| BuildError::Kvm { step, error }
}

pub(crate) fn system_error(step: &'static str) -> impl FnOnce(io::Error) -> BuildError {
    move |error| BuildError::System { step, error }
}
