//! What is promised to one tenant, in numbers and in plain words: `moirai explain`. Pure.

use std::fmt;

use moirai_scheduler::Contract;
use moirai_scheduler::admission::Resource;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ledger::{Claim, Part, per_second};
use super::memory::{Mebibytes, MemoryClaim};
use super::plan::{ContractReport, Percent};
use super::resource::all;
use crate::config::export::Export;
use crate::config::model::{Config, Tenant};
use crate::config::units::Time;

/// All that is promised to a tenant or an export.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Promises {
    /// Its name.
    pub tenant: String,
    /// One for each virtual CPU, volume and interface.
    pub parts: Vec<Promise>,
    /// Memory that is reserved for it, in bytes: the guest's and what having it costs.
    pub memory: u64,
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
    /// What the host of `config` promises `tenant`.
    #[must_use]
    pub fn to_tenant(config: &Config, tenant: &Tenant) -> Self {
        let memory = MemoryClaim::of_tenant(config, tenant).total();
        let parts = promises(config, &Claim::all_of(tenant));
        Self { tenant: tenant.name.clone(), parts, memory }
    }

    /// What the host of `config` promises whoever uses `export`.
    #[must_use]
    pub fn to_export(config: &Config, export: &Export) -> Self {
        let memory = MemoryClaim::of_export(config, export).total();
        let parts = promises(config, &[Claim::of_export(export)]);
        Self { tenant: export.key(), parts, memory }
    }
}

fn promises(config: &Config, claims: &[Claim]) -> Vec<Promise> {
    let resources = all(config);
    let known = claims.iter().filter_map(|claim| {
        let (_, name, resource) = resources.iter().find(|(id, ..)| *id == claim.resource)?;
        Some(Promise::of(claim, name, resource))
    });
    known.collect()
}

impl Promise {
    fn of(claim: &Claim, name: &str, resource: &Resource) -> Self {
        let part = match claim.part {
            Part::Vcpu(number) => format!("virtual CPU {number}"),
            Part::Volume(number) => format!("volume {number}"),
            Part::Net(number) => format!("interface {number}"),
        };
        let overhead = &resource.overhead;
        Self {
            resource: name.to_owned(),
            part,
            contract: ContractReport::of(&claim.contract),
            reserved: per_second(&claim.contract),
            from: "wake-up".to_owned(),
            blackout_ns: blackout(&claim.contract, resource.blocking, overhead.overrun),
            admitted: AdmittedOverhead {
                switch_ns: overhead.switch,
                cache_ns: overhead.cache,
                blocking_ns: resource.blocking,
                overrun_ns: overhead.overrun,
            },
            got: None,
        }
    }
}

/// The longest time in which a client that wants service gets none, with a blocking of `blocking` and
/// slices overdrawn by up to `overrun`: a slice at once, the next one at its last moment, and as many
/// slices gone as what is in the way is long.
#[must_use]
pub fn blackout(contract: &Contract, blocking: u64, overrun: u64) -> Option<u64> {
    let (period, slice, deadline) = (contract.period(), contract.slice(), contract.deadline());
    let late = blocking.saturating_add(overrun);
    let (slices, rest) = (late.checked_div(slice)?, late.checked_rem(slice)?);
    let alone = period.saturating_add(deadline).saturating_sub(slice.saturating_mul(2));
    Some(alone.saturating_add(slices.saturating_mul(period)).saturating_add(rest))
}

/// What a miss and an excuse are, for all resources.
const WORDS: &str = "\
A miss: a slice that was promised from a wake-up or a refill on, was wanted until its deadline and was
not given by then. On a disk or a link also a request or packet that was begun out of a promised slice
and ended after its deadline. A slice is missed at most once.
An excuse: the machine itself stood still between the promise and the deadline, for long enough to have
caused the lateness. Such a slice counts as excused, not as missed.
";

impl fmt::Display for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} of memory are reserved\n", self.tenant, Mebibytes(self.memory))?;
        for part in &self.parts {
            writeln!(f, "{part}")?;
        }
        write!(f, "{WORDS}")
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, part, contract, .. } = self;
        let ContractReport { period_ns, slice_ns, deadline_ns, extra } = *contract;
        let [period, slice, deadline] = [period_ns, slice_ns, deadline_ns].map(Time);
        if slice_ns == 0 {
            writeln!(
                f,
                "{resource}, {part}: nothing is promised; it lives on slack, weight {extra}"
            )?;
            return self.fmt_got(f);
        }
        let share = Percent(self.reserved);
        writeln!(f, "{resource}, {part}: {slice} in every {period} by {deadline} ({share})")?;
        writeln!(
            f,
            "    from       its wake-up: {slice} within {deadline} of it, if {period} have passed"
        )?;
        writeln!(
            f,
            "               since the last slice; while it wants more, again every {period}"
        )?;
        if let Some(blackout) = self.blackout_ns {
            writeln!(
                f,
                "    at worst   {} without any service while it wants some",
                Time(blackout)
            )?;
        }
        let AdmittedOverhead { switch_ns, cache_ns, blocking_ns, overrun_ns } = self.admitted;
        let [switch, cache, blocking, overrun] =
            [switch_ns, cache_ns, blocking_ns, overrun_ns].map(Time);
        writeln!(
            f,
            "    admitted   2 x ({switch} + {cache}) for the switches of a slice, {blocking} that others \
             may\n               have under way, {overrun} by which a slice may be overdrawn"
        )?;
        match extra {
            0 => {}
            weight => writeln!(f, "    beyond it  slack, with weight {weight}")?,
        }
        self.fmt_got(f)
    }
}

impl Promise {
    fn fmt_got(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(got) = &self.got else { return Ok(()) };
        let Got { guaranteed_ns, extra_ns, misses, excused, kept, because } = got;
        let whole = |nanos: &u64| Time(nanos / 1_000_000 * 1_000_000);
        let (guaranteed, extra) = (whole(guaranteed_ns), whole(extra_ns));
        writeln!(
            f,
            "    so far     {misses} missed, {excused} excused; {guaranteed} of it, {extra} of slack"
        )?;
        match kept {
            true => writeln!(f, "    kept       yes"),
            false => writeln!(f, "    kept       NO: {because}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{check, parse};

    #[test]
    fn the_longest_blackout_is_what_the_reference_says_also_for_short_slices() {
        let blackout = |period, slice, deadline, blocking, overrun| {
            let contract = Contract::new(period, slice, deadline, None).expect("a contract");
            blackout(&contract, blocking, overrun)
        };
        // p + D - 2s without units, plus B + e where a slice is longer than that.
        assert_eq!(blackout(20_000, 3_000, 20_000, 0, 0), Some(34_000));
        assert_eq!(blackout(20_000, 3_000, 4_000, 1_000, 1_000), Some(20_000));
        // A slice of 100 and 8000 in the way: 80 slices are gone.
        assert_eq!(blackout(100_000, 100, 10_000, 4_000, 4_050), Some(109_800 + 80 * 100_000 + 50));
        let best_effort = Contract::new(10_000, 0, 10_000, moirai_scheduler::Weight::new(1));
        assert_eq!(super::blackout(&best_effort.expect("a contract"), 1, 1), None);
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
}
