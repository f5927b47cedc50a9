//! From tables to running tenants: check, open, admit, attach, spawn.
//!
//! A batch is admitted as a whole or not at all. What a tenant takes is noted in its entry before
//! it is taken, so that one path, [`release::give_back`], undoes every half of it.

use moirai_api::{Phase, TenantView};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use moirai_devices::backend::{FileId, Volume};
use moirai_devices::{blk, net};
use moirai_launch::{
    Boot, DeviceSpec, LaunchFds, LaunchSpec, Sandbox, SpawnError, kvm::KvmError, kvm::open_kvm,
    spawn,
};

use super::open::{Opened, open};
use super::own::OwnDevices;
use super::owner::{VolumeOwner, take_volume};
use super::release;
use super::supervisor::Supervisor;
use super::tenant::{Device, Tenant};
use super::view;

use super::{END_PATIENCE, Service, ServiceError, Shared, StateError, lock};
use moirai_config::admission::plan::TenantPlan;
use moirai_config::admission::{Claim, MemoryClaim, Part};
use moirai_config::document::TenantTable;
use moirai_config::{Problem, check_tenants, model};
use moirai_cpu::GatePage;
use moirai_io::{BlkSpec, IoDomain, IoDomainError, NetSpec, Sources};

/// First user id of tenant processes.
const FIRST_UID: u32 = 200_000;
/// What to do about a volume that somebody else has.
pub(super) const OWNED_HELP: &str = "stop whoever has it, or name another volume; several may only \
                                     read one: readonly = true";

/// Why a tenant could not be started although it was admitted.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error("{0}")]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    IoDomain(#[from] IoDomainError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the kernel refused a descriptor, a page or a thread: {0}")]
    System(#[from] std::io::Error),
}

impl Service {
    /// Starts tenants, all or none, and waits until each runs or has ended, but not longer than
    /// [`END_PATIENCE`]. One that was admitted but cannot be started is among the results, as
    /// [`Phase::Ended`].
    ///
    /// # Errors
    /// [`ServiceError::Bad`] and [`ServiceError::Refused`]; then nothing was started.
    pub fn launch(&self, tables: &[TenantTable]) -> Result<Vec<TenantView>, ServiceError> {
        let specs = check_tenants(&self.shared.config, tables).map_err(ServiceError::Bad)?;
        let opened = open_all(&specs)?;
        let tenants = self.enter(specs, &opened)?;
        for (tenant, opened) in tenants.iter().zip(opened) {
            if let Err(error) = start(&self.shared, tenant, opened) {
                tracing::error!(tenant = tenant.name, %error, "cannot be started");
                tenant.with(|live| live.end = Some(view::failed(error.to_string())));
                release::give_back(&self.shared, tenant);
            }
        }
        for tenant in &tenants {
            // One that is stopping has failed to begin, and has ended soon.
            tenant.wait(END_PATIENCE, |phase| matches!(phase, Phase::Running | Phase::Ended));
        }
        Ok(tenants.iter().map(|tenant| tenant.view(&self.shared.config)).collect())
    }

    /// Admits the tenants and enters them under their names.
    fn enter(
        &self,
        specs: Vec<model::Tenant>,
        opened: &[Opened],
    ) -> Result<Vec<Arc<Tenant>>, ServiceError> {
        let mut tenants = lock(&self.tenants);
        let live: Vec<_> = tenants.values().filter(|old| old.phase() != Phase::Ended).collect();
        let mut problems = taken_names(&live, &specs);
        let mut used = files_in_use(live.iter().copied());
        used.extend(self.exported_files());
        problems.extend(shared_files(used, &specs, opened));
        if !problems.is_empty() {
            return Err(ServiceError::Bad(problems));
        }
        let owned = self.own_volumes(&specs, opened)?;
        self.admit(&specs)?;
        let entered: Result<Vec<_>, _> =
            specs.iter().map(|spec| Tenant::new(spec.clone()).map(Arc::new)).collect();
        let entered = entered.map_err(|error| {
            let mut ledger = lock(&self.shared.ledger);
            specs.iter().for_each(|spec| ledger.release(&spec.name));
            let message = format!("the kernel refused a descriptor: {error}");
            let help = "raise the limit of open files of the host service".to_owned();
            ServiceError::Bad(vec![Problem { path: String::new(), message, help }])
        })?;
        for ((tenant, opened), owned) in entered.iter().zip(opened).zip(owned) {
            tenant.with(|live| {
                live.files = opened.volumes.iter().flat_map(Volume::files).collect();
                live.owned = owned;
            });
            tenants.insert(tenant.name.clone(), Arc::clone(tenant));
        }
        Ok(entered)
    }

    /// Takes the volumes of all tenants on this machine.
    fn own_volumes(
        &self,
        specs: &[model::Tenant],
        opened: &[Opened],
    ) -> Result<Vec<Vec<VolumeOwner>>, ServiceError> {
        let (mut problems, mut all) = (Vec::new(), Vec::new());
        for (index, (spec, opened)) in specs.iter().zip(opened).enumerate() {
            let owned = own_volumes(&self.shared, spec, opened, &format!("tenant[{index}]"));
            all.push(owned.unwrap_or_else(|found| {
                problems.extend(found);
                Vec::new()
            }));
        }
        if problems.is_empty() { Ok(all) } else { Err(ServiceError::Bad(problems)) }
    }

    fn admit(&self, specs: &[model::Tenant]) -> Result<(), ServiceError> {
        let mut ledger = lock(&self.shared.ledger);
        let mut refused = Vec::new();
        for spec in specs {
            let memory = MemoryClaim::of_tenant(&self.shared.config, spec);
            let asked = ledger.admit(&spec.name, &Claim::all_of(spec), Some(memory));
            if let Err(refusals) = asked {
                refused.push(TenantPlan::of(spec.name.clone(), &refusals));
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        specs.iter().for_each(|spec| ledger.release(&spec.name));
        Err(ServiceError::Refused(refused))
    }
}

fn open_all(specs: &[model::Tenant]) -> Result<Vec<Opened>, ServiceError> {
    let mut problems = Vec::new();
    let mut all = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        match open(spec, &format!("tenant[{index}]")) {
            Ok(opened) => all.push(opened),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(ServiceError::Bad(problems)) }
}

/// Takes the volumes of a tenant, whose table is `at`, on this machine.
fn own_volumes(
    shared: &Shared,
    spec: &model::Tenant,
    opened: &Opened,
    at: &str,
) -> Result<Vec<VolumeOwner>, Vec<Problem>> {
    let (mut problems, mut owned) = (Vec::new(), Vec::new());
    for (number, (volume, opened)) in spec.volumes.iter().zip(&opened.volumes).enumerate() {
        match take_volume(&shared.owners, opened, &format!("tenant {}", spec.name)) {
            Ok(owner) => owned.push(owner),
            Err(why) => problems.push(Problem {
                path: format!("{at}.disk[{number}].volume"),
                message: format!("{} {why}", volume.path.display()),
                help: OWNED_HELP.to_owned(),
            }),
        }
    }
    if problems.is_empty() { Ok(owned) } else { Err(problems) }
}

fn taken_names(live: &[&Arc<Tenant>], specs: &[model::Tenant]) -> Vec<Problem> {
    let taken = |name: &str| live.iter().any(|tenant| tenant.name == name);
    let named = specs.iter().enumerate().filter(|(_, spec)| taken(&spec.name));
    named
        .map(|(index, spec)| Problem {
            path: format!("tenant[{index}].name"),
            message: format!("a tenant named {:?} runs already", spec.name),
            help: format!("choose another name, or stop it first: moirai stop {}", spec.name),
        })
        .collect()
}

/// Who uses which file, and whether he writes it.
pub(super) type FilesInUse = HashMap<FileId, (String, bool)>;

/// The files of tenants that live.
pub(super) fn files_in_use<'a>(live: impl Iterator<Item = &'a Arc<Tenant>>) -> FilesInUse {
    let theirs = live.flat_map(|tenant| {
        let files = tenant.with(|live| live.files.clone());
        files.into_iter().map(|(file, written)| (file, (tenant.name.clone(), written)))
    });
    theirs.collect()
}

/// A file that somebody writes belongs to one volume only, whatever names it has: a volume, one of
/// a stripe set, or one that an image is made of.
fn shared_files(mut used: FilesInUse, specs: &[model::Tenant], opened: &[Opened]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, (spec, opened)) in specs.iter().zip(opened).enumerate() {
        for (number, (volume, opened)) in spec.volumes.iter().zip(&opened.volumes).enumerate() {
            let mut conflict = None;
            for (file, written) in opened.files() {
                match used.get(&file) {
                    Some((user, theirs)) if written || *theirs => conflict = Some(user.clone()),
                    _ => drop(used.insert(file, (spec.name.clone(), written))),
                }
            }
            if let Some(user) = conflict {
                problems.push(Problem {
                    path: format!("tenant[{index}].disk[{number}].volume"),
                    message: format!("{} is in use by {user}", volume.path.display()),
                    help: "give each tenant a volume of its own, or let all of them only read it: \
                           readonly = true"
                        .to_owned(),
                });
            }
        }
    }
    problems
}

/// Starts a tenant whose process has ended, under the contracts that it still holds.
///
/// # Errors
/// Why it cannot be started, as a sentence.
pub(super) fn start_again(
    shared: &Arc<Shared>,
    tenant: &Arc<Tenant>,
    spec: &model::Tenant,
) -> Result<(), String> {
    let said = |problems: Vec<Problem>| ServiceError::Bad(problems).to_string();
    let opened = open(spec, "tenant").map_err(said)?;
    let files: Vec<_> = opened.volumes.iter().flat_map(Volume::files).collect();
    if tenant.with(|live| live.files != files) {
        // Other files have come into their places; the old ones are given back first.
        tenant.with(|live| live.owned.clear());
        let owned = own_volumes(shared, spec, &opened, "tenant").map_err(said)?;
        tenant.with(|live| (live.files, live.owned) = (files, owned));
    }
    start(shared, tenant, opened).map_err(|error| error.to_string())
}

/// Attaches the devices, spawns the process, starts the supervisor.
fn start(shared: &Arc<Shared>, tenant: &Arc<Tenant>, opened: Opened) -> Result<(), StartError> {
    let spec = tenant.with(|live| live.spec.clone());
    let kvm = open_kvm()?;
    let (gates, gate_fd) = GatePage::create()?;
    let (console, theirs) = UnixStream::pair()?;
    console.set_nonblocking(true)?;
    let cmdline = opened.command_line(&spec);
    let mut devices = Attached::default();
    for (index, (volume, opened)) in spec.volumes.iter().zip(opened.volumes).enumerate() {
        devices.add_volume(shared, tenant, index, volume, opened)?;
    }
    for (index, net) in spec.nets.iter().enumerate() {
        devices.add_net(shared, tenant, index, net)?;
    }
    let own = OwnDevices::new(&shared.config.host.state_dir, &spec)?;
    tenant.with(|live| live.vsock = own.vsock);
    let uid = rustix::process::geteuid().is_root().then(|| take_uid(shared));
    tenant.with(|live| live.uid = uid);
    let launch = LaunchSpec {
        name: spec.name.clone(),
        memory_bytes: spec.memory,
        prefault: spec.prefault,
        huge_pages: true,
        vcpus: u8::try_from(spec.cores.len()).unwrap_or(u8::MAX),
        cmdline,
        boot: Boot::Auto,
        initrd: opened.initrd.is_some(),
        transport: spec.transport,
        devices: devices.specs,
        own_devices: spec.own_devices.clone(),
        sandbox: Sandbox { enabled: true, uid, gid: uid },
    };
    let fds = LaunchFds {
        kvm,
        image: opened.image.into(),
        console: theirs.into(),
        gate: gate_fd,
        initrd: opened.initrd.map(OwnedFd::from),
        devices: devices.sockets,
        own_devices: own.fds,
    };
    let child = spawn(&shared.binary, &launch, fds)?;
    tenant.with(|live| live.pid = Some(child.pid()));
    shared.state.note_tenant(&spec.name, child.pid().cast_signed())?;
    // Who has a virtio console types there; the serial port only speaks.
    let keyboard = own.console.as_ref().unwrap_or(&console).try_clone()?;
    tenant.set_keyboard(Some(keyboard));
    let consoles = [Some(console), own.console].into_iter().flatten().collect();
    let supervisor =
        Supervisor::start(Arc::clone(shared), Arc::clone(tenant), child, consoles, gates)?;
    tenant.set_supervisor(supervisor);
    Ok(())
}

fn take_uid(shared: &Shared) -> u32 {
    let mut taken = lock(&shared.uids);
    let free = (FIRST_UID..).find(|uid| !taken.contains(uid)).unwrap_or(FIRST_UID);
    taken.insert(free);
    free
}

/// The devices of a tenant, as its process gets them.
#[derive(Default)]
struct Attached {
    specs: Vec<DeviceSpec>,
    sockets: Vec<OwnedFd>,
}

impl Attached {
    fn add_volume(
        &mut self,
        shared: &Shared,
        tenant: &Tenant,
        index: usize,
        volume: &model::Volume,
        opened: Volume,
    ) -> Result<(), StartError> {
        let Some(disk) = shared.config.disks.get(volume.disk) else { return Ok(()) };
        let (ours, theirs) = UnixStream::pair()?;
        let id = domain(shared, &disk.group)?.attach_blk(BlkSpec {
            tenant: tenant.name.clone(),
            disk: disk.name.clone(),
            volume: opened,
            queues: volume.queues,
            contract: volume.contract,
            bandwidth: volume.bandwidth,
            socket: ours,
        })?;
        let device = Device { part: Part::Volume(index), group: disk.group.clone(), id };
        tenant.with(|live| live.devices.push(device));
        let (device_id, queue_size) = (blk::DEVICE_ID, blk::QUEUE_SIZE);
        self.push(DeviceSpec { device_id, queues: volume.queues, queue_size }, theirs);
        Ok(())
    }

    fn add_net(
        &mut self,
        shared: &Shared,
        tenant: &Tenant,
        index: usize,
        card: &model::Net,
    ) -> Result<(), StartError> {
        let Some(link) = shared.config.links.get(card.link) else { return Ok(()) };
        let (ours, theirs) = UnixStream::pair()?;
        let id = domain(shared, &link.group)?.attach_net(NetSpec {
            tenant: tenant.name.clone(),
            link: link.name.clone(),
            mac: card.mac,
            pairs: card.queues,
            sources: sources(card),
            receive: card.receive,
            contract: card.contract,
            socket: ours,
        })?;
        let device = Device { part: Part::Net(index), group: link.group.clone(), id };
        tenant.with(|live| live.devices.push(device));
        let (device_id, queue_size) = (net::DEVICE_ID, net::QUEUE_SIZE);
        self.push(DeviceSpec { device_id, queues: net::queues(card.queues), queue_size }, theirs);
        Ok(())
    }

    fn push(&mut self, spec: DeviceSpec, socket: UnixStream) {
        self.specs.push(spec);
        self.sockets.push(socket.into());
    }
}

/// From whom an interface may send.
pub(super) fn sources(net: &model::Net) -> Sources {
    if net.spoofs { Sources::Any } else { Sources::Own(net.addresses.clone()) }
}

fn domain<'a>(shared: &'a Shared, group: &str) -> Result<&'a IoDomain, StartError> {
    shared.resources.domain(group).ok_or(StartError::IoDomain(IoDomainError::Gone))
}
