//! `moirai plan`: admission of a whole configuration, without starting anything.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::explain::{self, Chart};
use super::ledger::{Claim, Ledger, Refusal};
use super::memory::MemoryClaim;
use super::quantities::{Quantity, WakeUp, source};
pub use super::report::{ContractReport, RefusalReport, ResourceReport};
use crate::costs::CoreCosts;
use crate::holder::Holder;
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
    #[schema(value_type = String)]
    pub name: Holder,
    /// Whether all its contracts fit beside those of the tenants before it.
    pub admitted: bool,
    /// The contracts that do not.
    pub refusals: Vec<RefusalReport>,
}

impl TenantPlan {
    /// The answer for `name`, who was given `refusals`.
    #[must_use]
    pub fn of(name: Holder, refusals: &[Refusal]) -> Self {
        let admitted = refusals.is_empty();
        Self { name, admitted, refusals: refusals.iter().map(Refusal::report).collect() }
    }
}

/// Asks admission for every tenant and then every export in turn. A refused tenant reserves
/// nothing.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    answer(config, &|| true).0
}

/// The plan of [`plan`], as long as it is `wanted`; that is asked before each tenant and export,
/// which take less than a second each. `None`: it is not wanted any more.
pub fn plan_while(config: &Config, wanted: &dyn Fn() -> bool) -> Option<Plan> {
    let plan = answer(config, wanted).0;
    (plan.tenants.len() == config.tenants.len() + config.exports.len()).then_some(plan)
}

/// The plan of [`plan`], with each refusal explained.
#[must_use]
pub fn explain(config: &Config) -> Plan {
    let (mut plan, _, refusals) = answer(config, &|| true);
    for (tenant, refused) in plan.tenants.iter_mut().zip(refusals) {
        for (report, refusal) in tenant.refusals.iter_mut().zip(refused) {
            let contract = refusal.contract();
            report.explain = contract.map(|it| explain::demand_of(&tenant.name, it));
        }
    }
    plan
}

/// Demand against supply for every resource of which something is promised or refused. Where a
/// contract is refused, the first one is counted in.
#[must_use]
pub fn charts(config: &Config) -> Vec<Chart> {
    let (plan, ledger, refusals) = answer(config, &|| true);
    let named = plan.tenants.iter().zip(&refusals);
    let refused: Vec<_> = named
        .flat_map(|(tenant, refused)| {
            let contracts = refused.iter().filter_map(Refusal::contract);
            contracts.map(|refusal| (&tenant.name, refusal))
        })
        .collect();
    explain::charts(&ledger, &refused)
}

/// The plan, the ledger after it, and what was refused to each tenant; only of those who came
/// before it was not `wanted` any more.
fn answer(config: &Config, wanted: &dyn Fn() -> bool) -> (Plan, Ledger, Vec<Vec<Refusal>>) {
    let mut ledger = Ledger::new(config);
    let mut refusals = Vec::new();
    let mut tenants = Vec::new();
    let asked = config.tenants.iter().map(|tenant| {
        let memory = MemoryClaim::of_tenant(config, tenant);
        (tenant.holder(), Claim::all_of(tenant), memory)
    });
    let exported = config.exports.iter().map(|export| {
        let memory = MemoryClaim::of_export(config, export);
        (export.holder(), vec![Claim::of_export(export)], memory)
    });
    for (name, claims, memory) in asked.chain(exported).take_while(|_| wanted()) {
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
                (Quantity(name, resource.reserved), Quantity(name, resource.capacity));
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
