//! What admission knows of a core, a disk, a link: capacity, blocking, overhead.
//!
//! The figures of the default profile are conservative for the machines that Moirai was measured on
//! (docs/design, platform facts); `profile = "none"` sets all of them to zero.

use moirai_scheduler::Amount;
use moirai_scheduler::admission::{Overhead, Resource};

use crate::Profile;
use crate::model::{Config, Disk, Host, Link};

/// Names a resource of a host. Disks and links by their place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceId {
    /// A core, by its number.
    Core(usize),
    /// Index in [`Config::disks`].
    Disk(usize),
    /// Index in [`Config::links`].
    Link(usize),
}

/// All resources of a host with their names (`cpu/1`, `disk/ssd`, `link/uplink`).
pub fn all(config: &Config) -> Vec<(ResourceId, String, Resource)> {
    let profile = config.host.profile;
    let cores = config.host.cores.iter().map(|core| {
        (ResourceId::Core(*core), format!("cpu/{core}"), core_resource(&config.host, 0))
    });
    let disks = config.disks.iter().enumerate().map(|(index, disk)| {
        (ResourceId::Disk(index), format!("disk/{}", disk.name), disk_resource(disk, profile))
    });
    let links = config.links.iter().enumerate().map(|(index, link)| {
        (ResourceId::Link(index), format!("link/{}", link.name), link_resource(link, profile))
    });
    cores.chain(disks).chain(links).collect()
}

/// A core with so many vCPUs: each costs the dispatcher some time in every round.
pub(super) fn core_resource(host: &Host, vcpus: usize) -> Resource {
    let overhead = match host.profile {
        Profile::None => Overhead::NONE,
        Profile::Default => host.costs.overhead(vcpus),
    };
    Resource { capacity_ppm: host.cpu_capacity_ppm, blocking: Amount::ZERO, overhead }
}

/// A disk takes nothing back. Whatever its depth, its window holds at most one largest unit of
/// time, and a slice pays for a unit when the disk gets it: so both terms are one unit.
fn disk_resource(disk: &Disk, profile: Profile) -> Resource {
    not_preemptible(disk.max_unit, profile)
}

/// A link sends one packet at a time; one that is cut into segments as a whole.
fn link_resource(link: &Link, profile: Profile) -> Resource {
    let packet = link.largest_packet_time();
    not_preemptible(packet, profile)
}

/// A resource that serves whole units, of which the largest takes `unit`.
fn not_preemptible(unit: Amount, profile: Profile) -> Resource {
    let unit = match profile {
        Profile::None => Amount::ZERO,
        Profile::Default => unit,
    };
    Resource::of_units(unit)
}
