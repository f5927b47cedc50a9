//! The form in which refusals and resources are reported everywhere: in plans, over the wire, to
//! people.

use std::fmt;

use moirai_scheduler::Contract;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::quantities::{MEMORY, Quantity};
use crate::holder::Holder;
use crate::units::Time;

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

/// A time by which more is due than can be supplied, if all slices are released at once. All in
/// nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Time since the slices were released.
    pub time_ns: u64,
    /// Service due by then, with all overheads.
    pub demand_ns: u64,
    /// Service that the resource promises by then at most.
    pub supply_ns: u64,
    /// The slices in the demand.
    pub due: Vec<Due>,
    /// The rest of the demand: switches, blocking, overdrawn units.
    pub overhead_ns: u64,
}

/// What one contract adds to the demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Due {
    /// Whose contract.
    #[schema(value_type = String)]
    pub tenant: Holder,
    /// How many of its slices are due.
    pub slices: u64,
    /// Length of each, in nanoseconds.
    pub slice_ns: u64,
    /// All of them together, in nanoseconds.
    pub total_ns: u64,
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

impl fmt::Display for RefusalReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, requested, available, nearest, later, reason, .. } = self;
        let (requested, available) =
            (Quantity(resource, *requested), Quantity(resource, *available));
        write!(f, "{resource}: {requested} asked, {available} not reserved; {reason}; ")?;
        match (nearest, &self.write) {
            (Some(fit), Some(keys)) => write!(f, "{fit} would fit: write {keys}"),
            (Some(fit), None) => write!(f, "{fit} would fit"),
            (None, Some(keys)) => write!(f, "write {keys}"),
            (None, None) if resource == MEMORY => write!(f, "no memory is left"),
            (None, None) => write!(f, "no contract of this kind would fit"),
        }?;
        match later.filter(|later| Some(*later) != *nearest) {
            Some(later) => write!(f, "; the whole slice would fit as {later}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, supply) = (Time(self.time_ns), Time(self.supply_ns));
        writeln!(f, "        {time} after all slices are released at once")?;
        for due in &self.due {
            let (slice, total) = (Time(due.slice_ns), Time(due.total_ns).to_string());
            let times = format!("{} x {slice}", due.slices);
            writeln!(f, "        {:<24} {times:>24} {total:>16}", due.tenant)?;
        }
        let line = |f: &mut fmt::Formatter<'_>, what: &str, nanos: u64| {
            writeln!(f, "        {what:<49} {:>16}", Time(nanos).to_string())
        };
        if self.overhead_ns > 0 {
            line(f, "switches, blocking, overdrawn units", self.overhead_ns)?;
        }
        line(f, "demand", self.demand_ns)?;
        writeln!(f, "        {:<49} {:>16}", "supply", supply.to_string())
    }
}
