//! Exports: devices of ours for VMMs that are not.
//!
//! An export holds a reservation, a device in an I/O domain and a socket, whether or not anybody is
//! connected; contract and account outlive every peer, so that coming again gains nothing. In the
//! ledger and in the counters it is called `export/NAME`. `device.rs` has what is opened and
//! attached for it, `view.rs` what is shown of it.

mod device;
mod view;

use moirai_api::{ExportView, Phase};
use std::sync::Arc;

use moirai_devices::backend::{FileId, Volume};

use super::launch::{FilesInUse, files_in_use};
use super::owner::{VolumeOwner, take_volume};
use super::process::OWNED_HELP;
use super::{HostService, ServiceError, lock};
use crate::sockets::Listener;
use device::{Opened, attach, detach, open, shared_files};
use moirai_config::admission::plan::TenantPlan;
use moirai_config::admission::{Claim, MemoryClaim};
use moirai_config::export::{Export as Spec, ExportTable};
use moirai_config::{Holder, Problem, check_exports};
use moirai_io::{DeviceId, IoDomainError, Peer};

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

impl HostService {
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
            let asked = ledger.admit(&spec.holder(), &[Claim::of_export(spec)], Some(memory));
            if let Err(refusals) = asked {
                refused.push(TenantPlan::of(spec.holder(), &refusals));
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
            let owned = volume
                .map(|volume| take_volume(&self.shared.owners, volume, &spec.holder().to_string()));
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
        lock(&self.shared.ledger).release(&spec.holder());
    }

    /// The files of all exports.
    pub(super) fn exported_files(&self) -> FilesInUse {
        lock(&self.exports).values().flat_map(Export::files_in_use).collect()
    }
}

impl Export {
    fn files_in_use(&self) -> impl Iterator<Item = (FileId, (Holder, bool))> {
        let name = self.spec.holder();
        self.files.iter().map(move |(file, written)| (*file, (name.clone(), *written)))
    }
}

fn taken(index: usize, name: &str) -> Problem {
    Problem {
        path: format!("export[{index}].name"),
        message: format!("there is an export named {name:?} already"),
        help: format!("choose another name, or end it first: moirai unexport {name}"),
    }
}
