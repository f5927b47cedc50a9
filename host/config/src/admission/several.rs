//! The nearest contract of a tenant with several virtual CPUs. Each virtual CPU has a part of the
//! tenant's slice on its core, so a contract fits only where all these cores have room for it.

use moirai_scheduler::{Amount, Contract, Span};

use super::report::ContractReport;

/// Slices below this are not worth offering.
const SLICE_MIN: Amount = Amount::from_micros(1);

/// The contract of each virtual CPU that is nearest to `asked` and `fits` all of them: the largest
/// slice; if there is none, the shortest deadline, else the shortest period, that works.
pub(super) fn nearest(asked: &Contract, fits: impl Fn(&Contract) -> bool) -> Option<Contract> {
    let (period, slice, deadline) = (asked.period(), asked.slice(), asked.deadline());
    let make = |period, slice, deadline| {
        Contract::new(period, slice, deadline, asked.extra()).ok().filter(|it| fits(it))
    };
    let smaller = |cut| make(period, slice.checked_sub(Amount::from_nanos(cut))?, deadline);
    let later = |deadline| make(period, slice, Span::from_nanos(deadline));
    let longer = |longer| {
        let longer = Span::from_nanos(longer);
        make(longer, slice, if deadline == period { longer } else { deadline })
    };
    let most = slice.saturating_sub(SLICE_MIN.min(slice));
    least(1, most.as_nanos(), smaller)
        .or_else(|| least(deadline.as_nanos(), period.as_nanos(), later))
        .or_else(|| least(period.as_nanos(), Contract::PERIOD_MAX.as_nanos(), longer))
}

/// The contract of the least number for which there is one, if there is one for `high`: the larger
/// the number, the less is asked for.
fn least(mut low: u64, mut high: u64, make: impl Fn(u64) -> Option<Contract>) -> Option<Contract> {
    let mut best = (low <= high).then(|| make(high)).flatten()?;
    while low < high {
        let middle = low.midpoint(high);
        match make(middle) {
            Some(contract) => (best, high) = (contract, middle),
            None => low = middle.saturating_add(1),
        }
    }
    Some(best)
}

/// What the tenant's table says if each of its `vcpus` virtual CPUs has `part`.
pub(super) fn of_tenant(part: &Contract, vcpus: u64) -> ContractReport {
    let part = ContractReport::of(part);
    ContractReport { slice_ns: part.slice_ns.saturating_mul(vcpus), ..part }
}
