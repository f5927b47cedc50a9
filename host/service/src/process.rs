//! The process of a tenant, from opened files to a child that builds its VM: attaches the devices,
//! makes what is passed, spawns. What a tenant takes is noted in its entry before it is taken, so
//! that [`give_back_devices`](super::release::give_back_devices) undoes every half of it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use moirai_devices::backend::Volume;
use moirai_devices::{blk, net};
use moirai_launch::{
    Boot, Child, DeviceSpec, LaunchFds, LaunchSpec, Sandbox, SpawnError, kvm::KvmError,
    kvm::open_kvm, spawn,
};

use super::open::{Opened, open};
use super::own::OwnDevices;
use super::owner::{VolumeOwner, take_volume};
use super::tenant::{Device, Tenant};
use super::{ServiceError, Shared, StateError, lock};
use moirai_config::admission::Part;
use moirai_config::{Problem, model};
use moirai_cpu::GatePage;
use moirai_io::{BlkSpec, IoDomain, IoDomainError, NetSpec};

/// First user id of tenant processes.
const FIRST_UID: u32 = 200_000;
/// What to do about a volume that somebody else has.
pub(super) const OWNED_HELP: &str = "stop whoever has it, or name another volume; several may only \
                                     read one: readonly = true";

/// A process that builds a VM, with the host's ends of what it was given.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    /// What the guest says, on all its consoles.
    pub(super) consoles: Vec<UnixStream>,
    /// The gates of its vCPUs.
    pub(super) gates: GatePage,
}

/// Why a tenant could not be started although it was admitted.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
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

/// Takes the volumes of a tenant, whose table is `at`, on this machine.
pub(super) fn own_volumes(
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

/// Starts the next process of a tenant whose last one has ended, under the contracts that it still
/// holds.
///
/// # Errors
/// Why it cannot be started, as a sentence.
pub(super) fn start_again(shared: &Shared, tenant: &Tenant) -> Result<Process, String> {
    let said = |problems: Vec<Problem>| ServiceError::Bad(problems).to_string();
    let spec = tenant.with(|live| live.spec.clone());
    let opened = open(&spec, "tenant").map_err(said)?;
    let files: Vec<_> = opened.volumes.iter().flat_map(Volume::files).collect();
    if tenant.with(|live| live.files != files) {
        // Other files have come into their places; the old ones are given back first.
        tenant.with(|live| live.owned.clear());
        let owned = own_volumes(shared, &spec, &opened, "tenant").map_err(said)?;
        tenant.with(|live| (live.files, live.owned) = (files, owned));
    }
    start(shared, tenant, opened).map_err(|error| error.to_string())
}

/// Attaches the devices and spawns the process.
///
/// # Errors
/// [`StartError`]; what was taken until then is noted in the tenant's entry.
pub(super) fn start(
    shared: &Shared,
    tenant: &Tenant,
    opened: Opened,
) -> Result<Process, StartError> {
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
    Ok(Process { child, consoles, gates })
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

fn domain<'a>(shared: &'a Shared, group: &str) -> Result<&'a IoDomain, StartError> {
    shared.resources.domain(group).ok_or(StartError::IoDomain(IoDomainError::Gone))
}
