//! The counters of [`Stats`] as Prometheus text (OpenMetrics).
//!
//! A registry is filled anew for every reading: the counters live in the dispatchers and I/O
//! domains, and a tenant that is gone leaves no series behind.

use moirai_api::{LinkStats, PartStats, Stats};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use moirai_config::Holder;

/// Content type of [`render`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    tenant: String,
    resource: String,
    /// Tells a tenant's parts on one resource apart.
    part: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabels {
    name: String,
}

type Value<T> = fn(&T) -> u64;

const PART_COUNTERS: &[(&str, &str, Value<PartStats>)] = &[
    ("guaranteed_nanoseconds", "service charged to the contract", |part| part.guaranteed_ns),
    ("extra_nanoseconds", "service taken from the slack", |part| part.extra_ns),
    ("misses", "slices wanted and not delivered", |part| part.misses),
    ("misses_in_stall", "the same, while the machine stood still", |part| part.misses_in_stall),
    ("stall_loss_nanoseconds", "guarantee lost in stalls", |part| part.stall_loss_ns),
    ("completed", "requests or packets served", |part| part.completed),
    ("payload_bytes", "payload served", |part| part.bytes),
    ("io_cpu_nanoseconds", "CPU time of the I/O domain", |part| part.io_cpu_ns),
    ("direct_bytes", "payload that nobody copied", |part| part.direct_bytes),
    ("copied_by_us_bytes", "payload that Moirai copied", |part| part.copied_by_us_bytes),
    ("copied_by_kernel_bytes", "payload the kernel copied", |part| part.copied_by_kernel_bytes),
    ("errors", "requests answered with an error", |part| part.errors),
    ("dropped_tx", "packets of the guest that were malformed or not its own", |part| {
        part.dropped_tx
    }),
    ("spoofed_mac", "of them: another source address", |part| part.spoofed.mac),
    ("spoofed_arp", "of them: another ARP sender", |part| part.spoofed.arp),
    ("spoofed_ip", "of them: another IP source address", |part| part.spoofed.ip),
    ("spoofed_neighbour", "of them: another IPv6 neighbour", |part| part.spoofed.neighbour),
    ("spoofed_router", "of them: only routers, DHCP servers, bridges say it", |part| {
        part.spoofed.router
    }),
    ("spoofed_hidden", "of them: unreadable headers", |part| part.spoofed.hidden),
    ("over_budget", "packets whose reception would have taken too much time", |part| {
        part.over_budget
    }),
    ("receive_cpu_nanoseconds", "CPU time of receiving", |part| part.receive_cpu_ns),
    ("dropped_rx", "packets the guest had no buffer for", |part| part.dropped_rx),
    ("received", "packets received", |part| part.received),
];

const PART_GAUGES: &[(&str, &str, Value<PartStats>)] = &[
    ("reserved_nanoseconds_per_second", "what the contract guarantees", |part| part.reserved),
    ("queued", "requests or packets that wait", |part| part.queued),
    ("in_flight", "requests in the device", |part| part.in_flight),
    ("latency_max_nanoseconds", "longest time in the host", |part| part.latency_max_ns),
    ("buffered_fallback", "1 if O_DIRECT was refused", |part| {
        u64::from(part.direct_io == Some(false))
    }),
    ("failed", "1 if the device no longer works", |part| u64::from(part.failed.is_some())),
    ("contract_kept", "0 if the contract is not kept any more", |part| {
        u64::from(part.not_kept.is_none())
    }),
];

/// Renders everything.
pub(super) fn render(stats: &Stats) -> String {
    let mut registry = Registry::with_prefix("moirai");
    for (name, help, value) in PART_COUNTERS {
        let family = Family::<PartLabels, Counter>::default();
        for_parts(stats, |labels, part| {
            family.get_or_create(labels).inc_by(value(part));
        });
        registry.register(*name, *help, family);
    }
    for (name, help, value) in PART_GAUGES {
        let family = Family::<PartLabels, Gauge>::default();
        for_parts(stats, |labels, part| {
            family.get_or_create(labels).set(gauge(value(part)));
        });
        registry.register(*name, *help, family);
    }
    tenants(stats, &mut registry);
    shared_resources(stats, &mut registry);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Whether tenants have failed: one that has is not among the parts any more.
fn tenants(stats: &Stats, registry: &mut Registry) {
    let family = Family::<NameLabels, Gauge>::default();
    for holder in stats.tenants.iter().map(|it| &it.name) {
        if let Holder::Tenant(name) = holder {
            family.get_or_create(&NameLabels { name: name.clone() }).set(0);
        }
    }
    for failed in &stats.failed {
        family.get_or_create(&NameLabels { name: failed.name.clone() }).set(1);
    }
    registry.register("tenant_failed", "1 if the tenant has ended by a failure", family);
}

fn for_parts(stats: &Stats, mut visit: impl FnMut(&PartLabels, &PartStats)) {
    for tenant in &stats.tenants {
        for (number, part) in tenant.parts.iter().enumerate() {
            let labels = PartLabels {
                tenant: tenant.name.to_string(),
                resource: part.resource.clone(),
                part: number as u64,
            };
            visit(&labels, part);
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn shared_resources(stats: &Stats, registry: &mut Registry) {
    let gauges = |items: &mut dyn Iterator<Item = (String, u64)>| {
        let family = Family::<NameLabels, Gauge>::default();
        for (name, value) in items {
            family.get_or_create(&NameLabels { name }).set(gauge(value));
        }
        family
    };
    let counters = |items: &mut dyn Iterator<Item = (String, u64)>| {
        let family = Family::<NameLabels, Counter>::default();
        for (name, value) in items {
            family.get_or_create(&NameLabels { name }).inc_by(value);
        }
        family
    };
    let resources = || stats.resources.iter();
    let of_core = |core: usize| format!("cpu/{core}");
    let capacity = gauges(&mut resources().map(|it| (it.name.clone(), it.capacity)));
    registry.register("resource_capacity", "nanoseconds per second to reserve", capacity);
    let reserved = gauges(&mut resources().map(|it| (it.name.clone(), it.reserved)));
    registry.register("resource_reserved", "nanoseconds per second reserved", reserved);
    let disks = stats.disks.iter().map(|disk| (format!("disk/{}", disk.name), disk.busy_ns));
    let links = stats.links.iter().map(|link| (format!("link/{}", link.name), link.busy_ns));
    let busy = counters(&mut disks.chain(links));
    registry.register("resource_busy_nanoseconds", "time with work", busy);
    let links = |value: fn(&LinkStats) -> u64| {
        counters(&mut stats.links.iter().map(|link| (link.name.clone(), value(link))))
    };
    registry.register("link_sent", "packets sent", links(|link| link.sent));
    registry.register("link_refused", "packets that its TAP refused", links(|link| link.refused));
    let policed = links(|link| link.policed);
    registry.register("link_policed", "packets for all or nobody over the budget", policed);
    let receiving = links(|link| link.receive_cpu_ns);
    registry.register(
        "link_receive_cpu_nanoseconds",
        "CPU time for packets for all or nobody",
        receiving,
    );
    registry.register("link_unclaimed", "packets for nobody", links(|link| link.unclaimed));
    let cores = || stats.cores.iter();
    let overhead = counters(&mut cores().map(|core| (of_core(core.core), core.overhead_ns)));
    registry.register("dispatcher_cpu_nanoseconds", "CPU time of the dispatcher", overhead);
    let late = gauges(&mut cores().map(|core| (of_core(core.core), core.late_p99_ns)));
    registry.register("dispatcher_late_p99_nanoseconds", "lateness of its timer", late);
    let late = gauges(&mut cores().map(|core| (of_core(core.core), core.late_max_ns)));
    registry.register("dispatcher_late_max_nanoseconds", "largest lateness of its timer", late);
    let loops = counters(&mut stats.domains.iter().map(|it| (it.group.clone(), it.cpu_ns)));
    registry.register("io_domain_cpu_nanoseconds", "CPU time of the event loop", loops);
    let threads = stats.threads.iter().map(|it| (it.name.clone(), it.longest_turn_ns));
    let threads = gauges(&mut threads.into_iter());
    registry.register("thread_longest_turn_nanoseconds", "of a thread that never waits", threads);
    let stalls: Counter = Counter::default();
    stalls.inc_by(stats.stalls.iter().map(|(begin, end)| end.saturating_sub(*begin)).sum());
    registry.register("stall_nanoseconds", "remembered time in which the machine stood", stalls);
}

#[cfg(test)]
mod tests {
    use super::*;
    use moirai_api::{FailedTenant, TenantStats};

    #[test]
    fn a_tenant_that_has_failed_is_told_from_one_that_runs() {
        let named = |name: &str| TenantStats { name: name.into(), parts: Vec::new() };
        let failed = FailedTenant { name: "b".to_owned(), ..FailedTenant::default() };
        let tenants = vec![named("a"), named("export/e")];
        let text = render(&Stats { tenants, failed: vec![failed], ..Stats::default() });
        assert!(text.contains("moirai_tenant_failed{name=\"a\"} 0\n"), "{text}");
        assert!(text.contains("moirai_tenant_failed{name=\"b\"} 1\n"), "{text}");
        assert!(!text.contains("export/e"), "{text}");
    }

    #[test]
    fn every_part_of_every_tenant_has_its_own_series() {
        let part = |resource: &str, extra_ns| PartStats {
            resource: resource.to_owned(),
            extra_ns,
            ..PartStats::default()
        };
        let parts = vec![part("cpu/1", 5), part("disk/ssd", 6), part("disk/ssd", 7)];
        let tenants = vec![TenantStats { name: "a".into(), parts }];
        let text = render(&Stats { tenants, ..Stats::default() });
        let series =
            "moirai_extra_nanoseconds_total{tenant=\"a\",resource=\"disk/ssd\",part=\"2\"} 7";
        assert!(text.contains(series), "{text}");
        let broken = PartStats { not_kept: Some("why".to_owned()), ..part("cpu/1", 0) };
        let parts = vec![part("cpu/1", 0), broken];
        let tenants = vec![TenantStats { name: "a".into(), parts }];
        let text = render(&Stats { tenants, ..Stats::default() });
        for (part, kept) in [(0, 1), (1, 0)] {
            let labels = format!("tenant=\"a\",resource=\"cpu/1\",part=\"{part}\"");
            let series = format!("moirai_contract_kept{{{labels}}} {kept}\n");
            assert!(text.contains(&series), "{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
