//! The one table of what is measured ([`Stats`]): names, what they mean, how each is read.
//!
//! `/metrics` is rendered from [`families`] in a loop, and `docs/metrics.md` is tested against it.
//! A field of `Stats` that is in no table and not in the tests' list of exceptions fails the
//! tests, so a new field reaches Prometheus or says why it does not. Neighbours: `stats.rs` has
//! the fields, the host service writes the text.

mod tables;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::Stats;
use moirai_config::Holder;
use tables::{
    CORES, DISKS, DOMAINS, LINKS, NOISE, OF_DISK, OF_LINK, PARTS, RESOURCES, SERVICE, TENANTS,
    THREADS,
};

/// How a value behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while what it is of exists.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        })
    }
}

/// One measured value of a `T`.
struct Measure<T> {
    /// Name without the prefix `moirai_`. Values in nanoseconds or bytes have the unit at the end.
    name: &'static str,
    /// What it means, in a few words.
    help: &'static str,
    kind: Kind,
    read: Read<T>,
}

/// How a value is read.
enum Read<T> {
    Always(fn(&T) -> u64),
    /// While there is no value, there is no series.
    OnceKnown(fn(&T) -> Option<u64>),
}

impl<T> Read<T> {
    fn value(&self, of: &T) -> Option<u64> {
        match self {
            Self::Always(read) => Some(read(of)),
            Self::OnceKnown(read) => read(of),
        }
    }
}

/// All series of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name without the prefix `moirai_` and without the `_total` of counters.
    pub name: &'static str,
    /// What it means, in a few words.
    pub help: &'static str,
    /// How its values behave over time.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [&'static str],
    /// A value for each label, and the value measured. Its unit is at the end of `name`.
    pub series: Vec<(Vec<String>, u64)>,
}

/// Everything that is measured. Which families there are does not depend on `stats`.
#[must_use]
pub fn families(stats: &Stats) -> Vec<Family> {
    let mut all = Families::default();
    // Without `..`: whoever adds a part of `Stats` decides here what becomes of it.
    let Stats {
        now_ns: _, // Prometheus has a clock of its own.
        tenants,
        failed,
        resources,
        cores,
        disks,
        links,
        domains,
        stalls: _, // In `SERVICE`.
        noise,
        threads,
    } = stats;
    let parts = tenants.iter().flat_map(|tenant| {
        let parts = tenant.parts.iter().enumerate();
        parts.map(|(number, part)| {
            (vec![tenant.name.to_string(), part.resource.clone(), number.to_string()], part)
        })
    });
    all.add(PARTS, &["tenant", "resource", "part"], parts);
    let running = tenants.iter().filter_map(|tenant| match &tenant.name {
        Holder::Tenant(name) => Some((name.as_str(), &false)),
        Holder::Export(_) => None,
    });
    let failed = failed.iter().map(|tenant| (tenant.name.as_str(), &true));
    all.named(TENANTS, running.chain(failed));
    all.named(RESOURCES, resources.iter().map(|it| (&it.name, it)));
    all.named(OF_DISK, disks.iter().map(|it| (format!("disk/{}", it.name), it)));
    all.named(OF_LINK, links.iter().map(|it| (format!("link/{}", it.name), it)));
    all.named(DISKS, disks.iter().map(|it| (&it.name, it)));
    all.named(LINKS, links.iter().map(|it| (&it.name, it)));
    all.named(CORES, cores.iter().map(|it| (format!("cpu/{}", it.core), it)));
    all.named(DOMAINS, domains.iter().map(|it| (&it.group, it)));
    all.named(THREADS, threads.iter().map(|it| (&it.name, it)));
    all.add(NOISE, &[], std::iter::once((Vec::new(), noise)));
    all.add(SERVICE, &[], std::iter::once((Vec::new(), stats)));
    all.0
}

#[derive(Default)]
struct Families(Vec<Family>);

impl Families {
    /// The series of `items`, each with the values of its labels. Tables may share a name; their
    /// series are then in one family.
    fn add<'a, T: 'a>(
        &mut self,
        table: &[Measure<T>],
        labels: &'static [&'static str],
        items: impl Iterator<Item = (Vec<String>, &'a T)>,
    ) {
        let items: Vec<_> = items.collect();
        for Measure { name, help, kind, read } in table {
            let values = items
                .iter()
                .filter_map(|(labels, item)| read.value(item).map(|value| (labels.clone(), value)));
            match self.0.iter_mut().find(|family| family.name == *name) {
                Some(family) => family.series.extend(values),
                None => {
                    let (kind, series) = (*kind, values.collect());
                    self.0.push(Family { name, help, kind, labels, series });
                }
            }
        }
    }

    /// The series of what has a name and no other label.
    fn named<'a, T: 'a>(
        &mut self,
        table: &[Measure<T>],
        items: impl Iterator<Item = (impl Into<String>, &'a T)>,
    ) {
        self.add(table, &["name"], items.map(|(name, item)| (vec![name.into()], item)));
    }
}
