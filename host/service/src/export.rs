//! Exports: devices of ours for VMMs that are not.
//!
//! An export holds a reservation, a device in an I/O domain and a socket, whether or not anybody is
//! connected; contract and account outlive every peer, so that coming again gains nothing. In the
//! counters it is called `export/NAME`. `view.rs` has what is shown of it.

mod view;

use moirai_api::{ExportView, Phase};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use moirai_devices::backend::Volume;

use super::images::Images;
use super::launch::files_in_use;
use super::open::open_volumes;
use super::served::{self, Admitted, Candidate, Driver, FilesInUse, ServedDevice, Source};
use super::stats::Snapshots;
use super::{HostService, ServiceError, lock};
use crate::sockets::{ExportSocket, Listener};
use moirai_config::export::{Export as Spec, ExportDevice, ExportTable};
use moirai_config::{Problem, check_exports};
use moirai_io::{IoDomainError, Peer};

/// A running export. What it has goes in the order in which it is written here.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) spec: Spec,
    listener: Listener,
    pub(super) device: ServedDevice,
    admitted: Admitted,
}

/// What is had before admission, so that something missing costs nobody anything.
struct Opened {
    socket: ExportSocket,
    /// Its volume, if that is its device.
    volumes: Vec<Volume>,
}

impl HostService {
    /// Exports devices, all or none.
    ///
    /// # Errors
    /// [`ServiceError::Bad`] and [`ServiceError::Refused`], or the kernel has nothing left; then
    /// nothing was exported.
    pub fn export(&self, tables: &[ExportTable]) -> Result<Vec<ExportView>, ServiceError> {
        let specs = check_exports(&self.shared.config, tables).map_err(ServiceError::Bad)?;
        let _alone = lock(&self.exporting);
        let tenants = lock(&self.tenants);
        let exports = lock(&self.exports);
        let named = specs.iter().enumerate();
        let taken = named.filter(|(_, spec)| exports.contains_key(&spec.name));
        let problems: Vec<_> = taken.map(|(index, spec)| taken_name(index, &spec.name)).collect();
        if !problems.is_empty() {
            return Err(ServiceError::Bad(problems));
        }
        let live = tenants.values().filter(|tenant| tenant.phase() != Phase::Ended);
        let mut used = files_in_use(live);
        used.extend(exports.values().flat_map(|export| export.admitted.files_in_use()));
        let started = self.admit_exports(&specs, used).and_then(|admitted| {
            // From here on the volumes count as used, first by those that begin.
            let files = admitted.iter().flat_map(|(_, admitted)| admitted.files_in_use());
            lock(&self.beginning).extend(files);
            drop((tenants, exports));
            let all = specs.iter().zip(admitted);
            all.map(|(spec, (opened, admitted))| self.start_export(spec, opened, admitted))
                .collect::<Result<Vec<_>, _>>()
        });
        let started = started.inspect_err(|_| {
            lock(&self.beginning).clear();
            specs.iter().for_each(|spec| self.shared.state.forget_export(&spec.name));
        })?;
        let named = started.into_iter().map(|export| (export.spec.name.clone(), export));
        lock(&self.exports).extend(named);
        lock(&self.beginning).clear();
        let all = self.exports().into_iter();
        Ok(all.filter(|view| specs.iter().any(|spec| spec.name == view.name)).collect())
    }

    /// Opens and admits exports that have names of their own.
    fn admit_exports(
        &self,
        specs: &[Spec],
        used: FilesInUse,
    ) -> Result<Vec<(Opened, Admitted)>, ServiceError> {
        let opened = self.open_exports(specs)?;
        let asked = specs.iter().zip(&opened).enumerate().map(|(index, (spec, opened))| {
            let at = format!("export[{index}]");
            Candidate::export(&self.shared.config, spec, &at, &opened.volumes)
        });
        let asked: Vec<_> = asked.collect();
        let admitted = served::admit(&self.shared, Vec::new(), used, &asked, &|| true)?;
        Ok(opened.into_iter().zip(admitted).collect())
    }

    /// All exports.
    #[must_use]
    pub fn exports(&self) -> Vec<ExportView> {
        let (cores, domains) = self.snapshots();
        let snapshots = Snapshots::new(&cores, &domains);
        let exports = lock(&self.exports);
        exports.values().map(|export| self.export_view(export, &snapshots)).collect()
    }

    /// Ends an export: its peer is hung up on, its socket goes, its reservation is given back.
    ///
    /// # Errors
    /// [`ServiceError::UnknownExport`].
    pub fn unexport(&self, name: &str) -> Result<ExportView, ServiceError> {
        let _alone = lock(&self.exporting);
        let (cores, domains) = self.snapshots();
        let export = lock(&self.exports).remove(name);
        let export = export.ok_or_else(|| ServiceError::UnknownExport(name.to_owned()))?;
        let view = self.export_view(&export, &Snapshots::new(&cores, &domains));
        self.end_export(export);
        Ok(view)
    }

    fn open_exports(&self, specs: &[Spec]) -> Result<Vec<Opened>, ServiceError> {
        let (mut problems, mut all) = (Vec::new(), Vec::new());
        for (index, spec) in specs.iter().enumerate() {
            self.shared.state.note_export(&spec.name, &spec.socket)?;
            match open(spec, index, &self.shared.images) {
                Ok(opened) => all.push(opened),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(all) } else { Err(ServiceError::Bad(problems)) }
    }

    fn start_export(
        &self,
        spec: &Spec,
        opened: Opened,
        admitted: Admitted,
    ) -> Result<Export, ServiceError> {
        let setup = |error| ServiceError::IoDomain(IoDomainError::Setup(error));
        // Without a peer: one end of a pair whose other end is closed.
        let (socket, _) = UnixStream::pair().map_err(setup)?;
        let driver = Driver { socket, memory: spec.memory };
        let source = Source::of_export(&spec.device, opened.volumes).ok_or(IoDomainError::Gone)?;
        let device = ServedDevice::attach(&self.shared, &spec.holder(), 0, source, driver)?;
        let (shared, place) = (Arc::clone(&self.shared), device.place.clone());
        let unsealed_memory = spec.unsealed_memory;
        let listener = Listener::start(&spec.name, opened.socket, move |socket| {
            let peer = Peer { socket, unsealed_memory };
            let domain = shared.resources.domain(&place.group);
            domain.is_some_and(|domain| domain.connect(place.id, peer).is_ok())
        });
        let listener = listener.map_err(setup)?;
        tracing::info!(export = spec.name, socket = %spec.socket.display(), "exported");
        Ok(Export { spec: spec.clone(), listener, device, admitted })
    }

    /// Ends an export and gives back everything it held.
    pub(super) fn end_export(&self, export: Export) {
        let name = export.spec.name.clone();
        drop(export);
        self.shared.state.forget_export(&name);
        tracing::info!(export = name, "no longer exported");
    }

    /// The files of all exports, also of those that begin.
    pub(super) fn exported_files(&self) -> FilesInUse {
        let (exports, beginning) = (lock(&self.exports), lock(&self.beginning));
        let files = exports.values().flat_map(|export| export.admitted.files_in_use());
        files.chain(beginning.clone()).collect()
    }
}

fn open(spec: &Spec, index: usize, images: &Images) -> Result<Opened, Vec<Problem>> {
    let volume = match &spec.device {
        ExportDevice::Volume(volume) => Some((format!("export[{index}].disk"), volume)),
        ExportDevice::Net(_) => None,
    };
    let volumes = open_volumes(&spec.holder(), volume.into_iter(), images)?;
    let socket = ExportSocket::bind(&spec.socket).map_err(|error| {
        let help =
            "name a path at which this user may make a socket and nobody else has one".to_owned();
        let path = format!("export[{index}].socket");
        vec![Problem { path, message: error.to_string(), help }]
    })?;
    Ok(Opened { socket, volumes })
}

fn taken_name(index: usize, name: &str) -> Problem {
    Problem {
        path: format!("export[{index}].name"),
        message: format!("there is an export named {name:?} already"),
        help: format!("choose another name, or end it first: moirai unexport {name}"),
    }
}
