//! Everything that is measured, in one piece: what `top`, the demo and `/metrics` show.
//!
//! Joins the snapshots of dispatchers and I/O domains with the contracts of the tenants. Counters
//! only grow as long as a tenant runs; a reader takes two looks and subtracts.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::life::Phase;
use super::tenant::Live;
use super::view::name;
use super::{Service, lock};
use crate::admission::plan::{ContractReport, ResourceReport};
use crate::admission::{Part, per_second};
use crate::config::Config;
use moirai_cpu::{CoreSnapshot, VcpuSnapshot};
use moirai_io::{DeviceSnapshot, DomainSnapshot};
use moirai_runtime::{NoiseFloor, now};

/// One look at everything. Times in nanoseconds, counted since the tenant or the host started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// When this was read, on CLOCK_MONOTONIC.
    pub now_ns: u64,
    /// Tenants that run, and exports as `export/NAME`.
    pub tenants: Vec<TenantStats>,
    /// Tenants that have ended by a failure and are not forgotten yet.
    #[serde(default)]
    pub failed: Vec<FailedTenant>,
    /// Capacity and reservations.
    pub resources: Vec<ResourceReport>,
    /// Cores and their dispatchers.
    pub cores: Vec<CoreStats>,
    /// Disks.
    pub disks: Vec<DiskStats>,
    /// Links.
    pub links: Vec<LinkStats>,
    /// Event loops of the I/O domain.
    pub domains: Vec<DomainStats>,
    /// Times in which the machine itself stood still: begin and end.
    pub stalls: Vec<(u64, u64)>,
    /// What the machine's timers can do at best.
    pub noise: NoiseStats,
}

/// How late a timer of the highest priority was, since the host service started: the floor below
/// which nothing here can be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoiseStats {
    /// Median.
    pub late_p50_ns: u64,
    /// 99th percentile.
    pub late_p99_ns: u64,
    /// Largest.
    pub late_max_ns: u64,
    /// Time that the hypervisor below this machine took away, as the kernel reports it.
    pub steal_ns: u64,
}

/// A tenant that has ended by a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedTenant {
    /// Name.
    pub name: String,
    /// What happened.
    pub reason: String,
}

/// A tenant's services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TenantStats {
    /// Name.
    pub name: String,
    /// One for every virtual CPU, volume and interface.
    pub parts: Vec<PartStats>,
}

/// What a virtual CPU, a volume or an interface got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PartStats {
    /// `cpu/1`, `disk/ssd`, `link/uplink`.
    pub resource: String,
    /// Contract; absent between the end of a tenant and this look.
    pub contract: Option<ContractReport>,
    /// What the contract guarantees, in nanoseconds per second.
    pub reserved: u64,
    /// Service charged to the contract.
    pub guaranteed_ns: u64,
    /// Service taken from the slack.
    pub extra_ns: u64,
    /// Periods in which the slice was wanted and not delivered.
    pub misses: u64,
    /// The same, in a stall of the machine; not among `misses`.
    pub misses_in_stall: u64,
    /// Guarantee lost because whole periods passed in a stall.
    pub stall_loss_ns: u64,
    /// Least service in any period of the present contract in which all of it was wanted (virtual
    /// CPUs only).
    pub least_slice_ns: Option<u64>,
    /// Requests or packets that wait, now.
    pub queued: u64,
    /// The most that ever waited.
    pub queued_max: u64,
    /// Requests in the device, now.
    pub in_flight: u64,
    /// Requests or packets served.
    pub completed: u64,
    /// Payload bytes served.
    pub bytes: u64,
    /// Longest time from the guest's queue to completion.
    pub latency_max_ns: u64,
    /// CPU time that the I/O domain spent for it.
    pub io_cpu_ns: u64,
    /// Payload bytes that nobody copied on this host.
    pub direct_bytes: u64,
    /// Payload bytes that Moirai copied.
    pub copied_by_us_bytes: u64,
    /// Payload bytes that the kernel copied.
    pub copied_by_kernel_bytes: u64,
    /// Blocks of the disk that were read, changed and written back, because a write covered them in
    /// part: the disk's blocks are larger than the guest's.
    #[serde(default)]
    pub read_modify_writes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Packets of the guest dropped as malformed.
    pub dropped_tx: u64,
    /// Packets for the guest dropped because it had no buffer.
    pub dropped_rx: u64,
    /// Packets received.
    pub received: u64,
    /// Whether a volume is read and written around the page cache.
    pub direct_io: Option<bool>,
    /// Why the device no longer works, if so.
    pub failed: Option<String>,
    /// Why the contract is not kept any more, if so.
    #[serde(default)]
    pub not_kept: Option<String>,
}

/// A core and its dispatcher.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoreStats {
    /// Number.
    pub core: usize,
    /// Decisions taken.
    pub decisions: u64,
    /// CPU time of the dispatcher.
    pub overhead_ns: u64,
    /// How late its own timer was: median.
    pub late_p50_ns: u64,
    /// 99th percentile.
    pub late_p99_ns: u64,
    /// Largest.
    pub late_max_ns: u64,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskStats {
    /// Name.
    pub name: String,
    /// Time in which it had at least one request.
    pub busy_ns: u64,
    /// Requests in it, now.
    pub in_flight: u64,
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkStats {
    /// Name.
    pub name: String,
    /// Time in which the wire was occupied.
    pub busy_ns: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that came in for nobody.
    pub unclaimed: u64,
    /// Packets that the TAP refused.
    pub refused: u64,
}

/// An event loop of the I/O domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainStats {
    /// Name of the group.
    pub group: String,
    /// CPU time.
    pub cpu_ns: u64,
    /// Of it: looking for work before sleeping.
    pub polled_ns: u64,
    /// Times it slept.
    pub sleeps: u64,
}

impl Service {
    /// Asks every dispatcher and every event loop once.
    pub(super) fn snapshots(&self) -> (Vec<CoreSnapshot>, Vec<DomainSnapshot>) {
        let resources = &self.shared.resources;
        let cores = resources.dispatchers().filter_map(|it| it.snapshot().ok()).collect();
        let domains = resources.domains().filter_map(|it| it.snapshot().ok()).collect();
        (cores, domains)
    }

    /// Reads everything.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let resources = &self.shared.resources;
        let (cores, domains) = self.snapshots();
        let tenants: Vec<_> = lock(&self.tenants).values().cloned().collect();
        let snapshots = Snapshots::new(&cores, &domains);
        let failed = tenants.iter().filter_map(|tenant| tenant.failed()).collect();
        let running = tenants.iter().filter(|tenant| tenant.phase() == Phase::Running);
        let tenants = running.map(|tenant| TenantStats {
            name: tenant.name.clone(),
            parts: tenant.with(|live| snapshots.parts(live, &self.shared.config)),
        });
        Stats {
            now_ns: now(),
            failed,
            tenants: tenants.chain(self.export_stats(&snapshots)).collect(),
            resources: self.resources(),
            stalls: self.stalls().all().iter().map(|stall| (stall.begin, stall.end)).collect(),
            disks: domains.iter().flat_map(|domain| &domain.disks).map(disk).collect(),
            links: domains.iter().flat_map(|domain| &domain.links).map(link).collect(),
            cores: cores.iter().map(core).collect(),
            domains: domains.iter().map(domain).collect(),
            noise: noise(&resources.noise()),
        }
    }
}

/// Snapshots by what they are of.
pub(super) struct Snapshots<'a> {
    vcpus: HashMap<(usize, u32), &'a VcpuSnapshot>,
    pub(super) devices: HashMap<(&'a str, u32), &'a DeviceSnapshot>,
}

impl<'a> Snapshots<'a> {
    pub(super) fn new(cores: &'a [CoreSnapshot], domains: &'a [DomainSnapshot]) -> Self {
        let vcpus = cores
            .iter()
            .flat_map(|core| core.vcpus.iter().map(move |vcpu| ((core.core, vcpu.id), vcpu)));
        let devices = domains.iter().flat_map(|domain| {
            domain.devices.iter().map(move |device| ((domain.group.as_str(), device.id), device))
        });
        Self { vcpus: vcpus.collect(), devices: devices.collect() }
    }

    /// Which contracts of a tenant are not kept, and why.
    pub(super) fn not_kept(&self, live: &Live, config: &Config) -> Option<String> {
        let vcpus = live.vcpus.iter().filter_map(|place| {
            let vcpu = self.vcpus.get(&(place.core, place.id.0))?;
            Some(format!("cpu/{}: {}", place.core, vcpu.not_kept.as_ref()?))
        });
        let devices = live.devices.iter().filter_map(|device| {
            let found = self.devices.get(&(device.group.as_str(), device.id.0))?;
            let (why, spec) = (found.not_kept.as_ref()?, &live.spec);
            let resource = match device.part {
                Part::Volume(index) => {
                    let disk = spec.volumes.get(index).and_then(|it| config.disks.get(it.disk));
                    name("disk", disk.map(|disk| &disk.name))
                }
                Part::Net(index) => {
                    let link = spec.nets.get(index).and_then(|it| config.links.get(it.link));
                    name("link", link.map(|link| &link.name))
                }
                Part::Vcpu(_) => return None,
            };
            Some(format!("{resource}: {why}"))
        });
        let all: Vec<_> = vcpus.chain(devices).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    pub(super) fn parts(&self, live: &Live, config: &Config) -> Vec<PartStats> {
        let spec = &live.spec;
        let vcpus = live.vcpus.iter().map(|place| {
            let mut stats = PartStats {
                resource: format!("cpu/{}", place.core),
                contract: Some(ContractReport::of(&spec.cpu)),
                reserved: per_second(&spec.cpu),
                ..PartStats::default()
            };
            if let Some(vcpu) = self.vcpus.get(&(place.core, place.id.0)) {
                stats.add_vcpu(vcpu);
            }
            stats
        });
        let devices = live.devices.iter().map(|device| {
            let (resource, contract) = match device.part {
                Part::Volume(index) => spec.volumes.get(index).map(|volume| {
                    let disk = config.disks.get(volume.disk);
                    (format!("disk/{}", disk.map_or("?", |disk| &disk.name)), volume.contract)
                }),
                Part::Net(index) => spec.nets.get(index).map(|net| {
                    let link = config.links.get(net.link);
                    (format!("link/{}", link.map_or("?", |link| &link.name)), net.contract)
                }),
                Part::Vcpu(_) => None,
            }
            .unzip();
            let mut stats = PartStats {
                resource: resource.unwrap_or_default(),
                contract: contract.as_ref().map(ContractReport::of),
                reserved: contract.as_ref().map_or(0, per_second),
                ..PartStats::default()
            };
            if let Some(snapshot) = self.devices.get(&(device.group.as_str(), device.id.0)) {
                stats.add_device(snapshot);
            }
            stats
        });
        vcpus.chain(devices).collect()
    }
}

impl PartStats {
    fn add_vcpu(&mut self, vcpu: &VcpuSnapshot) {
        self.guaranteed_ns = vcpu.guaranteed_ns;
        self.extra_ns = vcpu.extra_ns;
        self.misses = vcpu.misses;
        self.misses_in_stall = vcpu.misses_in_stall;
        self.stall_loss_ns = vcpu.stall_loss_ns;
        self.least_slice_ns = vcpu.least_slice_ns;
        self.not_kept.clone_from(&vcpu.not_kept);
    }

    pub(super) fn add_device(&mut self, device: &DeviceSnapshot) {
        self.guaranteed_ns = device.guaranteed_ns;
        self.extra_ns = device.extra_ns;
        self.misses = device.misses;
        self.misses_in_stall = device.misses_in_stall;
        self.stall_loss_ns = device.stall_loss_ns;
        self.queued = device.queued as u64;
        self.queued_max = device.queued_max as u64;
        self.in_flight = device.in_flight as u64;
        self.completed = device.completed;
        self.bytes = device.bytes;
        self.latency_max_ns = device.latency_max_ns;
        self.io_cpu_ns = device.io_cpu_ns;
        self.direct_bytes = device.direct_bytes;
        self.copied_by_us_bytes = device.copied_by_us_bytes;
        self.copied_by_kernel_bytes = device.copied_by_kernel_bytes;
        self.read_modify_writes = device.read_modify_writes;
        self.errors = device.errors;
        self.dropped_tx = device.dropped_tx;
        self.dropped_rx = device.dropped_rx;
        self.received = device.received;
        self.direct_io = device.direct_io;
        self.failed.clone_from(&device.failed);
        self.not_kept.clone_from(&device.not_kept);
    }
}

fn core(core: &CoreSnapshot) -> CoreStats {
    CoreStats {
        core: core.core,
        decisions: core.decisions,
        overhead_ns: core.overhead_ns,
        late_p50_ns: core.timer_late_ns.p50,
        late_p99_ns: core.timer_late_ns.p99,
        late_max_ns: core.timer_late_ns.max,
    }
}

fn noise(floor: &NoiseFloor) -> NoiseStats {
    NoiseStats {
        late_p50_ns: floor.late_ns.p50,
        late_p99_ns: floor.late_ns.p99,
        late_max_ns: floor.late_ns.max,
        steal_ns: floor.steal_ns,
    }
}

fn disk(disk: &moirai_io::DiskSnapshot) -> DiskStats {
    let in_flight = disk.in_flight as u64;
    DiskStats { name: disk.name.clone(), busy_ns: disk.busy_ns, in_flight }
}

fn link(link: &moirai_io::LinkSnapshot) -> LinkStats {
    LinkStats {
        name: link.name.clone(),
        busy_ns: link.busy_ns,
        sent: link.sent,
        unclaimed: link.unclaimed,
        refused: link.refused,
    }
}

fn domain(domain: &DomainSnapshot) -> DomainStats {
    DomainStats {
        group: domain.group.clone(),
        cpu_ns: domain.cpu_ns,
        polled_ns: domain.polled_ns,
        sleeps: domain.sleeps,
    }
}
