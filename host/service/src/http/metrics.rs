//! The counters of [`Stats`] as Prometheus text (OpenMetrics).
//!
//! What there is to say stands in the table of `moirai_api`; here is only how it is written. Every
//! reading asks anew: the counters live in the dispatchers and I/O domains, and a tenant that is
//! gone leaves no series behind.

use std::fmt;

use moirai_api::{Family, Kind, Stats, families};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Content type of [`render`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Renders everything.
pub(super) fn render(stats: &Stats) -> String {
    let mut registry = Registry::with_prefix("moirai");
    registry.register_collector(Box::new(Reading(families(stats))));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// What was read once.
#[derive(Debug)]
struct Reading(Vec<Family>);

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in self.0.iter().filter(|family| !family.series.is_empty()) {
            write(family, &mut encoder)?;
        }
        Ok(())
    }
}

fn write(family: &Family, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Family { name, help, kind, labels, series } = family;
    let metric_type = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    let mut metric = encoder.encode_descriptor(name, &format!("{help}."), None, metric_type)?;
    for (values, value) in series {
        let values = values.iter().map(String::as_str);
        let labels: Vec<(&str, &str)> = labels.iter().copied().zip(values).collect();
        if labels.is_empty() {
            sample(*kind, *value, &mut metric)?;
        } else {
            sample(*kind, *value, &mut metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn sample(kind: Kind, value: u64, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        // The library has no larger gauges, and an error would end the text here.
        Kind::Gauge => metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moirai_api::{DiskStats, FailedTenant, PartStats, TenantStats};

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

    #[test]
    fn a_gauge_beyond_the_format_does_not_end_the_text() {
        let disk = DiskStats { in_flight: u64::MAX, ..DiskStats::default() };
        let text = render(&Stats { disks: vec![disk], ..Stats::default() });
        assert!(text.contains("moirai_disk_in_flight{name=\"\"} 9223372036854775807\n"), "{text}");
        assert!(text.contains("moirai_stall_nanoseconds_total 0\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
