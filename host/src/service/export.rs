//! Exports: devices of ours for VMMs that are not.
//!
//! An export holds a reservation, a device in an I/O domain and a socket, whether or not anybody is
//! connected; contract and account outlive every peer, so that coming again gains nothing. In the
//! ledger and in the counters it is called `export/NAME`.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use moirai_devices::backend::{FileId, Volume};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::launch::{FilesInUse, OWNED_HELP, files_in_use};
use super::open::{open_volume, remark};
use super::owner::{VolumeOwner, take_volume};
use super::stats::{PartStats, Snapshots, TenantStats};
use super::view::{DeviceView, name};
use super::{Phase, Service, ServiceError, Shared, lock};
use crate::admission::plan::{ContractReport, TenantPlan};
use crate::admission::{Claim, MemoryClaim, per_second};
use crate::config::export::{Export as Spec, ExportDevice, ExportTable};
use crate::config::{Config, Problem, check_exports};
use crate::export::{ExportSocket, Listener};
use moirai_io::{BlkSpec, DeviceId, IoDomainError, NetSpec, Peer};

/// A running export.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) spec: Spec,
    pub(super) group: String,
    pub(super) id: DeviceId,
    /// The files of its volume, and whether it writes them.
    files: Vec<(FileId, bool)>,
    /// They are owned on this machine.
    _owned: Option<VolumeOwner>,
    listener: Listener,
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

/// What is had before admission, so that something missing costs nobody anything.
struct Opened {
    socket: ExportSocket,
    volume: Option<Volume>,
}

impl Service {
    /// Exports devices, all or none.
    ///
    /// # Errors
    /// [`ServiceError::Bad`] and [`ServiceError::Refused`], or the kernel has nothing left; then
    /// nothing was exported.
    pub fn export(&self, tables: &[ExportTable]) -> Result<Vec<ExportView>, ServiceError> {
        let specs = check_exports(&self.shared.config, tables).map_err(ServiceError::Bad)?;
        let tenants = lock(&self.tenants);
        let mut exports = lock(&self.exports);
        let mut problems = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            if exports.contains_key(&spec.name) {
                problems.push(taken(index, &spec.name));
            }
        }
        if !problems.is_empty() {
            return Err(ServiceError::Bad(problems));
        }
        let opened = self.open_exports(&specs)?;
        let live = tenants.values().filter(|tenant| tenant.phase() != Phase::Ended);
        let mut used = files_in_use(live);
        used.extend(exports.values().flat_map(Export::files_in_use));
        let problems = shared_files(used, &specs, &opened);
        if !problems.is_empty() {
            specs.iter().for_each(|spec| self.shared.state.forget_export(&spec.name));
            return Err(ServiceError::Bad(problems));
        }
        let owned = self.own_exported(&specs, &opened)?;
        self.admit_exports(&specs)?;
        // From here on the volumes count as used by what is in `exports`.
        drop(tenants);
        let mut started = Vec::new();
        for ((spec, opened), owned) in specs.iter().zip(opened).zip(owned) {
            match self.start_export(spec.clone(), opened, owned) {
                Ok(export) => started.push(export),
                Err(error) => {
                    started.into_iter().for_each(|export| self.end_export(export));
                    specs.iter().for_each(|spec| self.forget_export(spec));
                    return Err(error);
                }
            }
        }
        let views = started.iter().map(|export| self.export_view(export)).collect();
        exports.extend(started.into_iter().map(|export| (export.spec.name.clone(), export)));
        Ok(views)
    }

    /// All exports.
    #[must_use]
    pub fn exports(&self) -> Vec<ExportView> {
        lock(&self.exports).values().map(|export| self.export_view(export)).collect()
    }

    /// Ends an export: its peer is hung up on, its socket goes, its reservation is given back.
    ///
    /// # Errors
    /// [`ServiceError::UnknownExport`].
    pub fn unexport(&self, name: &str) -> Result<ExportView, ServiceError> {
        let mut exports = lock(&self.exports);
        let export = exports.remove(name);
        let export = export.ok_or_else(|| ServiceError::UnknownExport(name.to_owned()))?;
        let view = self.export_view(&export);
        self.end_export(export);
        Ok(view)
    }

    fn open_exports(&self, specs: &[Spec]) -> Result<Vec<Opened>, ServiceError> {
        let (mut problems, mut all) = (Vec::new(), Vec::new());
        for (index, spec) in specs.iter().enumerate() {
            self.shared.state.note_export(&spec.name, &spec.socket)?;
            match open(spec, index) {
                Ok(opened) => all.push(opened),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            return Ok(all);
        }
        specs.iter().for_each(|spec| self.shared.state.forget_export(&spec.name));
        Err(ServiceError::Bad(problems))
    }

    fn admit_exports(&self, specs: &[Spec]) -> Result<(), ServiceError> {
        let mut ledger = lock(&self.shared.ledger);
        let mut refused = Vec::new();
        for spec in specs {
            let memory = MemoryClaim::of_export(&self.shared.config, spec);
            let asked = ledger.admit(&spec.key(), &[Claim::of_export(spec)], Some(memory));
            if let Err(refusals) = asked {
                refused.push(TenantPlan::of(spec.key(), &refusals));
            }
        }
        drop(ledger);
        if refused.is_empty() {
            return Ok(());
        }
        specs.iter().for_each(|spec| self.forget_export(spec));
        Err(ServiceError::Refused(refused))
    }

    /// Takes the volumes of all exports on this machine.
    fn own_exported(
        &self,
        specs: &[Spec],
        opened: &[Opened],
    ) -> Result<Vec<Option<VolumeOwner>>, ServiceError> {
        let (mut problems, mut all) = (Vec::new(), Vec::new());
        for (index, (spec, opened)) in specs.iter().zip(opened).enumerate() {
            let volume = opened.volume.as_ref();
            let owned = volume.map(|volume| take_volume(&self.shared.owners, volume, &spec.key()));
            all.push(owned.transpose().unwrap_or_else(|why| {
                let path = format!("export[{index}].disk.volume");
                let message = format!("the volume {why}");
                problems.push(Problem { path, message, help: OWNED_HELP.to_owned() });
                None
            }));
        }
        if problems.is_empty() {
            return Ok(all);
        }
        specs.iter().for_each(|spec| self.shared.state.forget_export(&spec.name));
        Err(ServiceError::Bad(problems))
    }

    fn start_export(
        &self,
        spec: Spec,
        opened: Opened,
        owned: Option<VolumeOwner>,
    ) -> Result<Export, ServiceError> {
        let files = opened.volume.iter().flat_map(Volume::files).collect();
        let (group, id) = attach(&self.shared, &spec, opened.volume)?;
        let served = (Arc::clone(&self.shared), group.clone());
        let unsealed_memory = spec.unsealed_memory;
        let started = Listener::start(&spec.name, opened.socket, move |socket| {
            let (shared, group) = &served;
            let peer = Peer { socket, unsealed_memory };
            let domain = shared.resources.domain(group);
            domain.is_some_and(|domain| domain.connect(id, peer).is_ok())
        });
        match started {
            Ok(listener) => {
                tracing::info!(export = spec.name, socket = %spec.socket.display(), "exported");
                Ok(Export { spec, group, id, files, _owned: owned, listener })
            }
            Err(error) => {
                detach(&self.shared, &spec, &group, id);
                Err(ServiceError::IoDomain(IoDomainError::Setup(error)))
            }
        }
    }

    /// Ends an export and gives back everything it held.
    pub(super) fn end_export(&self, export: Export) {
        let Export { spec, group, id, listener, .. } = export;
        drop(listener);
        detach(&self.shared, &spec, &group, id);
        self.forget_export(&spec);
        tracing::info!(export = spec.name, "no longer exported");
    }

    fn forget_export(&self, spec: &Spec) {
        self.shared.state.forget_export(&spec.name);
        lock(&self.shared.ledger).release(&spec.key());
    }

    pub(super) fn export_view(&self, export: &Export) -> ExportView {
        let Export { spec, group, id, listener, .. } = export;
        let snapshot = self.shared.resources.domain(group).and_then(|it| it.snapshot().ok());
        let devices = snapshot.map(|snapshot| snapshot.devices).unwrap_or_default();
        let found = devices.into_iter().find(|device| device.id == id.0);
        let not_kept = found.as_ref().and_then(|device| device.not_kept.clone());
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
                failed: found.and_then(|device| device.failed),
            },
            table: spec.table.clone(),
        }
    }

    /// What exports got, in the form of tenants with one part.
    pub(super) fn export_stats(&self, snapshots: &Snapshots<'_>) -> Vec<TenantStats> {
        let stats = |export: &Export| {
            let contract = export.spec.contract();
            let mut part = PartStats {
                resource: described(&export.spec, &self.shared.config).0,
                contract: Some(ContractReport::of(&contract)),
                reserved: per_second(&contract),
                ..PartStats::default()
            };
            if let Some(snapshot) = snapshots.devices.get(&(export.group.as_str(), export.id.0)) {
                part.add_device(snapshot);
            }
            TenantStats { name: export.spec.key(), parts: vec![part] }
        };
        lock(&self.exports).values().map(stats).collect()
    }

    /// The files of all exports.
    pub(super) fn exported_files(&self) -> FilesInUse {
        lock(&self.exports).values().flat_map(Export::files_in_use).collect()
    }
}

impl Export {
    fn files_in_use(&self) -> impl Iterator<Item = (FileId, (String, bool))> {
        let name = self.spec.key();
        self.files.iter().map(move |(file, written)| (*file, (name.clone(), *written)))
    }
}

/// A file that somebody writes belongs to one volume only.
fn shared_files(mut used: FilesInUse, specs: &[Spec], opened: &[Opened]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, (spec, opened)) in specs.iter().zip(opened).enumerate() {
        let mut conflict = None;
        for (file, written) in opened.volume.iter().flat_map(Volume::files) {
            match used.get(&file) {
                Some((user, theirs)) if written || *theirs => conflict = Some(user.clone()),
                _ => drop(used.insert(file, (spec.key(), written))),
            }
        }
        if let Some(user) = conflict {
            problems.push(Problem {
                path: format!("export[{index}].disk.volume"),
                message: format!("the volume is in use by {user}"),
                help: "give each its own, or let all of them only read it: readonly = true"
                    .to_owned(),
            });
        }
    }
    problems
}

fn open(spec: &Spec, index: usize) -> Result<Opened, Problem> {
    let volume = match &spec.device {
        ExportDevice::Volume(volume) => {
            let opened = open_volume(volume).map_err(|error| Problem {
                path: format!("export[{index}].disk.volume"),
                message: error.to_string(),
                help: "volumes are files or block devices below the disk's path".to_owned(),
            })?;
            remark(&opened, &spec.key(), &volume.path);
            Some(opened)
        }
        ExportDevice::Net(_) => None,
    };
    let socket = ExportSocket::bind(&spec.socket).map_err(|error| Problem {
        path: format!("export[{index}].socket"),
        message: error.to_string(),
        help: "name a path at which this user may make a socket and nobody else has one".to_owned(),
    })?;
    Ok(Opened { socket, volume })
}

/// Attaches the device without a peer: one end of a pair whose other end is closed.
fn attach(
    shared: &Shared,
    spec: &Spec,
    opened: Option<Volume>,
) -> Result<(String, DeviceId), ServiceError> {
    let gone = || ServiceError::IoDomain(IoDomainError::Gone);
    let setup = |error| ServiceError::IoDomain(IoDomainError::Setup(error));
    let (socket, _) = UnixStream::pair().map_err(setup)?;
    let (tenant, contract) = (spec.key(), spec.contract());
    match (&spec.device, opened) {
        (ExportDevice::Volume(volume), Some(opened)) => {
            let disk = shared.config.disks.get(volume.disk).ok_or_else(gone)?;
            let domain = shared.resources.domain(&disk.group).ok_or_else(gone)?;
            let disk_name = disk.name.clone();
            let attached = BlkSpec {
                tenant,
                disk: disk_name,
                volume: opened,
                queues: volume.queues,
                contract,
                bandwidth: volume.bandwidth,
                socket,
            };
            let id = domain.attach_blk(attached)?;
            Ok((disk.group.clone(), id))
        }
        (ExportDevice::Net(net), _) => {
            let link = shared.config.links.get(net.link).ok_or_else(gone)?;
            let domain = shared.resources.domain(&link.group).ok_or_else(gone)?;
            let link_name = link.name.clone();
            let attached = NetSpec {
                tenant,
                link: link_name,
                mac: net.mac,
                pairs: net.queues,
                contract,
                socket,
            };
            let id = domain.attach_net(attached)?;
            Ok((link.group.clone(), id))
        }
        (ExportDevice::Volume(_), None) => Err(gone()),
    }
}

fn detach(shared: &Shared, spec: &Spec, group: &str, id: DeviceId) {
    if let Some(Err(error)) = shared.resources.domain(group).map(|domain| domain.detach(id)) {
        tracing::warn!(export = spec.name, %error, "a device was not given back");
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
            net.mac.map(|byte| format!("{byte:02x}")).join(":"),
        ),
    }
}

fn taken(index: usize, name: &str) -> Problem {
    Problem {
        path: format!("export[{index}].name"),
        message: format!("there is an export named {name:?} already"),
        help: format!("choose another name, or end it first: moirai unexport {name}"),
    }
}
