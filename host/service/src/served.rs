//! Devices that an I/O domain serves, the same for tenants and exports: admit, own, attach, give
//! back.
//!
//! Whoever asks is a [`Candidate`]. [`admit`] makes an [`Admitted`] of him or changes nothing; each
//! of his devices is a [`ServedDevice`]. Both give back what they stand for when they are dropped:
//! that is the one way out, whatever failed and however far it had come.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use moirai_devices::backend::{FileId, Volume};

use super::owner::{VolumeOwner, take_volume};
use super::{ServiceError, Shared, lock};
use moirai_config::admission::plan::TenantPlan;
use moirai_config::admission::{Claim, MemoryClaim, Part};
use moirai_config::export::{Export, ExportDevice};
use moirai_config::{Config, Holder, Problem, model};
use moirai_io::{BlkSpec, DeviceId, IoDomainError, NetSpec, Sources};

/// What to do about a volume that somebody else has on this machine.
const OWNED_HELP: &str = "stop whoever has it, or name another volume; several may only read one: \
                          readonly = true";
/// What to do about a volume that somebody uses in this host service.
const SHARED_HELP: &str = "give each a volume of its own, or let all of them only read it: \
                           readonly = true";

/// Who uses which file, and whether he writes it.
pub(super) type FilesInUse = HashMap<FileId, (Holder, bool)>;

/// A tenant or an export that asks to be admitted; its volumes are open.
pub(super) struct Candidate<'a> {
    holder: Holder,
    claims: Vec<Claim>,
    memory: MemoryClaim,
    volumes: Vec<AskedVolume<'a>>,
}

/// A volume that somebody asks for.
pub(super) struct AskedVolume<'a> {
    /// Where it is written.
    at: String,
    /// What it is called in messages.
    called: String,
    opened: &'a Volume,
}

impl<'a> Candidate<'a> {
    /// A tenant whose table is `at`.
    pub(super) fn tenant(
        config: &Config,
        spec: &model::Tenant,
        at: &str,
        opened: &'a [Volume],
    ) -> Self {
        Self {
            holder: spec.holder(),
            claims: Claim::all_of(spec),
            memory: MemoryClaim::of_tenant(config, spec),
            volumes: volumes_of(spec, at, opened),
        }
    }

    /// An export whose table is `at`; `opened` has its volume, if that is its device.
    pub(super) fn export(config: &Config, spec: &Export, at: &str, opened: &'a [Volume]) -> Self {
        let volume = |opened| {
            let (at, called) = (format!("{at}.disk.volume"), "the volume".to_owned());
            AskedVolume { at, called, opened }
        };
        Self {
            holder: spec.holder(),
            claims: vec![Claim::of_export(spec)],
            memory: MemoryClaim::of_export(config, spec),
            volumes: opened.iter().map(volume).collect(),
        }
    }
}

/// The volumes of a tenant whose table is `at`.
fn volumes_of<'a>(spec: &model::Tenant, at: &str, opened: &'a [Volume]) -> Vec<AskedVolume<'a>> {
    let both = spec.volumes.iter().zip(opened);
    let asked = both.enumerate().map(|(number, (volume, opened))| AskedVolume {
        at: format!("{at}.disk[{number}].volume"),
        called: volume.path.display().to_string(),
        opened,
    });
    asked.collect()
}

/// What was promised to a tenant or an export, and the volumes that it owns on this machine.
#[derive(Debug)]
pub(super) struct Admitted {
    shared: Arc<Shared>,
    holder: Holder,
    volumes: OwnedVolumes,
}

/// Volumes that are owned on this machine as long as the value lives.
#[derive(Debug, Default)]
struct OwnedVolumes {
    /// Their files, and whether they are written.
    files: Vec<(FileId, bool)>,
    _owners: Vec<VolumeOwner>,
}

/// Admits all candidates or none; none if there are `problems` already. The caller holds the lock
/// under which `used` stays true. It takes as long as admission thinks; whether it is still
/// `wanted` is asked before each candidate.
///
/// # Errors
/// [`ServiceError::Bad`], [`ServiceError::Refused`] and [`ServiceError::Unwanted`]; then nothing
/// has changed.
pub(super) fn admit(
    shared: &Arc<Shared>,
    mut problems: Vec<Problem>,
    used: FilesInUse,
    candidates: &[Candidate<'_>],
    wanted: &dyn Fn() -> bool,
) -> Result<Vec<Admitted>, ServiceError> {
    problems.extend(conflicts(used, candidates));
    if !problems.is_empty() {
        return Err(ServiceError::Bad(problems));
    }
    let mut owned = Vec::new();
    for candidate in candidates {
        match own(shared, &candidate.holder, &candidate.volumes) {
            Ok(volumes) => owned.push(volumes),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(ServiceError::Bad(problems));
    }
    let mut ledger = lock(&shared.ledger);
    let mut asked = 0;
    let looked_at = candidates.iter().take_while(|_| wanted()).inspect(|_| asked += 1);
    let refused = looked_at.filter_map(|candidate| {
        let Candidate { holder, claims, memory, .. } = candidate;
        let refusals = ledger.admit(holder, claims, Some(*memory)).err()?;
        Some(TenantPlan::of(holder.clone(), &refusals))
    });
    let refused: Vec<_> = refused.collect();
    if asked < candidates.len() || !refused.is_empty() {
        candidates.iter().for_each(|candidate| ledger.release(&candidate.holder));
        let unwanted = asked < candidates.len();
        return Err(if unwanted { ServiceError::Unwanted } else { ServiceError::Refused(refused) });
    }
    let admitted = candidates.iter().zip(owned).map(|(candidate, volumes)| Admitted {
        shared: Arc::clone(shared),
        holder: candidate.holder.clone(),
        volumes,
    });
    Ok(admitted.collect())
}

/// A file that somebody writes belongs to one volume only, whatever names it has: a volume, one of
/// a stripe set, or one that an image is made of.
fn conflicts(mut used: FilesInUse, candidates: &[Candidate<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for Candidate { holder, volumes, .. } in candidates {
        for AskedVolume { at, called, opened } in volumes {
            let mut conflict = None;
            for (file, written) in opened.files() {
                match used.get(&file) {
                    Some((user, theirs)) if written || *theirs => conflict = Some(user.clone()),
                    _ => drop(used.insert(file, (holder.clone(), written))),
                }
            }
            if let Some(user) = conflict {
                let message = format!("{called} is in use by {user}");
                problems.push(Problem { path: at.clone(), message, help: SHARED_HELP.to_owned() });
            }
        }
    }
    problems
}

/// Takes volumes on this machine.
fn own(
    shared: &Shared,
    holder: &Holder,
    volumes: &[AskedVolume<'_>],
) -> Result<OwnedVolumes, Vec<Problem>> {
    let whose = match holder {
        Holder::Tenant(name) => format!("tenant {name}"),
        Holder::Export(_) => holder.to_string(),
    };
    let (mut problems, mut owners) = (Vec::new(), Vec::new());
    for AskedVolume { at, called, opened } in volumes {
        match take_volume(&shared.owners, opened, &whose) {
            Ok(owner) => owners.push(owner),
            Err(why) => {
                let (path, message) = (at.clone(), format!("{called} {why}"));
                problems.push(Problem { path, message, help: OWNED_HELP.to_owned() });
            }
        }
    }
    let files = volumes.iter().flat_map(|volume| volume.opened.files()).collect();
    if problems.is_empty() { Ok(OwnedVolumes { files, _owners: owners }) } else { Err(problems) }
}

impl Admitted {
    /// The files of its volumes.
    pub(super) fn files_in_use(&self) -> impl Iterator<Item = (FileId, (Holder, bool))> {
        let files = self.volumes.files.iter();
        files.map(|(file, written)| (*file, (self.holder.clone(), *written)))
    }

    /// Owns what the volumes of a tenant are now, should other files have come into their places.
    ///
    /// # Errors
    /// Somebody else has one of them; then it owns none.
    pub(super) fn own_again(
        &mut self,
        spec: &model::Tenant,
        at: &str,
        opened: &[Volume],
    ) -> Result<(), Vec<Problem>> {
        let files: Vec<_> = opened.iter().flat_map(Volume::files).collect();
        if self.volumes.files == files {
            return Ok(());
        }
        // The old ones are given back first.
        self.volumes = OwnedVolumes::default();
        self.volumes = own(&self.shared, &self.holder, &volumes_of(spec, at, opened))?;
        Ok(())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        lock(&self.shared.ledger).release(&self.holder);
    }
}

/// Where a device is served.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The group of its disk or link.
    pub(super) group: String,
    /// Its number in the I/O domain of that group.
    pub(super) id: DeviceId,
}

/// A device in an I/O domain.
#[derive(Debug)]
pub(super) struct ServedDevice {
    shared: Arc<Shared>,
    holder: Holder,
    /// Which part of the holder's promises it has.
    pub(super) part: Part,
    pub(super) place: Place,
}

/// Who drives a device.
pub(super) struct Driver {
    /// Our end of the vhost-user connection.
    pub(super) socket: UnixStream,
    /// The most guest memory that it may hand over, in bytes.
    pub(super) memory: u64,
}

/// What is attached.
pub(super) enum Source<'a> {
    /// A volume that is open.
    Volume(&'a model::Volume, Box<Volume>),
    /// A port of a link.
    Net(&'a model::Net),
}

impl<'a> Source<'a> {
    /// The device of an export; a volume is among `opened`.
    pub(super) fn of_export(device: &'a ExportDevice, opened: Vec<Volume>) -> Option<Self> {
        match device {
            ExportDevice::Volume(volume) => {
                Some(Self::Volume(volume, Box::new(opened.into_iter().next()?)))
            }
            ExportDevice::Net(net) => Some(Self::Net(net)),
        }
    }
}

impl ServedDevice {
    /// Attaches device number `index` of its kind to the I/O domain of its disk or link; the driver
    /// is at the other end, and may hand over as much memory as admission has counted.
    ///
    /// # Errors
    /// The I/O domain cannot take it.
    pub(super) fn attach(
        shared: &Arc<Shared>,
        holder: &Holder,
        index: usize,
        source: Source<'_>,
        Driver { socket, memory }: Driver,
    ) -> Result<Self, IoDomainError> {
        let (config, tenant) = (&shared.config, holder.to_string());
        let domain = |group| shared.resources.domain(group).ok_or(IoDomainError::Gone);
        let (part, group, id) = match source {
            Source::Volume(model, volume) => {
                let disk = config.disks.get(model.disk).ok_or(IoDomainError::Gone)?;
                let id = domain(&disk.group)?.attach_blk(BlkSpec {
                    tenant,
                    disk: disk.name.clone(),
                    volume: *volume,
                    queues: model.queues,
                    contract: model.contract,
                    bandwidth: model.bandwidth,
                    memory,
                    socket,
                })?;
                (Part::Volume(index), &disk.group, id)
            }
            Source::Net(model) => {
                let link = config.links.get(model.link).ok_or(IoDomainError::Gone)?;
                let id = domain(&link.group)?.attach_net(NetSpec {
                    tenant,
                    link: link.name.clone(),
                    mac: model.mac,
                    pairs: model.queues,
                    sources: sources(model),
                    receive: model.receive,
                    memory,
                    contract: model.contract,
                    socket,
                })?;
                (Part::Net(index), &link.group, id)
            }
        };
        let place = Place { group: group.clone(), id };
        Ok(Self { shared: Arc::clone(shared), holder: holder.clone(), part, place })
    }
}

/// From whom an interface may send.
fn sources(net: &model::Net) -> Sources {
    if net.spoofs { Sources::Any } else { Sources::Own(net.addresses.clone()) }
}

impl Drop for ServedDevice {
    fn drop(&mut self) {
        let domain = self.shared.resources.domain(&self.place.group);
        if let Some(Err(error)) = domain.map(|domain| domain.detach(self.place.id)) {
            tracing::warn!(holder = %self.holder, %error, "a device was not given back");
        }
    }
}
