//! What the host service says of tenants, of exports and of itself.

use moirai_config::admission::plan::{ContractReport, ResourceReport};
use moirai_config::document::TenantTable;
use moirai_config::export::ExportTable;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Phase;

/// How a tenant ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct End {
    /// It ended by itself or because it was asked, not by a failure.
    pub ok: bool,
    /// What happened, and what to do about it where that is known.
    pub reason: String,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TenantView {
    /// Name.
    pub name: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// It has ended by a failure: what tells it from one that has ended well.
    #[serde(default)]
    pub failed: bool,
    /// How it ended.
    pub end: Option<End>,
    /// Process, while there is one.
    pub pid: Option<u32>,
    /// User id of the process, if it has one of its own.
    pub uid: Option<u32>,
    /// Core of its first virtual CPU.
    pub core: usize,
    /// Cores of its virtual CPUs, in their order.
    pub cores: Vec<usize>,
    /// Contract of each virtual CPU.
    pub cpu: ContractReport,
    /// Volumes with their contracts.
    pub disk: Vec<DeviceView>,
    /// Interfaces with their contracts.
    pub net: Vec<DeviceView>,
    /// Parts of the sandbox that could not be had.
    pub sandbox_missing: Vec<String>,
    /// Its balloon, if it has one.
    pub balloon: Option<BalloonView>,
    /// How often the guest has reset itself and was started again.
    pub restarts: u32,
    /// Whether all its contracts are kept: not of a tenant that has failed.
    #[serde(default)]
    pub kept: bool,
    /// Which are not, and why, or how it has failed; empty if all are kept.
    #[serde(default)]
    pub because: String,
    /// What was asked for, with all changes since.
    pub table: TenantTable,
}

/// A device of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceView {
    /// `disk/NAME` or `link/NAME`.
    pub resource: String,
    /// The file of a volume; the hardware address of an interface, then its declared IP addresses,
    /// then `spoofing=allow`, if so.
    pub what: String,
    /// Contract.
    pub contract: ContractReport,
    /// Why it no longer works, until its driver resets it. Only in the view of one tenant.
    pub failed: Option<String>,
}

/// The host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Version of Moirai.
    pub version: String,
    /// Process of the host service.
    pub pid: u32,
    /// Capacity and reservations.
    pub resources: Vec<ResourceReport>,
    /// How many tenants run.
    pub running: usize,
    /// How many have ended by a failure and are not forgotten yet.
    #[serde(default)]
    pub failed: usize,
}

/// The memory of a tenant with a balloon, in bytes. What the guest says about itself can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BalloonView {
    /// What the guest is to give back.
    pub target_bytes: u64,
    /// What it has given back.
    pub actual_bytes: u64,
    /// What it says it has free.
    pub free_bytes: Option<u64>,
    /// What it says new work could have.
    pub available_bytes: Option<u64>,
}

/// An export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExportView {
    /// Name.
    pub name: String,
    /// Path of its socket.
    pub socket: String,
    /// Process of the VMM that is connected; 0 if it cannot be seen from here.
    pub peer: Option<u32>,
    /// What stands behind it. `failed` says why the latest peer was given up, or its device.
    pub device: DeviceView,
    /// Whether its contract is kept.
    #[serde(default)]
    pub kept: bool,
    /// Why it is not; empty if it is.
    #[serde(default)]
    pub because: String,
    /// What was asked for.
    pub table: ExportTable,
}

impl TenantView {
    /// How it has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.end.as_ref().filter(|end| !end.ok).map(|end| end.reason.as_str())
    }
}
