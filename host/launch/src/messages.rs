//! The messages between the host service and a tenant process, on the control socket.

use std::fmt;

use moirai_abi::machine::END_STATUS_PANIC;
use serde::{Deserialize, Serialize};

use super::spec::LaunchSpec;

/// From the host service to a tenant process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromHost {
    /// Build and start the VM; the first message, once.
    Launch(LaunchSpec),
    /// Power off. A guest that listens to the power button (Linux, once it has read its ACPI
    /// tables) gets it pressed and goes on running; when it has powered itself off, the answer is
    /// [`ExitReason::PowerOff`], which may never come: it is for the host to wait and to
    /// [`FromHost::Kill`]. Any other guest (a library OS, Linux before that) is ended at once,
    /// answered by [`ExitReason::Stopped`].
    Stop,
    /// Power off at once, whatever the guest; answered by [`ExitReason::Stopped`].
    Kill,
    /// Wants the guest to have given back this much of its memory by its balloon; without a number
    /// only asks. Answered by [`ToHost::Balloon`] at once, before the guest has done anything.
    Balloon {
        /// Target in bytes, rounded down to whole pages.
        bytes: Option<u64>,
    },
    /// Reset. The VM ends at once with [`ExitReason::Reset`]; a reset machine is a new process.
    Reset,
}

/// From a tenant process to the host service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToHost {
    /// The VM is built and its threads stand at their gates.
    Running {
        /// Thread id of every vCPU, in the tenant's own process.
        vcpu_tids: Vec<i32>,
        /// Parts of the sandbox that could not be had, each a sentence that says why.
        missing: Vec<String>,
    },
    /// The VM could not be built; the process ends.
    Failed {
        /// What was being done.
        stage: Stage,
        /// What went wrong.
        error: String,
        /// What to do about it.
        hint: String,
    },
    /// The answer to [`FromHost::Balloon`].
    Balloon(BalloonReport),
    /// The VM has ended; the process ends.
    Exited {
        /// Why.
        reason: ExitReason,
        /// Console output that was thrown away because nobody read the console.
        console_dropped_bytes: u64,
    },
}

/// What a guest says about its memory; it can say anything. All zero or `None` without a balloon or
/// without a driver for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonReport {
    /// Memory that the guest has given back, in bytes.
    pub actual_bytes: u64,
    /// All memory of the guest, in bytes. Linux counts what is in the balloon, too. This figure and
    /// the two below are the guest's answer to the previous time the host asked.
    pub total_bytes: Option<u64>,
    /// Free bytes: the part of `total_bytes` that holds nothing.
    pub free_bytes: Option<u64>,
    /// Available bytes: what the guest could give to new work without swapping.
    pub available_bytes: Option<u64>,
}

/// The steps of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading and checking the launch message.
    Spec,
    /// Shutting the process in.
    Sandbox,
    /// Creating the VM.
    Kvm,
    /// Guest memory.
    Memory,
    /// Reading and loading the image.
    Image,
    /// Connecting the devices to their backends.
    Devices,
    /// Creating the vCPUs.
    Vcpus,
}

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The guest powered itself off.
    PowerOff,
    /// The guest said that its work has failed (`moirai_abi::machine::END_STATUS_PORT`), and
    /// powered itself off.
    Failed {
        /// What it said, not zero.
        status: u8,
    },
    /// The guest reset itself, or the host asked for it.
    Reset,
    /// The host asked for it.
    Stopped,
    /// A vCPU met an exception that it could not handle.
    TripleFault {
        /// Which vCPU.
        vcpu: u8,
        /// Its registers.
        registers: String,
    },
    /// KVM could not go on (an instruction that it cannot interpret, a bad state).
    InternalError {
        /// Which vCPU.
        vcpu: u8,
        /// What KVM said.
        error: String,
        /// Its registers.
        registers: String,
    },
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => write!(f, "the guest powered itself off"),
            Self::Failed { status: END_STATUS_PANIC } => {
                write!(f, "the guest ended with a panic (status {END_STATUS_PANIC})")
            }
            Self::Failed { status } => write!(f, "the guest says that it failed (status {status})"),
            Self::Reset => write!(f, "the guest reset itself"),
            Self::Stopped => write!(f, "it was stopped"),
            Self::TripleFault { vcpu, registers } => {
                write!(f, "virtual CPU {vcpu} met a triple fault; {registers}")
            }
            Self::InternalError { vcpu, error, registers } => {
                write!(f, "KVM could not run virtual CPU {vcpu}: {error}; {registers}")
            }
        }
    }
}
