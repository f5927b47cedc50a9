//! Everything that is measured, in one piece: what `top`, the demo and `/metrics` show.
//!
//! Joins the snapshots of dispatchers and I/O domains with the contracts of the tenants. Counters
//! only grow as long as a tenant runs; a reader takes two looks and subtracts.

use moirai_api::{
    CoreStats, DiskStats, DomainStats, LinkStats, NoiseStats, PartStats, Phase, SpoofedStats,
    Stats, TenantStats, ThreadStats,
};
use std::collections::HashMap;

use super::served::Place;
use super::tenant::Live;
use super::{HostService, lock};
use moirai_config::Config;
use moirai_config::admission::plan::ContractReport;
use moirai_config::admission::{Part, per_second};
use moirai_cpu::{CoreSnapshot, VcpuSnapshot};
use moirai_io::{DeviceSnapshot, DomainSnapshot};
use moirai_runtime::{NoiseFloor, Stall, Watched, now};

impl HostService {
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
            name: tenant.holder(),
            parts: tenant.with(|live| snapshots.parts(live, &self.shared.config)),
        });
        Stats {
            now_ns: now().as_nanos(),
            failed,
            tenants: tenants.chain(self.export_stats(&snapshots)).collect(),
            resources: self.resources(),
            stalls: self.stalls().all().iter().map(stall).collect(),
            disks: domains.iter().flat_map(|domain| &domain.disks).map(disk).collect(),
            links: domains.iter().flat_map(|domain| &domain.links).map(link).collect(),
            cores: cores.iter().map(core).collect(),
            domains: domains.iter().map(domain).collect(),
            noise: noise(&resources.noise()),
            threads: moirai_runtime::watched().into_iter().map(thread).collect(),
        }
    }
}

/// Snapshots by what they are of.
pub(super) struct Snapshots<'a> {
    vcpus: HashMap<(usize, u32), &'a VcpuSnapshot>,
    devices: HashMap<(&'a str, u32), &'a DeviceSnapshot>,
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

    /// The device that is served at `place`.
    pub(super) fn device(&self, place: &Place) -> Option<&'a DeviceSnapshot> {
        self.devices.get(&(place.group.as_str(), place.id.0)).copied()
    }

    /// Which contracts of a tenant are not kept, and why.
    pub(super) fn not_kept(&self, live: &Live, config: &Config) -> Option<String> {
        let vcpus = live.vcpus.iter().filter_map(|place| {
            let vcpu = self.vcpus.get(&(place.core, place.id.0))?;
            Some(format!("cpu/{}: {}", place.core, vcpu.not_kept.as_ref()?))
        });
        let devices = live.devices.iter().filter_map(|device| {
            let found = self.device(&device.place)?;
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
                add_vcpu(&mut stats, vcpu);
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
            if let Some(snapshot) = self.device(&device.place) {
                add_device(&mut stats, snapshot);
            }
            stats
        });
        vcpus.chain(devices).collect()
    }
}

fn add_vcpu(stats: &mut PartStats, vcpu: &VcpuSnapshot) {
    stats.guaranteed_ns = vcpu.guaranteed_ns;
    stats.extra_ns = vcpu.extra_ns;
    stats.misses = vcpu.misses;
    stats.misses_in_stall = vcpu.misses_in_stall;
    stats.stall_loss_ns = vcpu.stall_loss_ns;
    stats.least_slice_ns = vcpu.least_slice_ns;
    stats.not_kept.clone_from(&vcpu.not_kept);
}

pub(super) fn add_device(stats: &mut PartStats, device: &DeviceSnapshot) {
    stats.guaranteed_ns = device.guaranteed_ns;
    stats.extra_ns = device.extra_ns;
    stats.misses = device.misses;
    stats.misses_in_stall = device.misses_in_stall;
    stats.stall_loss_ns = device.stall_loss_ns;
    stats.queued = device.queued as u64;
    stats.queued_max = device.queued_max as u64;
    stats.in_flight = device.in_flight as u64;
    stats.completed = device.completed;
    stats.bytes = device.bytes;
    stats.latency_max_ns = device.latency_max_ns;
    stats.io_cpu_ns = device.io_cpu_ns;
    stats.direct_bytes = device.direct_bytes;
    stats.copied_by_us_bytes = device.copied_by_us_bytes;
    stats.copied_by_kernel_bytes = device.copied_by_kernel_bytes;
    stats.read_modify_writes = device.read_modify_writes;
    stats.errors = device.errors;
    stats.dropped_tx = device.dropped_tx;
    stats.spoofed = spoofed(&device.spoofed);
    stats.over_budget = device.over_budget;
    stats.receive_cpu_ns = device.receive_cpu_ns;
    stats.dropped_rx = device.dropped_rx;
    stats.received = device.received;
    stats.direct_io = device.direct_io;
    stats.failed.clone_from(&device.failed);
    stats.not_kept.clone_from(&device.not_kept);
}

fn spoofed(counts: &moirai_io::Spoofed) -> SpoofedStats {
    let moirai_io::Spoofed { mac, arp, ip, neighbour, router, hidden } = *counts;
    SpoofedStats { mac, arp, ip, neighbour, router, hidden }
}

/// `disk/NAME` or `link/NAME`.
pub(super) fn name(kind: &str, name: Option<&String>) -> String {
    format!("{kind}/{}", name.map_or("?", String::as_str))
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

fn stall(stall: &Stall) -> (u64, u64) {
    (stall.begin.as_nanos(), stall.end.as_nanos())
}

fn thread(watched: Watched) -> ThreadStats {
    ThreadStats { name: watched.name, longest_turn_ns: watched.longest.as_nanos() }
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
        policed: link.policed,
        receive_cpu_ns: link.receive_cpu_ns,
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
