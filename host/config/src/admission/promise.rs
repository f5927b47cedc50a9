//! What is promised to one tenant, in numbers: `moirai explain` (`words.rs` says them). Pure.

use moirai_scheduler::admission::Resource;
use moirai_scheduler::{Amount, Contract, Span};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ledger::{Claim, Part, per_second};
use super::memory::MemoryClaim;
use super::plan::{TenantPlan, core_costs};
use super::quantities::MEMORY;
use super::report::ContractReport;
use super::resource::all;
use crate::costs::CoreCosts;
use crate::holder::Holder;
use crate::model::{Config, Export, Tenant};

/// All that is promised to a tenant or an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Promises {
    /// Its name.
    #[schema(value_type = String)]
    pub tenant: Holder,
    /// One for each virtual CPU, volume and interface.
    pub parts: Vec<Promise>,
    /// Memory that is reserved for it, in bytes: the guest's and what having it costs.
    pub memory: u64,
    /// Whether all contracts are kept; false where admission refuses them.
    #[serde(default)]
    pub kept: bool,
    /// Why not; empty if they are.
    #[serde(default)]
    pub because: String,
    /// Admission refuses it, so that nothing is promised to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// How it has ended, so that nothing is promised to it any more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ended: String,
    /// What keeping contracts is taken to cost on a core, as in a plan; none where that is set to
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_costs: Option<CoreCosts>,
}

/// What is promised on one resource. Times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Promise {
    /// `cpu/1`, `disk/ssd`, `link/uplink`.
    pub resource: String,
    /// Which part of the tenant: `virtual CPU 0`, `volume 0`, `interface 0`.
    pub part: String,
    /// Contract of this part alone.
    pub contract: ContractReport,
    /// The service that it guarantees, in nanoseconds per second.
    pub reserved: u64,
    /// The moment from which the slice is promised.
    pub from: String,
    /// Of a virtual CPU with a slice: work of at most the slice is done within this time of the
    /// wake-up, its deadline and what a wake-up takes on this host. In nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_by_ns: Option<u64>,
    /// The longest time without service while it wants some; absent for best effort.
    pub blackout_ns: Option<u64>,
    /// What admission counts beside the contract.
    pub admitted: AdmittedOverhead,
    /// What it got; absent where nothing runs.
    pub got: Option<Got>,
}

/// What admission counts beside a contract. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdmittedOverhead {
    /// Each of the two switches of a slice.
    pub switch_ns: u64,
    /// Refilling caches after each of them.
    pub cache_ns: u64,
    /// What may be under way for somebody else and cannot be taken back.
    pub blocking_ns: u64,
    /// By how much a slice may be overdrawn by its last unit.
    pub overrun_ns: u64,
    /// What each further wake-up within a slice takes of it: a nap is paid by who naps.
    #[serde(default)]
    pub nap_ns: u64,
}

/// What a part got, since it was started. Times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Got {
    /// Service charged to the contract.
    pub guaranteed_ns: u64,
    /// Service taken from the slack.
    pub extra_ns: u64,
    /// Slices missed.
    pub misses: u64,
    /// Slices missed and excused by a hiccup of the machine.
    pub excused: u64,
    /// Whether the contract is kept.
    pub kept: bool,
    /// Why it is not; empty if it is.
    pub because: String,
}

impl Promises {
    /// What the host of `config` promises `tenant`, if it admits it.
    #[must_use]
    pub fn to_tenant(config: &Config, tenant: &Tenant) -> Self {
        let memory = MemoryClaim::of_tenant(config, tenant).total();
        Self::new(config, tenant.holder(), &Claim::all_of(tenant), memory)
    }

    /// What the host of `config` promises whoever uses `export`, if it admits it.
    #[must_use]
    pub fn to_export(config: &Config, export: &Export) -> Self {
        let memory = MemoryClaim::of_export(config, export).total();
        Self::new(config, export.holder(), &[Claim::of_export(export)], memory)
    }

    fn new(config: &Config, tenant: Holder, claims: &[Claim], memory: u64) -> Self {
        let (resources, costs) = (all(config), core_costs(config));
        let known = claims.iter().filter_map(|claim| {
            let (_, name, resource) = resources.iter().find(|(id, ..)| *id == claim.resource)?;
            Some(Promise::of(claim, name, resource, costs))
        });
        let parts = known.collect();
        let because = String::new();
        Self {
            tenant,
            parts,
            memory,
            kept: true,
            because,
            refused: false,
            ended: String::new(),
            core_costs: costs,
        }
    }

    /// What the plan answers: a tenant that is refused is promised nothing.
    #[must_use]
    pub fn as_planned(mut self, plan: &TenantPlan) -> Self {
        if plan.admitted {
            return self;
        }
        let reasons: Vec<_> = plan.refusals.iter().map(ToString::to_string).collect();
        (self.kept, self.refused, self.because) = (false, true, reasons.join("\n"));
        for part in &mut self.parts {
            // Memory is what all parts need.
            let theirs = plan.refusals.iter();
            let mut theirs =
                theirs.filter(|it| it.resource == part.resource || it.resource == MEMORY);
            if let Some(refusal) = theirs.next() {
                part.got = Some(Got { because: refusal.to_string(), ..Got::default() });
            }
        }
        self
    }

    /// With what its parts got, in their order.
    #[must_use]
    pub fn with_got(mut self, got: impl IntoIterator<Item = Got>) -> Self {
        let mut reasons = Vec::new();
        for (part, got) in self.parts.iter_mut().zip(got) {
            if !got.kept {
                reasons.push(format!("{}: {}", part.resource, got.because));
            }
            part.got = Some(got);
        }
        (self.kept, self.because) = (reasons.is_empty(), reasons.join("\n"));
        self
    }
}

impl Promise {
    fn of(claim: &Claim, name: &str, resource: &Resource, costs: Option<CoreCosts>) -> Self {
        let part = match claim.part {
            Part::Vcpu(number) => format!("virtual CPU {number}"),
            Part::Volume(number) => format!("volume {number}"),
            Part::Net(number) => format!("interface {number}"),
        };
        let overhead = &resource.overhead;
        let costs = costs.filter(|_| matches!(claim.part, Part::Vcpu(_)));
        let by = |costs: CoreCosts| {
            let late = Span::from_nanos(costs.wake_p99);
            claim.contract.deadline().saturating_add(late).as_nanos()
        };
        Self {
            resource: name.to_owned(),
            part,
            contract: ContractReport::of(&claim.contract),
            reserved: per_second(&claim.contract),
            from: "wake-up".to_owned(),
            done_by_ns: costs.filter(|_| claim.contract.slice() > Amount::ZERO).map(by),
            blackout_ns: blackout(&claim.contract, resource.blocking, overhead.overrun)
                .map(Span::as_nanos),
            admitted: AdmittedOverhead {
                switch_ns: overhead.switch.as_nanos(),
                cache_ns: overhead.cache.as_nanos(),
                blocking_ns: resource.blocking.as_nanos(),
                overrun_ns: overhead.overrun.as_nanos(),
                nap_ns: costs.map_or(0, |costs| costs.wake_up().as_nanos()),
            },
            got: None,
        }
    }
}

/// The longest time in which a client that wants service gets none, with a blocking of `blocking`
/// and slices overdrawn by up to `overrun`: a slice at once, the next one at its last moment, and
/// as many slices gone as what is in the way is long.
#[must_use]
pub fn blackout(contract: &Contract, blocking: Amount, overrun: Amount) -> Option<Span> {
    let (period, slice, deadline) = (contract.period(), contract.slice(), contract.deadline());
    let late = blocking.saturating_add(overrun);
    let (slices, rest) = (late.checked_div(slice)?, late.checked_rem(slice)?);
    let alone = period.saturating_add(deadline).saturating_sub(slice.saturating_mul(2).time());
    let gone = period.saturating_mul(slices).saturating_add(rest.time());
    Some(alone.saturating_add(gone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, parse};

    #[test]
    fn the_longest_blackout_is_what_the_reference_says_also_for_short_slices() {
        let blackout = |period, slice, deadline, blocking, overrun| {
            let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
            let [slice, blocking, overrun] = [slice, blocking, overrun].map(Amount::from_nanos);
            let contract = Contract::new(period, slice, deadline, None).expect("a contract");
            blackout(&contract, blocking, overrun).map(Span::as_nanos)
        };
        // p + D - 2s without units, plus B + e where a slice is longer than that.
        assert_eq!(blackout(20_000, 3_000, 20_000, 0, 0), Some(34_000));
        assert_eq!(blackout(20_000, 3_000, 4_000, 1_000, 1_000), Some(20_000));
        // A slice of 100 and 8000 in the way: 80 slices are gone.
        assert_eq!(blackout(100_000, 100, 10_000, 4_000, 4_050), Some(109_800 + 80 * 100_000 + 50));
        let best_effort = Contract::new(
            Span::from_micros(10),
            Amount::ZERO,
            Span::from_micros(10),
            moirai_scheduler::Weight::new(1),
        );
        assert_eq!(
            super::blackout(&best_effort.expect("a contract"), Amount::ONE, Amount::ONE),
            None
        );
    }

    #[test]
    fn a_promise_is_explained_with_its_numbers() {
        let text = "[host]\ncores = [1]\n[[disk]]\nname = \"d\"\npath = \"/srv\"\n\
                    [[tenant]]\nname = \"a\"\nimage = \"i\"\nvcpus = 2\n\
                    [tenant.cpu]\nperiod = \"20ms\"\nslice = \"4ms\"\ndeadline = \"5ms\"\n\
                    [[tenant.disk]]\ndisk = \"d\"\nvolume = \"v\"\nextra = 2\n";
        let config = check(&parse("t", text).expect("text")).expect("good");
        let tenant = config.tenants.first().expect("a tenant");
        let mut promises = Promises::to_tenant(&config, tenant);
        let numbers: Vec<_> =
            promises.parts.iter().map(|it| (it.reserved, it.blackout_ns)).collect();
        let vcpu = (100_000_000, Some(21_000_000));
        assert_eq!(numbers, [vcpu, vcpu, (0, None)]);
        if let Some(part) = promises.parts.first_mut() {
            let because = "it sleeps".to_owned();
            part.got = Some(Got { misses: 3, excused: 1, because, ..Got::default() });
        }
        let said = promises.to_string();
        assert!(!said.contains("a slice may be overdrawn"), "a core takes no units: {said}");
        for line in [
            "cpu/1, virtual CPU 1: 2ms in every 20ms by 5ms (10.00%)",
            "its wake-up: 2ms within 5ms of it",
            "21ms without any service",
            "3 missed, 1 excused",
            "NO: it sleeps",
            "disk/d, volume 0: nothing is promised; it lives on slack, weight 2",
            "A miss:",
            "An excuse:",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    }

    /// Of a virtual CPU, a volume and an interface, on a host that was measured.
    fn promises(profile: &str) -> Promises {
        let text = format!(
            "[host]\ncores = [1]\nprofile = \"{profile}\"\n[[disk]]\nname = \"d\"\npath \
             = \"/srv\"\n\
             [[link]]\nname = \"l\"\nrate = \"1Gbit/s\"\n\
             [[tenant]]\nname = \"a\"\nimage = \"i\"\n\
             [tenant.cpu]\nperiod = \"20ms\"\nslice = \"4ms\"\ndeadline = \"5ms\"\n\
             [[tenant.disk]]\ndisk = \"d\"\nvolume = \"v\"\nperiod = \"20ms\"\nslice = \"4ms\"\n\
             [[tenant.net]]\nlink = \"l\"\nperiod = \"20ms\"\nslice = \"4ms\"\n"
        );
        let mut config = check(&parse("t", &text).expect("text")).expect("good");
        config.host.costs =
            CoreCosts { switch: 9_000, cache: 2_000, vcpu: 300, wake_p99: 31_200, measured: true };
        Promises::to_tenant(&config, config.tenants.first().expect("a tenant"))
    }

    #[test]
    fn a_virtual_cpu_is_told_what_a_wake_up_and_a_nap_take_here() {
        let promises = promises("default");
        let numbers: Vec<_> =
            promises.parts.iter().map(|it| (it.done_by_ns, it.admitted.nap_ns)).collect();
        assert_eq!(numbers, [(Some(5_031_200), 22_000), (None, 0), (None, 0)]);
        assert_eq!(promises.core_costs.map(|costs| costs.wake_p99), Some(31_200));
        let said = promises.to_string();
        for line in [
            "its wake-up + 5ms + 32us, if that slice is enough for it:\n",
            " a wake-up takes up to 32us (measured on this host)\n",
            "2 x (9us + 2us) for the switches of a slice\n",
            "each further wake-up within a slice takes 22us of what is left",
            "admitted   1ms that others may have under way,\n",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        for once in ["switches of a slice", "done by", "naps"] {
            assert_eq!(said.matches(once).count(), 1, "of cores only: {said}");
        }
    }

    #[test]
    fn where_costs_are_set_to_nothing_none_are_told() {
        let promises = promises("none");
        assert_eq!(promises.core_costs, None);
        assert!(promises.parts.iter().all(|part| part.done_by_ns.is_none()));
        let said = promises.to_string();
        assert!(said.contains("admitted   nothing is counted beside it\n"), "{said}");
        assert!(!said.contains("0ns") && !said.contains("a wake-up takes"), "{said}");
    }
}
