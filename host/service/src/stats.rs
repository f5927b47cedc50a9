//! Everything that is measured, in one piece: what `top`, the demo and `/metrics` show.
//!
//! Joins the snapshots of dispatchers and I/O domains with the contracts of the tenants. Counters
//! only grow as long as a tenant runs; a reader takes two looks and subtracts.

use moirai_api::{
    CoreStats, DiskStats, DomainStats, LinkStats, NoiseStats, PartStats, Phase, SpoofedStats,
    Stats, TenantStats, ThreadStats,
};
use std::collections::HashMap;
use std::time::Duration;

use super::served::Place;
use super::tenant::Live;
use super::{HostService, lock};
use moirai_config::Config;
use moirai_config::admission::plan::ContractReport;
use moirai_config::admission::{Part, per_second};
use moirai_cpu::{CoreSnapshot, VcpuSnapshot};
use moirai_io::{DeviceSnapshot, DiskSnapshot, DomainSnapshot, LinkSnapshot};
use moirai_runtime::{NoiseFloor, Stall, Watched, now};

/// Who does not answer within this is known by what it said last: a thread that is stuck shall not
/// keep anybody from hearing of the others.
const PATIENCE: Duration = Duration::from_millis(250);

impl HostService {
    /// Asks every dispatcher and every event loop once, and waits for all of them together no
    /// longer than [`PATIENCE`].
    pub(super) fn snapshots(&self) -> (Vec<CoreSnapshot>, Vec<DomainSnapshot>) {
        let (resources, begin) = (&self.shared.resources, moirai_runtime::instant());
        let left = || PATIENCE.saturating_sub(moirai_runtime::since(begin));
        let cores = resources.dispatchers().filter_map(|it| it.snapshot(left()).ok()).collect();
        let domains = resources.domains().filter_map(|it| it.snapshot(left()).ok()).collect();
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
            match self.vcpus.get(&(place.core, place.id.0)) {
                Some(vcpu) => add_vcpu(&mut stats, vcpu),
                None => stats.stale = true,
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
            match self.device(&device.place) {
                Some(snapshot) => add_device(&mut stats, snapshot),
                None => stats.stale = true,
            }
            stats
        });
        vcpus.chain(devices).collect()
    }
}

/// Copies what has the same name on both sides. All fields of the snapshot have to be named, so the
/// compiler says which one was forgotten. `apart` are those that the caller takes otherwise, or
/// leaves out.
macro_rules! copy {
    ($snapshot:ident: $from:ident to $to:ident;
     same: $($same:ident)*; counts: $($count:ident)*; apart: $($apart:ident)*) => {
        let $snapshot { $($same,)* $($count,)* $($apart: _,)* } = $from;
        $($to.$same.clone_from($same);)*
        $($to.$count = *$count as u64;)*
    };
}

fn add_vcpu(stats: &mut PartStats, vcpu: &VcpuSnapshot) {
    copy! {
        VcpuSnapshot: vcpu to stats;
        same: stale guaranteed_ns extra_ns misses misses_in_stall stall_loss_ns least_slice_ns
            not_kept;
        counts:;
        // Who it is, and what events and verdicts are made of.
        apart: id tenant excused promised refills
    }
}

pub(super) fn add_device(stats: &mut PartStats, device: &DeviceSnapshot) {
    copy! {
        DeviceSnapshot: device to stats;
        same: stale guaranteed_ns extra_ns misses misses_in_stall stall_loss_ns completed bytes
            latency_max_ns io_cpu_ns direct_bytes copied_by_us_bytes copied_by_kernel_bytes
            read_modify_writes errors dropped_tx over_budget receive_cpu_ns dropped_rx received
            direct_io failed not_kept;
        counts: queued queued_max in_flight;
        // Who it is, what events are made of, and what has a type of its own.
        apart: id tenant kind resource excused spoofed
    }
    stats.spoofed = spoofed(&device.spoofed);
}

fn spoofed(counts: &moirai_io::Spoofed) -> SpoofedStats {
    let moirai_io::Spoofed { mac, arp, ip, neighbour, router, hidden } = *counts;
    SpoofedStats { mac, arp, ip, neighbour, router, hidden }
}

/// `disk/NAME` or `link/NAME`.
pub(super) fn name(kind: &str, name: Option<&String>) -> String {
    format!("{kind}/{}", name.map_or("?", String::as_str))
}

fn core(snapshot: &CoreSnapshot) -> CoreStats {
    let CoreSnapshot { core, stale, vcpus: _, decisions, overhead_ns, timer_late_ns } = snapshot;
    CoreStats {
        core: *core,
        stale: *stale,
        decisions: *decisions,
        overhead_ns: *overhead_ns,
        late_p50_ns: timer_late_ns.p50,
        late_p99_ns: timer_late_ns.p99,
        late_max_ns: timer_late_ns.max,
    }
}

fn stall(stall: &Stall) -> (u64, u64) {
    let Stall { begin, end } = stall;
    (begin.as_nanos(), end.as_nanos())
}

fn thread(watched: Watched) -> ThreadStats {
    let Watched { name, longest } = watched;
    ThreadStats { name, longest_turn_ns: longest.as_nanos() }
}

fn noise(floor: &NoiseFloor) -> NoiseStats {
    let NoiseFloor { late_ns, looks: _, steal_ns } = floor;
    NoiseStats {
        late_p50_ns: late_ns.p50,
        late_p99_ns: late_ns.p99,
        late_max_ns: late_ns.max,
        steal_ns: *steal_ns,
    }
}

fn disk(disk: &DiskSnapshot) -> DiskStats {
    let DiskSnapshot {
        name,
        busy_ns,
        in_flight,
        // What verdicts about the disk are made of.
        max_unit_ns: _,
        measured_unit_ns: _,
        kinds: _,
    } = disk;
    DiskStats { name: name.clone(), busy_ns: *busy_ns, in_flight: *in_flight as u64 }
}

fn link(link: &LinkSnapshot) -> LinkStats {
    let LinkSnapshot { name, busy_ns, sent, unclaimed, refused, policed, receive_cpu_ns } = link;
    LinkStats {
        name: name.clone(),
        busy_ns: *busy_ns,
        sent: *sent,
        unclaimed: *unclaimed,
        refused: *refused,
        policed: *policed,
        receive_cpu_ns: *receive_cpu_ns,
    }
}

fn domain(domain: &DomainSnapshot) -> DomainStats {
    let DomainSnapshot { group, stale, cpu_ns, polled_ns, sleeps, disks: _, links: _, devices: _ } =
        domain;
    DomainStats {
        group: group.clone(),
        stale: *stale,
        cpu_ns: *cpu_ns,
        polled_ns: *polled_ns,
        sleeps: *sleeps,
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
