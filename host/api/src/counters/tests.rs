//! Nothing that is measured is forgotten, and the document says the same as the table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::{Family, Kind, families};
use crate::{
    CoreStats, DiskStats, DomainStats, FailedTenant, LinkStats, PartStats, Stats, TenantStats,
    ThreadStats,
};
use moirai_config::admission::plan::{ContractReport, ResourceReport};

/// Fields of [`Stats`] that no series is read from, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("/now_ns", "Prometheus has a clock of its own"),
    ("/failed/0/reason", "a sentence; the log and `list` have it"),
    ("/tenants/0/parts/0/contract/period_ns", "what was asked for; `reserved` is what it promises"),
    ("/tenants/0/parts/0/contract/slice_ns", "as the period"),
    ("/tenants/0/parts/0/contract/deadline_ns", "as the period"),
    ("/tenants/0/parts/0/contract/extra", "as the period"),
];

/// One of everything, and a contract.
fn sample() -> Stats {
    let contract = ContractReport { period_ns: 0, slice_ns: 0, deadline_ns: 0, extra: 0 };
    let part = PartStats { contract: Some(contract), ..PartStats::default() };
    let resource = ResourceReport { name: String::new(), capacity: 0, reserved: 0 };
    Stats {
        tenants: vec![TenantStats { parts: vec![part], ..TenantStats::default() }],
        failed: vec![FailedTenant::default()],
        resources: vec![resource],
        cores: vec![CoreStats::default()],
        disks: vec![DiskStats::default()],
        links: vec![LinkStats::default()],
        domains: vec![DomainStats::default()],
        stalls: vec![(0, 100)],
        threads: vec![ThreadStats::default()],
        ..Stats::default()
    }
}

/// JSON pointers of all fields that have no fields themselves.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            assert!(!items.is_empty(), "the sample has nothing in {at}");
            let items = items.iter().enumerate();
            items.for_each(|(number, value)| leaves(value, &format!("{at}/{number}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

/// The sample with other values in one field: all that its type allows of these.
fn changed(sample: &Value, at: &str) -> Vec<Stats> {
    let others = [json!(77), json!(true), json!(false), json!("other")].into_iter();
    let changed = others.filter_map(|other| {
        let mut sample = sample.clone();
        *sample.pointer_mut(at)? = other;
        serde_json::from_value(sample).ok()
    });
    changed.collect()
}

/// Names of the families that differ.
fn differing(one: &[Family], other: &[Family]) -> BTreeSet<&'static str> {
    let pairs = one.iter().zip(other);
    pairs.filter(|(one, other)| one != other).map(|(one, _)| one.name).collect()
}

#[test]
fn every_field_that_is_measured_has_a_series_or_a_reason() {
    let sample = serde_json::to_value(sample()).expect("JSON");
    let plain = families(&serde_json::from_value(sample.clone()).expect("the same"));
    let mut fields = Vec::new();
    leaves(&sample, "", &mut fields);
    assert!(fields.len() > 60, "{fields:?}");
    let exceptions: BTreeMap<_, _> = EXCEPTIONS.iter().copied().collect();
    let mut read = BTreeSet::new();
    for field in &fields {
        let changed = changed(&sample, field);
        assert!(!changed.is_empty(), "{field}: no value fits");
        let here: BTreeSet<_> =
            changed.iter().flat_map(|stats| differing(&plain, &families(stats))).collect();
        let excepted = exceptions.contains_key(field.as_str());
        assert!(
            here.is_empty() == excepted,
            "{field} is read by {here:?}: put it into a table of counters/tables.rs, or among the \
             EXCEPTIONS with a reason, and not into both"
        );
        for (ends, unit) in [("_ns", "_nanoseconds"), ("bytes", "_bytes")] {
            let told = here.iter().all(|name| name.ends_with(unit));
            assert!(!field.ends_with(ends) || told, "{field}: a name in {here:?} has no unit");
        }
        read.extend(here);
    }
    for (field, _) in EXCEPTIONS {
        assert!(fields.iter().any(|it| it == field), "{field} does not exist any more");
    }
    let unread: Vec<_> = plain.iter().filter(|it| !read.contains(it.name)).collect();
    assert!(unread.is_empty(), "nothing changes {unread:?}");
}

#[test]
fn families_are_there_before_anything_is_and_have_names_of_their_own() {
    let described = |stats: &Stats| -> Vec<_> {
        families(stats).iter().map(|it| (it.name, it.help, it.kind, it.labels)).collect()
    };
    let all = described(&Stats::default());
    assert_eq!(all, described(&sample()));
    let names: BTreeSet<_> = all.iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), all.len(), "a name stands twice");
    for family in families(&sample()) {
        for (labels, _) in &family.series {
            assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        }
    }
}

/// Both of a name's rows go into one family, so they must agree.
#[test]
fn a_disk_and_a_link_are_busy_in_the_same_family() {
    let disk = DiskStats { name: "a".to_owned(), busy_ns: 1, in_flight: 0 };
    let link = LinkStats { name: "a".to_owned(), busy_ns: 2, ..LinkStats::default() };
    let stats = Stats { disks: vec![disk], links: vec![link], ..Stats::default() };
    let all = families(&stats);
    let busy = all.iter().find(|it| it.name == "resource_busy_nanoseconds").expect("a family");
    let named = |name: &str, value| (vec![name.to_owned()], value);
    assert_eq!(busy.series, [named("disk/a", 1), named("link/a", 2)]);
}

#[test]
fn a_value_that_is_not_known_yet_has_no_series() {
    let of = |least_slice_ns| {
        let part = PartStats { least_slice_ns, ..PartStats::default() };
        let tenants = vec![TenantStats { parts: vec![part], ..TenantStats::default() }];
        let all = families(&Stats { tenants, ..Stats::default() });
        all.iter().find(|it| it.name == "least_slice_nanoseconds").map(|it| it.series.len())
    };
    assert_eq!((of(None), of(Some(0))), (Some(0), Some(1)));
}

/// The rows of the document, as the table has them.
fn documented() -> String {
    let row = |family: Family| {
        let total = if family.kind == Kind::Counter { "_total" } else { "" };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let Family { name, kind, help, .. } = family;
        let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        format!("| `moirai_{name}{total}` | {kind} | {labels} | {help} |\n")
    };
    families(&Stats::default()).into_iter().map(row).collect()
}

#[test]
fn the_document_has_the_same_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("docs/metrics.md");
    let rows: String =
        text.split_inclusive('\n').filter(|it| it.starts_with("| `moirai_")).collect();
    let wanted = documented();
    assert!(rows == wanted, "docs/metrics.md must have these rows:\n{wanted}");
}
