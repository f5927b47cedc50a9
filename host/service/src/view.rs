//! What is reported of tenants and of the host, in JSON and in text.

use moirai_api::{DeviceView, End, HostView, Phase, TenantView};
use moirai_launch::{ExitReason, OwnDevice, Stage};

use super::HostService;

use super::stats::{Snapshots, name};
use super::tenant::Tenant;
use moirai_config::Config;
use moirai_config::admission::Part;
use moirai_config::admission::plan::ContractReport;

/// A failure.
pub(super) fn failed(reason: String) -> End {
    End { ok: false, reason }
}

/// The VM could not be built.
pub(super) fn not_built(stage: Stage, error: &str, hint: &str) -> End {
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
    failed(format!("{step}: {error}{hint}"))
}

/// The VM has ended. `is_kernel`: it booted a kernel, which may reset itself for a good reason;
/// an image of the library OS does that only if it cannot go on. `last` is the last line that a
/// guest has said which failed.
pub(super) fn exited(reason: &ExitReason, is_kernel: bool, last: Option<String>) -> End {
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
    End { ok, reason: text }
}

/// The addresses of an interface, for reading.
pub(super) fn addresses(net: &moirai_config::model::Net) -> String {
    let mac = net.mac.map(|byte| format!("{byte:02x}")).join(":");
    let others = net.addresses.iter().map(|address| format!(" {address}"));
    let spoofs = if net.spoofs { " spoofing=allow" } else { "" };
    mac + &others.collect::<String>() + spoofs
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
                what: addresses(net),
                contract: ContractReport::of(&net.contract),
                failed: None,
            });
            TenantView {
                name: self.name.clone(),
                phase: live.life.phase(),
                failed: false,
                end: live.end().cloned(),
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
        told(view, None)
    }
}

/// The view with why contracts are not kept.
pub(super) fn told(mut view: TenantView, not_kept: Option<String>) -> TenantView {
    view.failed = view.phase == Phase::Ended && view.failure().is_some();
    let failed = view.failure().map(|reason| format!("it has failed: {reason}"));
    let why = failed.or(not_kept);
    view.kept = why.is_none();
    view.because = why.unwrap_or_default();
    view
}

impl HostService {
    /// Describes a tenant, with what only dispatchers and event loops know: which contracts are not
    /// kept, which devices have failed, and why.
    pub(super) fn view_with_failures(&self, tenant: &Tenant) -> TenantView {
        let (config, (cores, domains)) = (&self.shared.config, self.snapshots());
        let snapshots = Snapshots::new(&cores, &domains);
        let not_kept = tenant.with(|live| snapshots.not_kept(live, config));
        let mut view = told(tenant.view(config), not_kept);
        tenant.with(|live| {
            for device in &live.devices {
                let shown = match device.part {
                    Part::Volume(index) => view.disk.get_mut(index),
                    Part::Net(index) => view.net.get_mut(index),
                    Part::Vcpu(_) => None,
                };
                if let Some(shown) = shown {
                    let found = snapshots.device(&device.place);
                    shown.failed = found.and_then(|found| found.failed.clone());
                }
            }
        });
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
            let end = exited(&ExitReason::Failed { status }, false, line());
            assert!(!end.ok);
            assert!(end.reason.contains(words) && end.reason.contains("no such key"), "{end:?}");
        }
        let end = exited(&ExitReason::PowerOff, false, line());
        assert_eq!(end, End { ok: true, reason: "the guest powered itself off".to_owned() });
    }

    #[test]
    fn a_reset_is_a_way_to_end_for_kernels_only() {
        assert!(exited(&ExitReason::Reset, true, None).ok);
        assert!(!exited(&ExitReason::Reset, false, None).ok);
    }
}
