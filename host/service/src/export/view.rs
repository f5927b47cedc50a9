//! Exports as they are shown: to clients of the API, and in the counters.

use moirai_api::{DeviceView, ExportView, PartStats, TenantStats};

use super::Export;
use crate::stats::name;
use crate::stats::{Snapshots, add_device};
use crate::{HostService, lock};
use moirai_config::Config;
use moirai_config::admission::per_second;
use moirai_config::admission::plan::ContractReport;
use moirai_config::export::{Export as Spec, ExportDevice};

impl HostService {
    pub(super) fn export_view(&self, export: &Export, snapshots: &Snapshots<'_>) -> ExportView {
        let Export { spec, device, listener, .. } = export;
        let found = snapshots.device(&device.place);
        let not_kept = found.and_then(|device| device.not_kept.clone());
        let (resource, what) = described(spec, &self.shared.config);
        ExportView {
            name: spec.name.clone(),
            socket: spec.socket.display().to_string(),
            peer: listener.peer(),
            kept: not_kept.is_none(),
            because: not_kept.unwrap_or_default(),
            device: DeviceView {
                resource,
                what,
                contract: ContractReport::of(&spec.contract()),
                failed: found.and_then(|device| device.failed.clone()),
            },
            table: spec.table.clone(),
        }
    }

    /// What exports got, in the form of tenants with one part.
    pub(crate) fn export_stats(&self, snapshots: &Snapshots<'_>) -> Vec<TenantStats> {
        let stats = |export: &Export| {
            let contract = export.spec.contract();
            let mut part = PartStats {
                resource: described(&export.spec, &self.shared.config).0,
                contract: Some(ContractReport::of(&contract)),
                reserved: per_second(&contract),
                ..PartStats::default()
            };
            match snapshots.device(&export.device.place) {
                Some(snapshot) => add_device(&mut part, snapshot),
                None => part.stale = true,
            }
            TenantStats { name: export.spec.holder(), parts: vec![part] }
        };
        lock(&self.exports).values().map(stats).collect()
    }
}

/// The resource that an export is of, and the file or address.
fn described(spec: &Spec, config: &Config) -> (String, String) {
    match &spec.device {
        ExportDevice::Volume(volume) => (
            name("disk", config.disks.get(volume.disk).map(|disk| &disk.name)),
            volume.path.display().to_string(),
        ),
        ExportDevice::Net(net) => (
            name("link", config.links.get(net.link).map(|link| &link.name)),
            crate::view::addresses(net),
        ),
    }
}
