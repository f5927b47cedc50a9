//! How long before the end of a slice its gate has to be closed.
//!
//! A timer takes its way to the dispatcher, and a vCPU its way out of KVM_RUN to the gate. Both are
//! CPU time of the vCPU, so a gate that is closed when nothing is left of the slice ends it late,
//! and the next slice lacks what this one had too much. The dispatcher learns from each slice how
//! much too late it was, and closes the gate by that much sooner. What is then left of a slice is
//! given up, so what it has learned goes down at once and up slowly: a slice may be a few
//! microseconds too long more often than too short.

use moirai_scheduler::Nanos;

/// No way is taken to be longer, whatever a tenant does on it. Less than what counts as a miss.
const LONGEST: Nanos = 50_000;

/// What is known of the way of one vCPU to its gate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    lead: Nanos,
    /// While the gate is closed: what is left of the slice; negative: it overran.
    left: Option<i64>,
}

impl Way {
    /// How much may be left of a slice of this length when the gate is closed.
    pub(super) fn lead(self, slice: Nanos) -> Nanos {
        self.lead.min(slice / 8)
    }

    /// The gate is closed with so much left of the slice.
    pub(super) fn close(&mut self, left: i64) {
        self.left = Some(left);
    }

    /// It ran since the last round.
    pub(super) fn ran(&mut self, used: Nanos) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub_unsigned(used);
        }
    }

    /// The gate is opened again: the slice has had its end.
    pub(super) fn open(&mut self) {
        let Some(left) = self.left.take() else { return };
        let needed = i64::try_from(self.lead).unwrap_or(i64::MAX).saturating_sub(left);
        let needed = Nanos::try_from(needed).unwrap_or(0).min(LONGEST);
        self.lead = needed.min(self.lead + needed.saturating_sub(self.lead) / 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Nanos = 2_000_000;

    /// Slices that end by a round which comes `late` after the lead, on a way that takes `takes`.
    fn learn(way: &mut Way, slices: usize, late: i64, takes: Nanos) -> i64 {
        let mut left = 0;
        for _ in 0..slices {
            left = i64::try_from(way.lead(SLICE)).unwrap() - late;
            way.close(left);
            way.ran(takes);
            left -= i64::try_from(takes).unwrap();
            way.open();
        }
        left
    }

    #[test]
    fn a_way_that_is_always_the_same_is_met_within_a_few_nanoseconds() {
        let mut way = Way::default();
        assert_eq!(learn(&mut way, 1, 8_000, 22_000), -30_000);
        let left = learn(&mut way, 100, 8_000, 22_000);
        assert!((-8..=0).contains(&left), "{left}");
    }

    #[test]
    fn one_long_way_costs_the_next_slice_an_eighth_of_it_and_a_short_one_counts_at_once() {
        let mut way = Way::default();
        learn(&mut way, 100, 0, 10_000);
        learn(&mut way, 1, 0, 42_000);
        let left = learn(&mut way, 1, 0, 10_000);
        assert!((3_900..=4_000).contains(&left), "{left}");
        assert_eq!(learn(&mut way, 1, 0, 10_000), 0);
    }

    #[test]
    fn a_tenant_that_ignores_its_gate_shortens_its_slices_by_less_than_a_miss() {
        let mut way = Way::default();
        learn(&mut way, 1_000, 0, 5_000_000);
        assert!(way.lead(SLICE) <= LONGEST, "{}", way.lead(SLICE));
        assert_eq!(way.lead(80_000), 10_000, "a short slice keeps most of itself");
    }
}
