//! The I/O domain: serves every tenant's disk and network queues, in the order of their contracts.
//!
//! One thread, one io_uring, no lock on the data path. It is the only place where a clock,
//! schedulers and devices meet. A request goes: ring -> queue of its device -> scheduler ->
//! io_uring or TAP -> ring; the payload stays in the guest's own pages all the way.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `domain.rs` | the loop: who is asked when, when to sleep |
//! | `seams.rs` | all that it asks of the world |
//! | `out.rs`, `back.rs` | the way of a request to its disk, and back |
//! | `sending.rs`, `receiving.rs` | the way of a packet to its link, and from there to guests |
//! | `peers.rs` | what the vhost-user peers say, whom the loop listens to |
//! | `command.rs`, `commands.rs`, `report.rs` | attach, change, detach; snapshot |
//! | `schedule.rs` | who is served by a disk or link: its policy and the table of its clients |
//! | `devices.rs` | the devices, and the lists of those that need attention |
//! | `device.rs` | one tenant's device: vhost-user session, queues, peers |
//! | `blk.rs`, `nic.rs` | what was taken off its ring: requests, packets |
//! | `waiting.rs`, `jobs.rs` | what waits for its turn; the requests in disks |
//! | `later.rs`, `retries.rs` | what is to be tried again |
//! | `disk.rs` | when a unit goes to a disk |
//! | `work.rs`, `meter.rs` | what it asks of it; what it has cost |
//! | `cutter.rs` | how long the parts of requests may be |
//! | `gauge.rs`, `maxima.rs` | how long the units of a disk really take |
//! | `link.rs`, `backlog.rs` | a link and who is on it; which of a device's packets is next |
//! | `neighbours.rs` | whose an address is on a link |
//! | `budget.rs`, `intake.rs` | how much of the loop's time receiving may take |
//! | `wire.rs`, `pacer.rs` | what a packet pays; when the link is free |
//! | `populate.rs` | guest memory made present, off the loop |
//! | `audit.rs`, `outages.rs`, `hiccups.rs` | whose misses were the machine's |
//! | `record.rs` | what was kept and what was not |
//! | `verdict.rs` | why a contract is not kept |
//! | `handle.rs` | what the rest of the host service holds |
//!
//! Neighbours: the service attaches and detaches devices; `moirai_devices` parses and does I/O;
//! `moirai_scheduler` decides.

mod audit;
mod back;
mod backlog;
mod blk;
mod budget;
mod command;
mod commands;
mod cutter;
mod device;
mod devices;
mod disk;
mod domain;
mod gauge;
mod handle;
mod hiccups;
mod intake;
mod jobs;
mod later;
mod link;
mod maxima;
mod meter;
mod neighbours;
mod nic;
mod out;
mod outages;
mod pacer;
mod peers;
mod populate;
#[cfg(test)]
mod proof;
mod receiving;
mod record;
mod report;
mod retries;
mod schedule;
mod seams;
mod sending;
mod snapshot;
mod token;
mod verdict;
mod waiting;
mod wire;
mod work;

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use moirai_devices::backend::Volume;
use moirai_devices::backend::tap::Tap;
use moirai_scheduler::{Amount, Contract, PolicyError, PolicyKind};

use moirai_runtime::StallLog;

pub use handle::IoDomain;
pub use seams::PRIORITY;
pub use snapshot::{
    DeviceSnapshot, DiskSnapshot, DomainSnapshot, Excuse, KindSnapshot, LinkSnapshot, Spoofed,
};

/// Names a device to its I/O domain. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub u32);

/// What one event loop serves.
#[derive(Debug)]
pub struct GroupSpec {
    /// Name of the group, for the thread and reports.
    pub name: String,
    /// The core its thread is pinned to; `None` leaves it to the kernel.
    pub core: Option<usize>,
    /// Its disks.
    pub disks: Vec<DiskSpec>,
    /// Its links.
    pub links: Vec<LinkSpec>,
    /// How long the loop looks for more work before it sleeps.
    pub poll: Duration,
    /// Stalls of the machine: what is missed in one is counted apart.
    pub stalls: StallLog,
}

/// A disk: what is shared by the volumes on it.
#[derive(Debug)]
pub struct DiskSpec {
    /// Name, as in the configuration.
    pub name: String,
    /// Requests handed to the device at one time, at least 1.
    pub depth: usize,
    /// The longest time of one request, as declared, in nanoseconds. Longer ones are cut, where
    /// somebody is promised time.
    pub max_unit: Amount,
    /// What admission counts as blocking, in nanoseconds: `max_unit`, or zero on an ideal machine.
    pub blocking: Amount,
    /// Who decides.
    pub policy: PolicyKind,
}

/// A link: what is shared by the network devices on it.
#[derive(Debug)]
pub struct LinkSpec {
    /// Name, as in the configuration.
    pub name: String,
    /// Declared rate, bits per second, at least 1.
    pub rate_bps: u64,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Who decides.
    pub policy: PolicyKind,
    /// Addresses that no port may have: the host's, and of others beyond the link.
    pub reserved: Vec<IpAddr>,
    /// What broadcasts, multicasts and packets for nobody may take of the loop's time, in
    /// thousandths.
    pub broadcast: u32,
    /// Where packets go and come from.
    pub tap: Tap,
}

/// A virtio-blk device to serve.
#[derive(Debug)]
pub struct BlkSpec<St = Volume> {
    /// The tenant, for reports.
    pub tenant: String,
    /// Name of the disk.
    pub disk: String,
    /// What the guest sees as its disk.
    pub volume: St,
    /// Number of request queues, 1 to 16.
    pub queues: u16,
    /// What the tenant is promised of the disk's time.
    pub contract: Contract,
    /// If the contract was written as a rate: the bandwidth of the disk by which it became a slice,
    /// in bytes per second.
    pub bandwidth: Option<u64>,
    /// The most guest memory that its driver may hand over, in bytes.
    pub memory: u64,
    /// The backend's end of the vhost-user connection.
    pub socket: UnixStream,
}

/// A virtio-net device to serve.
#[derive(Debug)]
pub struct NetSpec {
    /// The tenant, for reports.
    pub tenant: String,
    /// Name of the link.
    pub link: String,
    /// Its address; also the only one it may send from.
    pub mac: [u8; 6],
    /// Pairs of queues, 1 to [`MAX_PAIRS`](moirai_devices::net::MAX_PAIRS); there is a control
    /// queue after them.
    pub pairs: u16,
    /// From whom it may send.
    pub sources: Sources,
    /// What receiving may take of the loop's time, in thousandths.
    pub receive: u32,
    /// The most guest memory that its driver may hand over, in bytes.
    pub memory: u64,
    /// What the tenant is promised of the link's transmission time.
    pub contract: Contract,
    /// The backend's end of the vhost-user connection.
    pub socket: UnixStream,
}

/// The addresses that a network device may say that it has, beside its hardware address, which is
/// always the only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    /// These, and the link-local one that is made of its hardware address. None: those that it was
    /// the first one on its link to claim.
    Own(Vec<IpAddr>),
    /// All.
    Any,
}

/// Another peer for a device that has been attached.
#[derive(Debug)]
pub struct Peer {
    /// The backend's end of the vhost-user connection.
    pub socket: UnixStream,
    /// Guest memory is taken that its owner could shrink, which would kill this process.
    pub unsealed_memory: bool,
}

/// Why the I/O domain could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IoDomainError {
    /// A disk or link that this group does not have.
    #[error("there is no {kind} named {name:?} in this group")]
    UnknownResource {
        /// "disk" or "link".
        kind: &'static str,
        /// The name that was given.
        name: String,
    },
    /// A device that is not (or no longer) there.
    #[error("there is no device {0:?}")]
    UnknownDevice(DeviceId),
    /// Two devices of one link cannot have the same address.
    #[error("the MAC address {mac:02x?} is in use on this link")]
    MacInUse {
        /// The address.
        mac: [u8; 6],
    },
    /// Two devices of one link cannot have the same IP address, nor one that is reserved.
    #[error("the address {0} is the host's or another device's on this link")]
    AddressInUse(IpAddr),
    /// The scheduler refused.
    #[error("the scheduler refused: {0}")]
    Policy(PolicyError),
    /// The thread has ended.
    #[error("the I/O domain has ended")]
    Gone,
    /// The thread does not answer.
    #[error("the I/O domain does not answer")]
    Silent,
    /// A thread, descriptor or ring could not be had.
    #[error("the I/O domain could not be set up: {0}")]
    Setup(#[source] io::Error),
}
