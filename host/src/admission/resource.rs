//! What admission knows of a core, a disk, a link: capacity, blocking, overhead.
//!
//! The figures of the default profile are conservative for the machines that Moirai was measured on
//! (docs/design, platform facts); `profile = "none"` sets all of them to zero.

use moirai_scheduler::admission::{Overhead, Resource, WHOLE_PPM};

use crate::config::Profile;
use crate::config::model::{Config, Disk, Host, Link};

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
pub(crate) fn all(config: &Config) -> Vec<(ResourceId, String, Resource)> {
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
    Resource { capacity_ppm: host.cpu_capacity_ppm, blocking: 0, overhead }
}

/// A disk has `depth` requests at a time and takes none of them back.
fn disk_resource(disk: &Disk, profile: Profile) -> Resource {
    let blocking = disk.max_unit.saturating_mul(u64::from(disk.depth));
    not_preemptible(blocking, disk.max_unit, profile)
}

/// A link sends one packet at a time; one that is cut into segments as a whole.
fn link_resource(link: &Link, profile: Profile) -> Resource {
    let packet = link.largest_packet_time();
    not_preemptible(packet, packet, profile)
}

fn not_preemptible(blocking: u64, overrun: u64, profile: Profile) -> Resource {
    let (blocking, overrun) = match profile {
        Profile::None => (0, 0),
        Profile::Default => (blocking, overrun),
    };
    let overhead = Overhead { overrun, ..Overhead::NONE };
    Resource { capacity_ppm: WHOLE_PPM, blocking, overhead }
}
