//! What happened between two looks at the counters, as a table.

use std::fmt;

use moirai_api::{PartStats, Stats};
use moirai_config::admission::plan::ContractReport;

/// One line: a part of a tenant. Services in nanoseconds per second.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Tenant.
    pub(super) tenant: String,
    /// `cpu/1`, `disk/ssd`, `link/uplink`.
    pub(super) resource: String,
    /// Contract.
    pub(super) contract: Option<ContractReport>,
    /// What the contract guarantees.
    pub(super) reserved: u64,
    /// Service charged to the contract.
    pub(super) guaranteed: u64,
    /// Service taken from the slack.
    pub(super) extra: u64,
    /// Slices missed since the tenant started.
    pub(super) misses: u64,
    /// Requests or packets that wait, now.
    pub(super) queued: u64,
    /// Payload bytes per second.
    pub(super) bytes_per_s: u64,
    /// Why the contract is not kept, if so.
    pub(super) not_kept: Option<String>,
}

/// What happened between two looks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// Length of the interval in nanoseconds.
    pub(super) interval_ns: u64,
    /// One for every part of every tenant.
    pub(super) rows: Vec<Row>,
    /// Links whose TAPs refused packets: name and how many.
    pub(super) refused: Vec<(String, u64)>,
    /// Packets that were dropped beside that, one sentence each.
    pub(super) dropped: Vec<String>,
    /// Tenants that have failed: name and reason.
    pub(super) failed: Vec<(String, String)>,
    /// The latest timer of any dispatcher, in nanoseconds, since the start.
    pub(super) late_max_ns: u64,
    /// Time in which the machine stood still, in nanoseconds, as far as remembered.
    pub(super) stall_ns: u64,
}

impl View {
    /// What happened between `before` and `after`.
    pub(super) fn between(before: &Stats, after: &Stats) -> Self {
        let interval_ns = after.now_ns.saturating_sub(before.now_ns).max(1);
        let rows = after.tenants.iter().flat_map(|tenant| {
            let old = before.tenants.iter().find(|old| old.name == tenant.name);
            tenant.parts.iter().enumerate().map(move |(index, part)| {
                let old = old.and_then(|old| old.parts.get(index));
                Row::between(&tenant.name.to_string(), old, part, interval_ns)
            })
        });
        let refused = after.links.iter().map(|link| {
            let old = before.links.iter().find(|old| old.name == link.name);
            let count = link.refused.saturating_sub(old.map_or(0, |old| old.refused));
            (link.name.clone(), count)
        });
        Self {
            interval_ns,
            dropped: dropped(before, after),
            rows: rows.collect(),
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            failed: after.failed.iter().map(|it| (it.name.clone(), it.reason.clone())).collect(),
            late_max_ns: after.cores.iter().map(|core| core.late_max_ns).max().unwrap_or(0),
            stall_ns: after.stalls.iter().map(|(begin, end)| end.saturating_sub(*begin)).sum(),
        }
    }
}

impl View {
    /// What is not as it should be, one sentence each.
    pub(super) fn troubles(&self) -> impl DoubleEndedIterator<Item = String> {
        let failed =
            self.failed.iter().map(|(tenant, reason)| format!("failed: {tenant}: {reason}"));
        let refused = self.refused.iter().map(|(link, count)| {
            format!("link/{link}: its TAP refused {count} packets: is it up?")
        });
        let not_kept = self.rows.iter().filter_map(|row| {
            let why = row.not_kept.as_ref()?;
            Some(format!("not kept: {} {}: {why}", row.tenant, row.resource))
        });
        failed.chain(refused).chain(self.dropped.iter().cloned()).chain(not_kept)
    }
}

/// What was dropped between two looks because it was not its sender's, or would have taken too much
/// of the event loop's time.
fn dropped(before: &Stats, after: &Stats) -> Vec<String> {
    let mut said = Vec::new();
    for tenant in &after.tenants {
        let old = before.tenants.iter().find(|old| old.name == tenant.name);
        for (index, part) in tenant.parts.iter().enumerate() {
            let old = old.and_then(|old| old.parts.get(index));
            let grown =
                |value: fn(&PartStats) -> u64| value(part).saturating_sub(old.map_or(0, value));
            let (name, resource) = (&tenant.name, &part.resource);
            let (spoofed, late) = (grown(|it| it.spoofed.sum()), grown(|it| it.over_budget));
            if spoofed > 0 {
                said.push(format!("{name} {resource}: {spoofed} packets were not its own to send"));
            }
            if late > 0 {
                said.push(format!("{name} {resource}: {late} packets were over its `receive`"));
            }
        }
    }
    for link in &after.links {
        let old = before.links.iter().find(|old| old.name == link.name);
        let count = link.policed.saturating_sub(old.map_or(0, |old| old.policed));
        if count > 0 {
            said.push(format!("link/{}: {count} packets were over its `broadcast`", link.name));
        }
    }
    said
}

impl Row {
    fn between(tenant: &str, old: Option<&PartStats>, new: &PartStats, interval_ns: u64) -> Self {
        // A tenant that was started anew counts from zero again.
        let rate = |value: fn(&PartStats) -> u64| {
            let grown = value(new).saturating_sub(old.map_or(0, value));
            let rate = u128::from(grown) * 1_000_000_000 / u128::from(interval_ns);
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        Self {
            tenant: tenant.to_owned(),
            resource: new.resource.clone(),
            contract: new.contract,
            reserved: new.reserved,
            guaranteed: rate(|part| part.guaranteed_ns),
            extra: rate(|part| part.extra_ns),
            misses: new.misses,
            queued: new.queued,
            bytes_per_s: rate(|part| part.bytes),
            not_kept: new.not_kept.clone(),
        }
    }

    /// The line as cells, in the order of [`HEADS`].
    pub(super) fn cells(&self) -> [String; 10] {
        let percent = |ns: u64| format!("{}.{:02}%", ns / 10_000_000, ns / 100_000 % 100);
        [
            self.tenant.clone(),
            self.resource.clone(),
            self.contract.map_or_else(String::new, |contract| contract.to_string()),
            percent(self.reserved),
            percent(self.guaranteed),
            percent(self.extra),
            self.misses.to_string(),
            self.queued.to_string(),
            format!("{}", self.bytes_per_s / 1000),
            if self.not_kept.is_some() { "NO" } else { "yes" }.to_owned(),
        ]
    }
}

/// Names of the columns.
pub(super) const HEADS: [&str; 10] = [
    "TENANT",
    "RESOURCE",
    "CONTRACT",
    "OWED",
    "GUARANTEED",
    "EXTRA",
    "MISSES",
    "QUEUE",
    "KB/S",
    "KEPT",
];
/// Widths of the columns.
pub(super) const WIDTHS: [usize; 10] = [16, 14, 24, 8, 10, 8, 7, 6, 9, 4];

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = HEADS.map(str::to_owned);
        for cells in std::iter::once(heads).chain(self.rows.iter().map(Row::cells)) {
            for (index, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
                // The first columns are names, the rest numbers.
                if index < 3 {
                    write!(f, "{cell:<width$} ")?;
                } else {
                    write!(f, "{cell:>width$} ")?;
                }
            }
            writeln!(f)?;
        }
        for trouble in self.troubles() {
            writeln!(f, "{trouble}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moirai_api::{FailedTenant, LinkStats, TenantStats};

    fn stats(now_ns: u64, guaranteed_ns: u64) -> Stats {
        let part = PartStats {
            resource: "cpu/1".to_owned(),
            guaranteed_ns,
            reserved: 200_000_000,
            ..PartStats::default()
        };
        let tenants = vec![TenantStats { name: "a".into(), parts: vec![part] }];
        Stats { now_ns, tenants, ..Stats::default() }
    }

    #[test]
    fn services_are_per_second_of_the_interval() {
        let view = View::between(&stats(0, 0), &stats(500_000_000, 100_000_000));
        let row = view.rows.first().expect("a row");
        assert_eq!(row.guaranteed, 200_000_000);
        assert_eq!(row.cells().get(4).map(String::as_str), Some("20.00%"));
    }

    #[test]
    fn a_tap_that_refuses_packets_is_said_while_it_does() {
        let link = |refused| LinkStats { name: "up".to_owned(), refused, ..LinkStats::default() };
        let at = |refused| Stats { links: vec![link(refused)], ..stats(0, 0) };
        let said = |before, after| View::between(&at(before), &at(after)).to_string();
        assert!(said(3, 10).contains("link/up: its TAP refused 7 packets"), "{}", said(3, 10));
        assert!(!said(10, 10).contains("refused"));
    }

    #[test]
    fn packets_that_were_dropped_for_their_sender_or_their_number_are_said() {
        let at = |count| {
            let mut stats = stats(0, 0);
            stats.links = vec![LinkStats {
                name: "up".to_owned(),
                policed: 5 * count,
                ..LinkStats::default()
            }];
            if let Some(part) = stats.tenants.iter_mut().flat_map(|it| &mut it.parts).next() {
                (part.spoofed.arp, part.spoofed.ip, part.over_budget) = (count, count, 9 * count);
            }
            stats
        };
        let text = View::between(&at(1), &at(2)).to_string();
        for said in [
            "a cpu/1: 2 packets were not its own to send",
            "a cpu/1: 9 packets were over its `receive`",
            "link/up: 5 packets were over its `broadcast`",
        ] {
            assert!(text.contains(said), "{text}");
        }
        assert!(!View::between(&at(2), &at(2)).to_string().contains("packets"));
    }

    #[test]
    fn a_tenant_that_has_failed_is_said_until_it_is_forgotten() {
        let failed = FailedTenant { name: "b".to_owned(), reason: "a panic".to_owned() };
        let after = Stats { failed: vec![failed], ..stats(0, 0) };
        let text = View::between(&stats(0, 0), &after).to_string();
        assert!(text.contains("failed: b: a panic"), "{text}");
        assert!(!View::between(&after, &stats(0, 0)).to_string().contains("failed"));
    }

    #[test]
    fn a_tenant_that_started_anew_shows_nothing_negative() {
        let view = View::between(&stats(0, 900), &stats(1_000_000_000, 100));
        assert_eq!(view.rows.first().map(|row| row.guaranteed), Some(0));
    }
}
