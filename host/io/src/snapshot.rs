//! What the I/O domain reports. Times in nanoseconds, sizes in bytes, all counted since the device,
//! disk or link was attached.

use moirai_devices::net::Offence;
use serde::Serialize;

/// All that one event loop knows at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DomainSnapshot {
    /// Name of the group.
    pub group: String,
    /// The loop does not answer at present: this is how things were when it last did.
    pub stale: bool,
    /// CPU time of the loop's thread.
    pub cpu_ns: u64,
    /// Of it: time spent looking for work before sleeping; no tenant pays for it.
    pub polled_ns: u64,
    /// Times the loop slept.
    pub sleeps: u64,
    /// Disks.
    pub disks: Vec<DiskSnapshot>,
    /// Links.
    pub links: Vec<LinkSnapshot>,
    /// Devices of all tenants.
    pub devices: Vec<DeviceSnapshot>,
}

/// One disk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DiskSnapshot {
    /// Name, as in the configuration.
    pub name: String,
    /// Time in which it had at least one request.
    pub busy_ns: u64,
    /// Requests in flight now.
    pub in_flight: usize,
    /// The longest time of one unit, as declared.
    pub max_unit_ns: u64,
    /// What its units took in the last minute, but for one in a thousand; zero while nobody is
    /// promised time on it.
    pub measured_unit_ns: u64,
    /// The same, kind by kind.
    pub kinds: Vec<KindSnapshot>,
}

/// The units of one kind on a disk.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KindSnapshot {
    /// "read", "write", "flush", "discard" or "write-zeroes".
    pub kind: &'static str,
    /// Units that were measured or left out.
    pub units: u64,
    /// Of them: units during which the machine stood still.
    pub left_out: u64,
    /// What they took in the last minute, but for one in a thousand.
    pub measured_ns: u64,
}

/// A miss that the machine caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Excuse {
    /// The deadline, on CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// How late it was.
    pub late_ns: u64,
    /// How long the machine stood still.
    pub hiccup_ns: u64,
}

/// One link.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkSnapshot {
    /// Name, as in the configuration.
    pub name: String,
    /// Time in which the wire was occupied.
    pub busy_ns: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that came in and were nobody's.
    pub unclaimed: u64,
    /// Packets that the TAP refused.
    pub refused: u64,
    /// Broadcasts, multicasts and packets for nobody that were dropped: they would have taken more
    /// of the loop's time than they may.
    pub policed: u64,
    /// CPU time that the loop spent for packets that came in for all or for nobody.
    pub receive_cpu_ns: u64,
}

/// Packets of a guest that were dropped because they were not its own to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spoofed {
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

impl From<[u64; Offence::ALL.len()]> for Spoofed {
    fn from(counts: [u64; Offence::ALL.len()]) -> Self {
        let [mac, arp, ip, neighbour, router, hidden] = counts;
        Self { mac, arp, ip, neighbour, router, hidden }
    }
}

/// One device of a tenant.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeviceSnapshot {
    /// The domain's name for it.
    pub id: u32,
    /// The tenant it belongs to.
    pub tenant: String,
    /// See [`DomainSnapshot::stale`].
    pub stale: bool,
    /// "disk" or "link".
    pub kind: &'static str,
    /// Name of the disk or link.
    pub resource: String,
    /// Service charged to the contract.
    pub guaranteed_ns: u64,
    /// Service taken from the slack.
    pub extra_ns: u64,
    /// Promises that were not kept although the machine ran.
    pub misses: u64,
    /// Promises that were not kept, by no more than what the machine stood still can have caused.
    pub misses_in_stall: u64,
    /// The last of those.
    pub excused: Vec<Excuse>,
    /// Guarantee lost because whole periods passed in a stall.
    pub stall_loss_ns: u64,
    /// Requests or packets waiting for the scheduler.
    pub queued: usize,
    /// The most that ever waited.
    pub queued_max: usize,
    /// Requests given to the disk and not yet back.
    pub in_flight: usize,
    /// Requests or packets served.
    pub completed: u64,
    /// Payload bytes served.
    pub bytes: u64,
    /// Longest time from the ring to completion.
    pub latency_max_ns: u64,
    /// CPU time the loop spent for this device: its I/O account.
    pub io_cpu_ns: u64,
    /// Payload bytes that no one copied on this host.
    pub direct_bytes: u64,
    /// Payload bytes that Moirai copied on the way out (none on the streaming path).
    pub copied_by_us_bytes: u64,
    /// Payload bytes that the kernel copied.
    pub copied_by_kernel_bytes: u64,
    /// Blocks of the disk that were read, changed and written back, because a write covered them in
    /// part.
    pub read_modify_writes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Packets of the guest that were dropped as malformed.
    pub dropped_tx: u64,
    /// Of them: packets that were not its own to send, by reason; see [`Spoofed`].
    pub spoofed: Spoofed,
    /// Packets for the guest that were dropped: receiving them would have taken more of the loop's
    /// time than it may.
    pub over_budget: u64,
    /// Of `io_cpu_ns`: what receiving has taken.
    pub receive_cpu_ns: u64,
    /// Packets for the guest that were dropped: it had no buffer.
    pub dropped_rx: u64,
    /// Packets received.
    pub received: u64,
    /// Whether volumes are read and written around the page cache; `false` is the fall-back.
    pub direct_io: Option<bool>,
    /// Why the device no longer works, if so.
    pub failed: Option<String>,
    /// Why its contract is not kept any more, if so, as a sentence.
    pub not_kept: Option<String>,
}
