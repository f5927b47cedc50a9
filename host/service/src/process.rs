//! The process of a tenant, from opened files to a child that builds its VM: attaches the devices,
//! makes what is passed, spawns. What a tenant takes is noted in its entry before it is taken, so
//! that [`give_back_devices`](super::release::give_back_devices) undoes every half of it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use moirai_devices::{blk, net};
use moirai_launch::{
    Boot, Child, DeviceSpec, LaunchFds, LaunchSpec, Sandbox, SpawnError, Surroundings,
    kvm::KvmError, kvm::open_kvm, spawn_in,
};

use super::groups::{Group, Limits};
use super::open::{Opened, open};
use super::own::OwnDevices;
use super::served::{Driver, ServedDevice, Source};
use super::tenant::Tenant;
use super::{ServiceError, Shared, StateError, lock};
use moirai_config::Problem;
use moirai_cpu::GatePage;
use moirai_io::IoDomainError;

/// First user id of tenant processes.
const FIRST_UID: u32 = 200_000;

/// A process that builds a VM, with the host's ends of what it was given.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    /// What the guest says, on all its consoles.
    pub(super) consoles: Vec<UnixStream>,
    /// What the process itself says, which is for the log.
    pub(super) words: UnixStream,
    /// The gates of its vCPUs.
    pub(super) gates: GatePage,
    /// What it may take of the machine.
    pub(super) group: Group,
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

/// Starts the next process of a tenant whose last one has ended, under the contracts that it still
/// holds.
///
/// # Errors
/// Why it cannot be started, as a sentence.
pub(super) fn start_again(shared: &Arc<Shared>, tenant: &Tenant) -> Result<Process, String> {
    let said = |problems: Vec<Problem>| ServiceError::Bad(problems).to_string();
    let spec = tenant.with(|live| live.spec.clone());
    let opened = open(&spec, "tenant", &shared.images).map_err(said)?;
    let owned = tenant.with(|live| {
        let admitted = live.admitted.as_mut();
        admitted.map_or(Ok(()), |it| it.own_again(&spec, "tenant", &opened.volumes))
    });
    owned.map_err(said)?;
    start(shared, tenant, opened).map_err(|error| error.to_string())
}

/// Attaches the devices and spawns the process.
///
/// # Errors
/// [`StartError`]; what was taken until then is noted in the tenant's entry.
pub(super) fn start(
    shared: &Arc<Shared>,
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
        devices.add(shared, tenant, index, Source::Volume(volume, Box::new(opened)))?;
    }
    for (index, net) in spec.nets.iter().enumerate() {
        devices.add(shared, tenant, index, Source::Net(net))?;
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
    let limits = Limits { memory_bytes: spec.memory, vcpus: spec.cores.len() as u64 };
    let group = shared.groups.make(&spec.name, limits)?;
    let (words, stderr) = UnixStream::pair()?;
    words.set_nonblocking(true)?;
    let adopt = |pid| group.adopt(pid).and_then(|()| goes_first(pid));
    let surroundings = Surroundings { stderr: Some(stderr.into()), adopt: Some(&adopt) };
    let child = spawn_in(surroundings, &shared.binary, &launch, fds)?;
    tenant.with(|live| live.pid = Some(child.pid()));
    shared.state.note_tenant(&spec.name, child.pid().cast_signed())?;
    // Who has a virtio console types there; the serial port only speaks.
    let keyboard = own.console.as_ref().unwrap_or(&console).try_clone()?;
    tenant.set_keyboard(Some(keyboard));
    let consoles = [Some(console), own.console].into_iter().flatten().collect();
    Ok(Process { child, consoles, words, gates, group })
}

/// When the machine has no memory left, tenants go before the host service does.
fn goes_first(pid: u32) -> std::io::Result<()> {
    const FIRST: &str = "500";
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), FIRST)
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
    fn add(
        &mut self,
        shared: &Arc<Shared>,
        tenant: &Tenant,
        index: usize,
        source: Source<'_>,
    ) -> Result<(), StartError> {
        let (device_id, queues, queue_size) = match &source {
            Source::Volume(volume, _) => (blk::DEVICE_ID, volume.queues, blk::QUEUE_SIZE),
            Source::Net(card) => (net::DEVICE_ID, net::queues(card.queues), net::QUEUE_SIZE),
        };
        let (socket, theirs) = UnixStream::pair()?;
        let driver = Driver { socket, memory: tenant.with(|live| live.spec.memory) };
        let device = ServedDevice::attach(shared, &tenant.holder(), index, source, driver)?;
        tenant.with(|live| live.devices.push(device));
        self.specs.push(DeviceSpec { device_id, queues, queue_size });
        self.sockets.push(theirs.into());
        Ok(())
    }
}
