//! The tables. Names are what dashboards and alerts ask for: they stay.

use super::{Kind, Measure, Read};
use crate::{
    CoreStats, DiskStats, DomainStats, LinkStats, NoiseStats, PartStats, Stats, ThreadStats,
};
use moirai_config::admission::plan::ResourceReport;

/// A value that only grows.
const fn counter<T>(name: &'static str, help: &'static str, read: fn(&T) -> u64) -> Measure<T> {
    Measure { name, help, kind: Kind::Counter, read: Read::Always(read) }
}

/// A value that goes up and down.
const fn gauge<T>(name: &'static str, help: &'static str, read: fn(&T) -> u64) -> Measure<T> {
    Measure { name, help, kind: Kind::Gauge, read: Read::Always(read) }
}

/// Of each virtual CPU, volume and interface.
pub(super) const PARTS: &[Measure<PartStats>] = &[
    counter("guaranteed_nanoseconds", "service charged to the contract", |it| it.guaranteed_ns),
    counter("extra_nanoseconds", "service taken from the slack", |it| it.extra_ns),
    counter("misses", "slices wanted and not delivered", |it| it.misses),
    counter("misses_in_stall", "the same, while the machine stood still", |it| it.misses_in_stall),
    counter("stall_loss_nanoseconds", "guarantee lost in stalls", |it| it.stall_loss_ns),
    counter("completed", "requests or packets served", |it| it.completed),
    counter("payload_bytes", "payload served", |it| it.bytes),
    counter("io_cpu_nanoseconds", "CPU time of the I/O domain", |it| it.io_cpu_ns),
    counter("direct_bytes", "payload that nobody copied", |it| it.direct_bytes),
    counter("copied_by_us_bytes", "payload that Moirai copied", |it| it.copied_by_us_bytes),
    counter("copied_by_kernel_bytes", "payload the kernel copied", |it| it.copied_by_kernel_bytes),
    counter("read_modify_writes", "blocks rewritten because a write covered a part", |it| {
        it.read_modify_writes
    }),
    counter("errors", "requests answered with an error", |it| it.errors),
    counter("dropped_tx", "packets of the guest that were malformed or not its own", |it| {
        it.dropped_tx
    }),
    counter("spoofed_mac", "of them: another source address", |it| it.spoofed.mac),
    counter("spoofed_arp", "of them: another ARP sender", |it| it.spoofed.arp),
    counter("spoofed_ip", "of them: another IP source address", |it| it.spoofed.ip),
    counter("spoofed_neighbour", "of them: another IPv6 neighbour", |it| it.spoofed.neighbour),
    counter("spoofed_router", "of them: only routers, DHCP servers, bridges say it", |it| {
        it.spoofed.router
    }),
    counter("spoofed_hidden", "of them: unreadable headers", |it| it.spoofed.hidden),
    counter("over_budget", "packets whose reception would have taken too much time", |it| {
        it.over_budget
    }),
    counter("receive_cpu_nanoseconds", "CPU time of receiving", |it| it.receive_cpu_ns),
    counter("dropped_rx", "packets the guest had no buffer for", |it| it.dropped_rx),
    counter("received", "packets received", |it| it.received),
    gauge("reserved_nanoseconds_per_second", "what the contract guarantees", |it| it.reserved),
    gauge("queued", "requests or packets that wait", |it| it.queued),
    gauge("queued_max", "the most that ever waited", |it| it.queued_max),
    gauge("in_flight", "requests in the device", |it| it.in_flight),
    gauge("latency_max_nanoseconds", "longest time in the host", |it| it.latency_max_ns),
    Measure {
        name: "least_slice_nanoseconds",
        help: "least service in a period that was wanted in whole, once there is one",
        kind: Kind::Gauge,
        read: Read::OnceKnown(|it| it.least_slice_ns),
    },
    gauge("buffered_fallback", "1 if O_DIRECT was refused", |it| {
        u64::from(it.direct_io == Some(false))
    }),
    gauge("stale", "1 if this is of an earlier look: nobody answers", |it| u64::from(it.stale)),
    gauge("failed", "1 if the device no longer works", |it| u64::from(it.failed.is_some())),
    gauge("contract_kept", "0 if the contract is not kept any more", |it| {
        u64::from(it.not_kept.is_none())
    }),
];

/// Of each tenant; true if it has failed: it is then not among the parts any more.
pub(super) const TENANTS: &[Measure<bool>] =
    &[gauge("tenant_failed", "1 if the tenant has ended by a failure", |it| u64::from(*it))];

/// Of what admission counts.
pub(super) const RESOURCES: &[Measure<ResourceReport>] = &[
    gauge("resource_capacity", "nanoseconds per second to reserve", |it| it.capacity),
    gauge("resource_reserved", "nanoseconds per second reserved", |it| it.reserved),
];

/// Of each disk, under its name as a resource.
pub(super) const OF_DISK: &[Measure<DiskStats>] =
    &[counter("resource_busy_nanoseconds", "time with work", |it| it.busy_ns)];

/// Of each link, under its name as a resource.
pub(super) const OF_LINK: &[Measure<LinkStats>] =
    &[counter("resource_busy_nanoseconds", "time with work", |it| it.busy_ns)];

/// Of each disk.
pub(super) const DISKS: &[Measure<DiskStats>] =
    &[gauge("disk_in_flight", "requests in the disk", |it| it.in_flight)];

/// Of each link.
pub(super) const LINKS: &[Measure<LinkStats>] = &[
    counter("link_sent", "packets sent", |it| it.sent),
    counter("link_refused", "packets that its TAP refused", |it| it.refused),
    counter("link_policed", "packets for all or nobody over the budget", |it| it.policed),
    counter("link_receive_cpu_nanoseconds", "CPU time for packets for all or nobody", |it| {
        it.receive_cpu_ns
    }),
    counter("link_unclaimed", "packets for nobody", |it| it.unclaimed),
];

/// Of each core's dispatcher.
pub(super) const CORES: &[Measure<CoreStats>] = &[
    counter("dispatcher_decisions", "decisions taken", |it| it.decisions),
    counter("dispatcher_cpu_nanoseconds", "CPU time of the dispatcher", |it| it.overhead_ns),
    gauge("dispatcher_late_p50_nanoseconds", "median lateness of its timer", |it| it.late_p50_ns),
    gauge("dispatcher_late_p99_nanoseconds", "lateness of its timer", |it| it.late_p99_ns),
    gauge("dispatcher_late_max_nanoseconds", "largest lateness of its timer", |it| it.late_max_ns),
    gauge("dispatcher_stale", "1 if it does not answer", |it| u64::from(it.stale)),
];

/// Of each event loop of the I/O domain.
pub(super) const DOMAINS: &[Measure<DomainStats>] = &[
    counter("io_domain_cpu_nanoseconds", "CPU time of the event loop", |it| it.cpu_ns),
    counter("io_domain_polled_nanoseconds", "of it: looking for work before sleep", |it| {
        it.polled_ns
    }),
    counter("io_domain_sleeps", "times that the event loop slept", |it| it.sleeps),
    gauge("io_domain_stale", "1 if the event loop does not answer", |it| u64::from(it.stale)),
];

/// Of each thread that must never wait.
pub(super) const THREADS: &[Measure<ThreadStats>] =
    &[gauge("thread_longest_turn_nanoseconds", "of a thread that never waits", |it| {
        it.longest_turn_ns
    })];

/// Of the machine's timers.
pub(super) const NOISE: &[Measure<NoiseStats>] = &[
    gauge("noise_late_p50_nanoseconds", "median lateness of the best timer", |it| it.late_p50_ns),
    gauge("noise_late_p99_nanoseconds", "its 99th percentile", |it| it.late_p99_ns),
    gauge("noise_late_max_nanoseconds", "its largest lateness", |it| it.late_max_ns),
    counter("noise_steal_nanoseconds", "time the hypervisor below took away", |it| it.steal_ns),
];

/// Of the host service as a whole.
pub(super) const SERVICE: &[Measure<Stats>] =
    &[counter("stall_nanoseconds", "remembered time in which the machine stood", |it| {
        it.stalls.iter().map(|(begin, end)| end.saturating_sub(*begin)).sum()
    })];
