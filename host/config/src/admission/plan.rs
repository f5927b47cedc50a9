//! `moirai plan`: admission of a whole configuration, without starting anything. Also the form in
//! which refusals and resources are reported everywhere.

use std::fmt;

use moirai_scheduler::Contract;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::costs::CoreCosts;
use super::explain::{Chart, Explanation};
use super::ledger::{Claim, Ledger, Refusal};
use super::memory::{self, Mebibytes, MemoryClaim};
use super::words::{WakeUp, source};
use crate::units::Time;
use crate::{Config, Profile};

/// The answer to a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Whether all tenants are admitted.
    pub admitted: bool,
    /// Every tenant, in the order in which admission was asked.
    pub tenants: Vec<TenantPlan>,
    /// Every resource, with what the admitted tenants reserve.
    pub resources: Vec<ResourceReport>,
    /// What keeping contracts is taken to cost on a core; none where that is set to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_costs: Option<CoreCosts>,
}

/// The answer for one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantPlan {
    /// Name.
    pub name: String,
    /// Whether all its contracts fit beside those of the tenants before it.
    pub admitted: bool,
    /// The contracts that do not.
    pub refusals: Vec<RefusalReport>,
}

/// What does not fit. Services in nanoseconds per second, memory in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusalReport {
    /// Name of the resource.
    pub resource: String,
    /// What was asked for.
    pub requested: u64,
    /// What is not reserved.
    pub available: u64,
    /// The nearest contract that fits, of all virtual CPUs together as the tenant's table has it.
    pub nearest: Option<ContractReport>,
    /// The whole slice by a later deadline, if that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<ContractReport>,
    /// Where the test fails.
    pub reason: String,
    /// What to write instead, as keys of the table: `slice = "3500us"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<String>,
    /// The demand bound that fails, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explanation>,
}

/// A contract in integer nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContractReport {
    /// Period.
    pub period_ns: u64,
    /// Slice; zero for best effort.
    pub slice_ns: u64,
    /// Relative deadline.
    pub deadline_ns: u64,
    /// Weight in the slack; zero without `extra`.
    pub extra: u32,
}

/// A resource. Services in nanoseconds per second, `memory` in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourceReport {
    /// Name, as `cpu/1`.
    pub name: String,
    /// What may be reserved.
    pub capacity: u64,
    /// What is reserved.
    pub reserved: u64,
}

impl TenantPlan {
    /// The answer for `name`, who was given `refusals`.
    #[must_use]
    pub fn of(name: String, refusals: &[Refusal]) -> Self {
        let admitted = refusals.is_empty();
        Self { name, admitted, refusals: refusals.iter().map(Refusal::report).collect() }
    }
}

impl ContractReport {
    /// Describes `contract`.
    #[must_use]
    pub fn of(contract: &Contract) -> Self {
        Self {
            period_ns: contract.period().as_nanos(),
            slice_ns: contract.slice().as_nanos(),
            deadline_ns: contract.deadline().as_nanos(),
            extra: contract.extra().map_or(0, std::num::NonZero::get),
        }
    }

    /// The keys that make this contract out of `asked`.
    pub(super) fn as_keys(&self, asked: &Self) -> String {
        let moved = asked.deadline_ns != asked.period_ns || self.deadline_ns != self.period_ns;
        let keys = [
            ("slice", self.slice_ns, self.slice_ns != asked.slice_ns),
            ("period", self.period_ns, self.period_ns != asked.period_ns),
            ("deadline", self.deadline_ns, moved && self.deadline_ns != asked.deadline_ns),
        ];
        let changed = keys.into_iter().filter(|(_, _, changed)| *changed);
        let written = changed.map(|(key, nanos, _)| format!("{key} = \"{}\"", Time(nanos)));
        written.collect::<Vec<_>>().join(", ")
    }
}

/// Asks admission for every tenant and then every export in turn. A refused tenant reserves
/// nothing.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    answer(config).0
}

/// The plan of [`plan`], with each refusal explained.
#[must_use]
pub fn explain(config: &Config) -> Plan {
    let (mut plan, _, refusals) = answer(config);
    for (tenant, refused) in plan.tenants.iter_mut().zip(refusals) {
        for (report, refusal) in tenant.refusals.iter_mut().zip(refused) {
            let contract = refusal.contract();
            report.explain = contract.map(|it| Explanation::of(&tenant.name, it));
        }
    }
    plan
}

/// Demand against supply for every resource of which something is promised or refused. Where a
/// contract is refused, the first one is counted in.
#[must_use]
pub fn charts(config: &Config) -> Vec<Chart> {
    let (plan, ledger, refusals) = answer(config);
    let named = plan.tenants.iter().zip(&refusals);
    let refused: Vec<_> = named
        .flat_map(|(tenant, refused)| {
            let contracts = refused.iter().filter_map(Refusal::contract);
            contracts.map(|refusal| (tenant.name.as_str(), refusal))
        })
        .collect();
    super::explain::charts(&ledger, &refused)
}

/// The plan, the ledger after it, and what was refused to each tenant.
fn answer(config: &Config) -> (Plan, Ledger, Vec<Vec<Refusal>>) {
    let mut ledger = Ledger::new(config);
    let mut refusals = Vec::new();
    let mut tenants = Vec::new();
    let asked = config.tenants.iter().map(|tenant| {
        let memory = MemoryClaim::of_tenant(config, tenant);
        (tenant.name.clone(), Claim::all_of(tenant), memory)
    });
    let exported = config.exports.iter().map(|export| {
        let memory = MemoryClaim::of_export(config, export);
        (export.key(), vec![Claim::of_export(export)], memory)
    });
    for (name, claims, memory) in asked.chain(exported) {
        let refused = ledger.admit(&name, &claims, Some(memory)).err().unwrap_or_default();
        tenants.push(TenantPlan::of(name, &refused));
        refusals.push(refused);
    }
    let admitted = tenants.iter().all(|tenant| tenant.admitted);
    let (resources, core_costs) = (ledger.report(), core_costs(config));
    (Plan { admitted, tenants, resources, core_costs }, ledger, refusals)
}

/// What keeping contracts is taken to cost on a core, if it is counted.
pub(super) fn core_costs(config: &Config) -> Option<CoreCosts> {
    (config.host.profile == Profile::Default).then_some(config.host.costs)
}

impl fmt::Display for ContractReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} every {}", Time(self.slice_ns), Time(self.period_ns))?;
        if self.deadline_ns < self.period_ns {
            write!(f, " by {}", Time(self.deadline_ns))?;
        }
        match self.extra {
            0 => Ok(()),
            1 => write!(f, " and slack"),
            weight => write!(f, " and slack with weight {weight}"),
        }
    }
}

/// A service in nanoseconds per second as a percentage with two places.
pub(super) struct Percent(pub(super) u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.0 / 100_000;
        f.pad(&format!("{}.{:02}%", hundredths / 100, hundredths % 100))
    }
}

/// How much of a resource, in what it is measured in.
struct Amount<'a>(&'a str, u64);

impl fmt::Display for Amount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(memory::NAME, u64::MAX) => f.pad("unknown"),
            Self(memory::NAME, bytes) => Mebibytes(bytes).fmt(f),
            Self(_, service) => Percent(service).fmt(f),
        }
    }
}

impl fmt::Display for RefusalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, requested, available, nearest, later, reason, .. } = self;
        let (requested, available) = (Amount(resource, *requested), Amount(resource, *available));
        write!(f, "{resource}: {requested} asked, {available} not reserved; {reason}; ")?;
        match (nearest, &self.write) {
            (Some(fit), Some(keys)) => write!(f, "{fit} would fit: write {keys}"),
            (Some(fit), None) => write!(f, "{fit} would fit"),
            (None, Some(keys)) => write!(f, "write {keys}"),
            (None, None) if resource == memory::NAME => write!(f, "no memory is left"),
            (None, None) => write!(f, "no contract of this kind would fit"),
        }?;
        match later.filter(|later| Some(*later) != *nearest) {
            Some(later) => write!(f, "; the whole slice would fit as {later}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tenant in &self.tenants {
            let answer = if tenant.admitted { "admitted" } else { "refused" };
            writeln!(f, "{:<24} {answer}", tenant.name)?;
            for refusal in &tenant.refusals {
                writeln!(f, "    {refusal}")?;
                if let Some(explanation) = &refusal.explain {
                    write!(f, "{explanation}")?;
                }
            }
        }
        writeln!(f, "\n{:<24} {:>9} {:>9}", "resource", "reserved", "capacity")?;
        for resource in &self.resources {
            let name = &resource.name;
            let (reserved, capacity) =
                (Amount(name, resource.reserved), Amount(name, resource.capacity));
            writeln!(f, "{name:<24} {reserved:>9} {capacity:>9}")?;
        }
        if let Some(costs) = self.core_costs {
            let (switch, cache) = (Time(costs.switch), Time(costs.cache));
            let from = source(costs.measured);
            writeln!(f, "\na switch costs a core {switch}, its caches {cache} ({from})")?;
            writeln!(f, "{}", WakeUp(costs))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
