//! Which misses are the machine's: a promise that was broken because the machine stood still is
//! counted apart from one that was broken while it ran.
//!
//! An *outage* is a time in which the resource could not serve although nothing of ours kept it
//! from it. It excuses only what it can have caused:
//!
//! 1. In an outage of length `h` the resource falls `h` behind. It catches up with what the
//!    contracts of the *others* leave: it takes `h / (1 - U)` until no trace of the outage is left,
//!    and nobody is later than that because of it.
//! 2. So a miss is excused if it is late by at most the sum of `h / (1 - U)` over the outages of
//!    which there was a trace between its promise and its end.
//!
//! `1 - U` counts as at least [`LEAST_SPARE_PPM`], so that a hiccup on a resource that is promised
//! to the last nanosecond does not excuse everything that comes after it.

use alloc::vec::Vec;

use crate::admission::WHOLE_PPM;
use crate::policy::Miss;
use crate::time::{Moment, Span};

/// What the others leave of a resource, in parts per million, is taken to be at least this.
pub const LEAST_SPARE_PPM: u32 = 50_000;

/// A time in which the machine did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outage {
    /// First nanosecond.
    pub begin: Moment,
    /// End, not included.
    pub end: Moment,
}

impl Outage {
    fn length(self) -> Span {
        self.end.since(self.begin)
    }
}

/// How long the outages were, in nanoseconds, that excuse a miss; `None` if they do not.
/// `spare_ppm` is what the contracts of the others leave of the resource; no two `outages` overlap
/// ([`union`]).
#[must_use]
pub fn excuse(miss: &Miss, outages: &[Outage], spare_ppm: u32) -> Option<Span> {
    let spare = u128::from(spare_ppm.clamp(LEAST_SPARE_PPM, WHOLE_PPM));
    let recovery = |length: Span| {
        let scaled = length.wide().saturating_mul(u128::from(WHOLE_PPM));
        Span::from_wide(scaled.checked_div(spare).unwrap_or(u128::MAX))
    };
    let end = miss.deadline.saturating_add(miss.late);
    let traced = outages.iter().filter(|outage| {
        let trace = outage.end.saturating_add(recovery(outage.length()));
        outage.begin < end && miss.since < trace
    });
    let length = traced.fold(Span::ZERO, |sum: Span, outage| sum.saturating_add(outage.length()));
    (length > Span::ZERO && miss.late <= recovery(length)).then_some(length)
}

/// The same outages in order, those that overlap made one.
#[must_use]
pub fn union(mut outages: Vec<Outage>) -> Vec<Outage> {
    outages.retain(|outage| outage.begin < outage.end);
    outages.sort_unstable();
    outages.dedup_by(|next, last| {
        let touches = next.begin <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    outages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ClientId;

    const MS: Span = Span::from_millis(1);

    fn miss(since: u64, deadline: u64, late: u64) -> Miss {
        let (since, deadline) = (Moment::from_millis(since), Moment::from_millis(deadline));
        Miss { client: ClientId(1), since, deadline, late: late * MS }
    }

    fn outage(begin: u64, end: u64) -> Outage {
        Outage { begin: Moment::from_millis(begin), end: Moment::from_millis(end) }
    }

    #[test]
    fn an_outage_excuses_what_it_can_have_caused_and_no_more() {
        let outages = [outage(105, 110)];
        let half = WHOLE_PPM / 2;
        assert_eq!(excuse(&miss(100, 120, 10), &outages, half), Some(5 * MS), "5 ms at half speed");
        assert_eq!(excuse(&miss(100, 120, 11), &outages, half), None);
        assert_eq!(excuse(&miss(100, 120, 5), &outages, WHOLE_PPM), Some(5 * MS));
        assert_eq!(excuse(&miss(100, 120, 6), &outages, WHOLE_PPM), None);
        assert_eq!(excuse(&miss(100, 120, 101), &outages, 0), None, "not everything after it");
    }

    #[test]
    fn an_outage_before_the_promise_counts_while_there_is_a_trace_of_it() {
        let outages = [outage(90, 95)];
        assert!(excuse(&miss(104, 120, 1), &outages, WHOLE_PPM / 2).is_some());
        assert!(excuse(&miss(105, 120, 1), &outages, WHOLE_PPM / 2).is_none());
        assert!(excuse(&miss(50, 89, 1), &outages, WHOLE_PPM).is_none(), "after the miss");
        assert!(excuse(&miss(50, 89, 2), &outages, WHOLE_PPM).is_some());
    }

    #[test]
    fn outages_that_overlap_are_one_and_empty_ones_none() {
        let mixed = [outage(5, 9), outage(1, 3), outage(2, 4), outage(7, 7), outage(9, 10)];
        assert_eq!(union(mixed.to_vec()), [outage(1, 4), outage(5, 10)]);
    }
}
