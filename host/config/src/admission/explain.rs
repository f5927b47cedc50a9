//! Why a contract does not fit, in numbers and as a picture: what is due by when, and what can be
//! supplied. Owns nothing; `moirai plan --explain` and `--svg` show it.

use moirai_scheduler::admission::Violation;
use moirai_scheduler::admission::demand::{Point, Set};
use moirai_scheduler::{Amount, Contract, Span};

use super::ledger::{ContractRefusal, Holding, Ledger};
use super::report::{Due, Explanation};
use crate::holder::Holder;

/// Most deadlines of a chart.
const POINTS_MAX: usize = 2_000;

/// Takes the demand of the refused claim of `tenant` apart.
pub(super) fn demand_of(tenant: &Holder, refusal: &ContractRefusal) -> Explanation {
    let Violation { time, demand, supply, .. } = refusal.refusal.violation;
    let own = (tenant.clone(), refusal.refusal.requested);
    let all = refusal.beside.iter().chain(std::iter::once(&own));
    let due: Vec<_> = all.filter_map(|(tenant, contract)| due(tenant, contract, time)).collect();
    let slices = due.iter().fold(0u64, |sum, due| sum.saturating_add(due.total_ns));
    Explanation {
        time_ns: time.as_nanos(),
        demand_ns: demand.as_nanos(),
        supply_ns: supply.as_nanos(),
        due,
        overhead_ns: demand.as_nanos().saturating_sub(slices),
    }
}

/// What a contract has due `time` after all slices are released at once.
fn due(tenant: &Holder, contract: &Contract, time: Span) -> Option<Due> {
    let rest = time.checked_sub(contract.deadline()).filter(|_| contract.slice() > Amount::ZERO)?;
    let slices = rest.checked_div(contract.period())?.saturating_add(1);
    Some(Due {
        tenant: tenant.clone(),
        slices,
        slice_ns: contract.slice().as_nanos(),
        total_ns: contract.slice().saturating_mul(slices).as_nanos(),
    })
}

/// What is due of one resource by when, and what can be supplied: to be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// The resource, and whether all of it is admitted.
    pub title: String,
    /// In the order of time.
    pub curve: Vec<Point>,
}

/// The charts of all resources on which something is promised or refused.
pub(super) fn charts(ledger: &Ledger, refused: &[(&Holder, &ContractRefusal)]) -> Vec<Chart> {
    ledger.holdings().filter_map(|holding| chart(&holding, refused)).collect()
}

/// The chart of one resource; `None` if nothing is promised or refused there.
fn chart(holding: &Holding<'_>, refused: &[(&Holder, &ContractRefusal)]) -> Option<Chart> {
    let name = holding.name;
    let first = refused.iter().find(|(_, refusal)| refusal.resource == name);
    let (title, contracts, violation) = match first {
        Some((tenant, refusal)) => {
            let beside = refusal.beside.iter().map(|(_, contract)| *contract);
            let contracts = beside.chain(std::iter::once(refusal.refusal.requested)).collect();
            let violation = Some(refusal.refusal.violation);
            (format!("{name}: with {tenant}, which is refused"), contracts, violation)
        }
        None => {
            let held: Vec<_> = holding.held.iter().map(|(_, contract)| *contract).collect();
            (format!("{name}: all that is admitted"), held, None)
        }
    };
    if contracts.iter().all(|contract| contract.slice().is_zero()) {
        return None;
    }
    let longest = contracts.iter().map(Contract::period).max().unwrap_or(Span::ZERO);
    let until = longest.saturating_mul(2).max(violation.map_or(Span::ZERO, |it| it.time));
    let mut curve = Set::new(&holding.resource, contracts).curve(until, POINTS_MAX);
    if let Some(Violation { time, demand, supply, .. }) = violation
        && curve.last().is_none_or(|last| last.time < time)
    {
        curve.push(Point { time, demand, supply });
    }
    Some(Chart { title, curve })
}
