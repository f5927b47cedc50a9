//! `moirai plan`: admission of a whole configuration, without starting anything. Also the form in
//! which refusals and resources are reported everywhere.

use std::fmt;

use moirai_scheduler::Contract;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ledger::{Claim, Ledger};
use crate::config::Config;
use crate::config::units::Time;

/// The answer to a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Whether all tenants are admitted.
    pub admitted: bool,
    /// Every tenant, in the order in which admission was asked.
    pub tenants: Vec<TenantPlan>,
    /// Every resource, with what the admitted tenants reserve.
    pub resources: Vec<ResourceReport>,
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

/// A contract that does not fit. Services in nanoseconds per second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusalReport {
    /// Name of the resource.
    pub resource: String,
    /// What was asked for.
    pub requested: u64,
    /// What is not reserved.
    pub available: u64,
    /// The nearest contract that fits.
    pub nearest: Option<ContractReport>,
    /// Where the test fails.
    pub reason: String,
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

/// A resource. Services in nanoseconds per second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourceReport {
    /// Name, as `cpu/1`.
    pub name: String,
    /// What may be reserved.
    pub capacity: u64,
    /// What is reserved.
    pub reserved: u64,
}

impl ContractReport {
    /// Describes `contract`.
    #[must_use]
    pub fn of(contract: &Contract) -> Self {
        Self {
            period_ns: contract.period(),
            slice_ns: contract.slice(),
            deadline_ns: contract.deadline(),
            extra: contract.extra().map_or(0, std::num::NonZero::get),
        }
    }
}

/// Asks admission for every tenant in turn. A refused tenant reserves nothing.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    let mut ledger = Ledger::new(config);
    let tenants: Vec<_> = config
        .tenants
        .iter()
        .map(|tenant| {
            let refusals = match ledger.admit(&tenant.name, &Claim::all_of(tenant)) {
                Ok(()) => Vec::new(),
                Err(refusals) => refusals.iter().map(super::Refusal::report).collect(),
            };
            TenantPlan { name: tenant.name.clone(), admitted: refusals.is_empty(), refusals }
        })
        .collect();
    let admitted = tenants.iter().all(|tenant| tenant.admitted);
    Plan { admitted, tenants, resources: ledger.report() }
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
struct Percent(u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.0 / 100_000;
        f.pad(&format!("{}.{:02}%", hundredths / 100, hundredths % 100))
    }
}

impl fmt::Display for RefusalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, requested, available, nearest, reason } = self;
        let (requested, available) = (Percent(*requested), Percent(*available));
        write!(f, "{resource}: {requested} asked, {available} not reserved; {reason}; ")?;
        match nearest {
            Some(fit) => write!(f, "{fit} would fit"),
            None => write!(f, "no contract of this kind would fit"),
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
            }
        }
        writeln!(f, "\n{:<24} {:>9} {:>9}", "resource", "reserved", "capacity")?;
        for resource in &self.resources {
            let (reserved, capacity) = (Percent(resource.reserved), Percent(resource.capacity));
            writeln!(f, "{:<24} {reserved:>9} {capacity:>9}", resource.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{check, parse};

    fn planned(text: &str) -> Plan {
        let document = parse("plan.toml", text).expect("a document");
        plan(&check(&document).expect("a configuration"))
    }

    fn tenant(name: &str, period: &str, slice: &str) -> String {
        format!(
            "[[tenant]]\nname = \"{name}\"\nimage = \"i\"\n\
             [tenant.cpu]\nperiod = \"{period}\"\nslice = \"{slice}\"\n"
        )
    }

    #[test]
    fn a_core_is_filled_to_the_last_nanosecond_and_not_beyond() {
        let head = "[host]\ncores = [0]\ncpu_capacity = 1.0\nprofile = \"none\"\n";
        let full = format!("{head}{}{}", tenant("a", "10ms", "4ms"), tenant("b", "15ms", "9ms"));
        assert!(planned(&full).admitted);
        let over = format!("{full}{}", tenant("c", "10s", "1us"));
        let answer = planned(&over);
        assert!(!answer.admitted);
        let last = answer.tenants.last().expect("three tenants");
        let refusal = last.refusals.first().expect("a refusal");
        assert_eq!((refusal.resource.as_str(), refusal.available), ("cpu/0", 0));
        assert_eq!(refusal.nearest, None);
    }

    #[test]
    fn a_refusal_offers_the_nearest_contract_and_that_one_fits() {
        let head = "[host]\ncores = [0]\nprofile = \"none\"\n";
        let text =
            |slice| format!("{head}{}{}", tenant("a", "10ms", "5ms"), tenant("b", "10ms", slice));
        let answer = planned(&text("6ms"));
        let refusal = answer.tenants.iter().find_map(|tenant| tenant.refusals.first());
        let nearest = refusal.and_then(|refusal| refusal.nearest).expect("a nearest contract");
        assert_eq!((nearest.period_ns, nearest.slice_ns), (10_000_000, 4_500_000));
        assert!(planned(&text("4500us")).admitted);
    }

    #[test]
    fn the_default_profile_leaves_room_for_switches_requests_and_frames() {
        let text = "[[disk]]\nname = \"d\"\npath = \"/\"\n[[link]]\nname = \"l\"\nrate = \"10Mbit/s\"\n\
                    [[tenant]]\nname = \"a\"\nimage = \"i\"\n\
                    [tenant.cpu]\nperiod = \"10ms\"\nrate = \"95%\"\n\
                    [[tenant.disk]]\ndisk = \"d\"\nperiod = \"4ms\"\nslice = \"100us\"\n\
                    [[tenant.net]]\nlink = \"l\"\nperiod = \"2ms\"\nrate = \"1Mbit/s\"\n";
        let refused = |text: &str| {
            let answer = planned(text);
            answer.tenants.iter().flat_map(|tenant| &tenant.refusals).count()
        };
        assert_eq!(refused(text), 3);
        assert_eq!(refused(&format!("[host]\nprofile = \"none\"\n{text}")), 0);
    }

    #[test]
    fn every_virtual_cpu_counts() {
        let head = "[host]\ncores = [0]\nprofile = \"none\"\n";
        let text = format!("{head}{}", tenant("a", "10ms", "4ms"));
        assert!(planned(&text.replace("[tenant.cpu]", "vcpus = 2\n[tenant.cpu]")).admitted);
        assert!(!planned(&text.replace("[tenant.cpu]", "vcpus = 3\n[tenant.cpu]")).admitted);
    }

    #[test]
    fn a_changed_contract_takes_the_place_of_the_old_one_or_leaves_it() {
        let head = "[host]\ncores = [0]\nprofile = \"none\"\n";
        let text = format!("{head}{}", tenant("a", "10ms", "6ms"));
        let config = check(&parse("t", &text).expect("document")).expect("configuration");
        let mut ledger = Ledger::new(&config);
        let claims = config.tenants.first().map(Claim::all_of).expect("a tenant");
        ledger.admit("a", &claims).expect("admitted");
        let asking = |slice| {
            let contract = Contract::new(10_000_000, slice, 10_000_000, None).expect("contract");
            claims.iter().map(|claim| Claim { contract, ..*claim }).collect::<Vec<_>>()
        };
        ledger.admit("a", &asking(9_000_000)).expect("fits in place of the old one");
        ledger.admit("a", &asking(9_900_000)).expect_err("too much");
        let reserved = |ledger: &Ledger| ledger.report().first().map(|report| report.reserved);
        assert_eq!(reserved(&ledger), Some(900_000_000));
        ledger.release("a");
        assert_eq!(reserved(&ledger), Some(0));
    }
}
