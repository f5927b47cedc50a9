//! What is reported of tenants and of the host, in JSON and in text.

use moirai_vmm::launch::{ExitReason, OwnDevice, Stage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Service;
use super::life::Phase;
use super::own::BalloonView;
use super::stats::Snapshots;
use super::tenant::Tenant;
use crate::admission::Part;
use crate::admission::plan::{ContractReport, ResourceReport};
use crate::config::Config;
use crate::config::document::TenantTable;

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
    /// The file of a volume, the address of an interface.
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

impl End {
    /// A failure.
    pub(super) fn failed(reason: String) -> Self {
        Self { ok: false, reason }
    }

    /// The VM could not be built.
    pub(super) fn not_built(stage: Stage, error: &str, hint: &str) -> Self {
        let step = match stage {
            Stage::Spec => "the launch message",
            Stage::Sandbox => "the sandbox",
            Stage::Kvm => "creating the VM",
            Stage::Memory => "guest memory",
            Stage::Image => "the image",
            Stage::Devices => "the devices",
            Stage::Vcpus => "the virtual CPUs",
        };
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        Self::failed(format!("{step}: {error}{hint}"))
    }

    /// The VM has ended. `is_kernel`: it booted a kernel, which may reset itself for a good reason;
    /// an image of the library OS does that only if it cannot go on. `last` is the last line that a
    /// guest has said which failed.
    pub(super) fn exited(reason: &ExitReason, is_kernel: bool, last: Option<String>) -> Self {
        let ok = match reason {
            ExitReason::PowerOff | ExitReason::Stopped => true,
            ExitReason::Reset => is_kernel,
            ExitReason::Failed { .. }
            | ExitReason::TripleFault { .. }
            | ExitReason::InternalError { .. } => false,
        };
        let mut text = reason.to_string();
        if !ok && let Some(line) = last {
            text.push_str(": ");
            text.push_str(&line);
        }
        Self { ok, reason: text }
    }
}

impl Tenant {
    /// Describes the tenant; `config` is that of the host.
    pub(super) fn view(&self, config: &Config) -> TenantView {
        let view = self.with(|live| {
            let spec = &live.spec;
            let volumes = spec.volumes.iter().map(|volume| DeviceView {
                resource: name("disk", config.disks.get(volume.disk).map(|disk| &disk.name)),
                what: volume.path.display().to_string(),
                contract: ContractReport::of(&volume.contract),
                failed: None,
            });
            let nets = spec.nets.iter().map(|net| DeviceView {
                resource: name("link", config.links.get(net.link).map(|link| &link.name)),
                what: net.mac.map(|byte| format!("{byte:02x}")).join(":"),
                contract: ContractReport::of(&net.contract),
                failed: None,
            });
            TenantView {
                name: self.name.clone(),
                phase: live.phase,
                end: live.end.clone(),
                pid: live.pid,
                uid: live.uid,
                core: spec.cores.first().copied().unwrap_or(0),
                cores: spec.cores.clone(),
                cpu: ContractReport::of(&spec.cpu),
                disk: volumes.collect(),
                net: nets.collect(),
                sandbox_missing: live.missing.clone(),
                balloon: spec
                    .own_devices
                    .contains(&OwnDevice::Balloon)
                    .then(|| live.balloon.view()),
                restarts: live.restarts,
                kept: true,
                because: String::new(),
                table: spec.table.clone(),
            }
        });
        view.told(None)
    }
}

impl TenantView {
    /// How it has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.end.as_ref().filter(|end| !end.ok).map(|end| end.reason.as_str())
    }

    /// The view with why contracts are not kept.
    pub(super) fn told(mut self, not_kept: Option<String>) -> Self {
        let failed = self.failure().map(|reason| format!("it has failed: {reason}"));
        let why = failed.or(not_kept);
        self.kept = why.is_none();
        self.because = why.unwrap_or_default();
        self
    }
}

/// `disk/NAME` or `link/NAME`.
pub(super) fn name(kind: &str, name: Option<&String>) -> String {
    format!("{kind}/{}", name.map_or("?", String::as_str))
}

impl Service {
    /// Describes a tenant, with what only dispatchers and event loops know: which contracts are not
    /// kept, which devices have failed, and why.
    pub(super) fn view_with_failures(&self, tenant: &Tenant) -> TenantView {
        let (config, (cores, domains)) = (&self.shared.config, self.snapshots());
        let snapshots = Snapshots::new(&cores, &domains);
        let mut view =
            tenant.view(config).told(tenant.with(|live| snapshots.not_kept(live, config)));
        for device in tenant.with(|live| live.devices.clone()) {
            let found = snapshots.devices.get(&(device.group.as_str(), device.id.0));
            let shown = match device.part {
                Part::Volume(index) => view.disk.get_mut(index),
                Part::Net(index) => view.net.get_mut(index),
                Part::Vcpu(_) => None,
            };
            if let Some(shown) = shown {
                shown.failed = found.and_then(|found| found.failed.clone());
            }
        }
        view
    }

    /// Describes the host.
    #[must_use]
    pub fn host(&self) -> HostView {
        let tenants = self.tenants();
        HostView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            resources: self.resources(),
            running: tenants.iter().filter(|tenant| tenant.phase == Phase::Running).count(),
            failed: tenants.iter().filter(|tenant| tenant.failure().is_some()).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_says_it_failed_is_not_ok_and_its_last_line_says_why() {
        let line = || Some("{\"event\":\"error\",\"message\":\"no such key\"}".to_owned());
        for (status, words) in [(1, "says that it failed (status 1)"), (101, "with a panic")] {
            let end = End::exited(&ExitReason::Failed { status }, false, line());
            assert!(!end.ok);
            assert!(end.reason.contains(words) && end.reason.contains("no such key"), "{end:?}");
        }
        let end = End::exited(&ExitReason::PowerOff, false, line());
        assert_eq!(end, End { ok: true, reason: "the guest powered itself off".to_owned() });
    }

    #[test]
    fn a_reset_is_a_way_to_end_for_kernels_only() {
        assert!(End::exited(&ExitReason::Reset, true, None).ok);
        assert!(!End::exited(&ExitReason::Reset, false, None).ok);
    }
}
