//! Everything that is measured, in one piece: what `top`, the demo and `/metrics` show. Counters
//! only grow as long as a tenant runs; a reader takes two looks and subtracts.

use moirai_config::Holder;
use moirai_config::admission::plan::{ContractReport, ResourceReport};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// The threads that must never wait.
    #[serde(default)]
    pub threads: Vec<ThreadStats>,
}

/// A dispatcher or an event loop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ThreadStats {
    /// Name of the thread: `cpu-CORE` or `io-GROUP`.
    pub name: String,
    /// Its longest turn since its start. A turn of more than 100 ms is told in the log while it
    /// lasts; the machine may have stood still meanwhile (`stalls`).
    pub longest_turn_ns: u64,
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
    #[schema(value_type = String)]
    pub name: Holder,
    /// One for every virtual CPU, volume and interface.
    pub parts: Vec<PartStats>,
}

/// What a virtual CPU, a volume or an interface got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PartStats {
    /// `cpu/1`, `disk/ssd`, `link/uplink`.
    pub resource: String,
    /// Whoever counts this does not answer at present: it is as of the last time that it did.
    #[serde(default)]
    pub stale: bool,
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
    /// Of them: packets that were not its own to send, by reason.
    #[serde(default)]
    pub spoofed: SpoofedStats,
    /// Packets for the guest dropped because receiving them would have taken more of the event
    /// loop's time than it may.
    #[serde(default)]
    pub over_budget: u64,
    /// Of `io_cpu_ns`: what receiving has taken.
    #[serde(default)]
    pub receive_cpu_ns: u64,
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

/// Packets of a guest that were dropped because they were not its own to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpoofedStats {
    /// Another source address of Ethernet.
    pub mac: u64,
    /// Another sender of ARP.
    pub arp: u64,
    /// Another source address of IP.
    pub ip: u64,
    /// Another neighbour (IPv6).
    pub neighbour: u64,
    /// What only routers, DHCP servers and bridges say.
    pub router: u64,
    /// Headers that cannot be read.
    pub hidden: u64,
}

impl SpoofedStats {
    /// Of all reasons.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let Self { mac, arp, ip, neighbour, router, hidden } = *self;
        mac + arp + ip + neighbour + router + hidden
    }
}

/// A core and its dispatcher.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoreStats {
    /// Number.
    pub core: usize,
    /// The dispatcher does not answer at present: this is as of the last time that it did.
    #[serde(default)]
    pub stale: bool,
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
    /// Packets for all or for nobody that were dropped: receiving them would have taken more of the
    /// event loop's time than they may.
    #[serde(default)]
    pub policed: u64,
    /// CPU time that the event loop spent for packets for all or for nobody.
    #[serde(default)]
    pub receive_cpu_ns: u64,
}

/// An event loop of the I/O domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainStats {
    /// Name of the group.
    pub group: String,
    /// The event loop does not answer at present: this is as of the last time that it did, like all
    /// that is said of its disks and links.
    #[serde(default)]
    pub stale: bool,
    /// CPU time.
    pub cpu_ns: u64,
    /// Of it: looking for work before sleeping.
    pub polled_ns: u64,
    /// Times it slept.
    pub sleeps: u64,
}
