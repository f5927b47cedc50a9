//! The stop latency of a vCPU: how long it still runs after the dispatcher wants it to stop.
//!
//! Two things take time: the dispatcher's timer is late, and the vCPU has to leave KVM_RUN to see
//! its gate. The vCPU runs during both. If the dispatcher closes the gate when the slice is used
//! up, the slice is too long by the stop latency, and the next slice is shorter by as much.
//!
//! So the dispatcher closes the gate earlier, by the *lead*. It learns the lead from every slice:
//! `needed = lead - left`, where `left` is what was left of the slice when the vCPU stopped
//! (negative: it overran). A smaller `needed` is taken at once, a larger one by an eighth of the
//! difference. What is left of a slice is given up, so the dispatcher prefers slices that are a few
//! microseconds too long.

use moirai_scheduler::Amount;

/// No stop latency is taken to be longer, whatever the tenant does meanwhile. Less than what counts
/// as a miss.
const LONGEST: Amount = Amount::from_micros(50);

/// What is known of the stop latency of one vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StopLatency {
    lead: Amount,
    /// While the gate is closed: what is left of the slice; negative: it overran.
    left: Option<i64>,
}

impl StopLatency {
    /// How much may be left of a slice of this length when the gate is closed.
    pub(super) fn lead(self, slice: Amount) -> Amount {
        self.lead.min(slice / 8)
    }

    /// The gate is closed with so much left of the slice.
    pub(super) fn close(&mut self, left: i64) {
        self.left = Some(left);
    }

    /// It ran since the last round.
    pub(super) fn ran(&mut self, used: Amount) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub_unsigned(used.as_nanos());
        }
    }

    /// The gate is opened again: the slice has had its end.
    pub(super) fn open(&mut self) {
        let Some(left) = self.left.take() else { return };
        let needed = self.lead.signed().saturating_sub(left);
        let needed = Amount::from_signed(needed).min(LONGEST);
        self.lead = needed.min(self.lead + needed.saturating_sub(self.lead) / 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Amount = Amount::from_millis(2);

    /// Slices that end by a round which comes `late` after the lead, and a stop latency of `takes`.
    fn learn(latency: &mut StopLatency, slices: usize, late: i64, takes: Amount) -> i64 {
        let mut left = 0;
        for _ in 0..slices {
            left = latency.lead(SLICE).signed() - late;
            latency.close(left);
            latency.ran(takes);
            left -= takes.signed();
            latency.open();
        }
        left
    }

    #[test]
    fn a_stop_latency_that_is_always_the_same_is_met_within_a_few_nanoseconds() {
        let mut latency = StopLatency::default();
        assert_eq!(learn(&mut latency, 1, 8_000, Amount::from_micros(22)), -30_000);
        let left = learn(&mut latency, 100, 8_000, Amount::from_micros(22));
        assert!((-8..=0).contains(&left), "{left}");
    }

    #[test]
    fn one_long_stop_latency_costs_the_next_slice_an_eighth_of_it_and_a_short_one_counts_at_once() {
        let mut latency = StopLatency::default();
        learn(&mut latency, 100, 0, Amount::from_micros(10));
        learn(&mut latency, 1, 0, Amount::from_micros(42));
        let left = learn(&mut latency, 1, 0, Amount::from_micros(10));
        assert!((3_900..=4_000).contains(&left), "{left}");
        assert_eq!(learn(&mut latency, 1, 0, Amount::from_micros(10)), 0);
    }

    #[test]
    fn a_tenant_that_ignores_its_gate_shortens_its_slices_by_less_than_a_miss() {
        let mut latency = StopLatency::default();
        learn(&mut latency, 1_000, 0, Amount::from_millis(5));
        assert!(latency.lead(SLICE) <= LONGEST, "{}", latency.lead(SLICE));
        assert_eq!(
            latency.lead(Amount::from_micros(80)),
            Amount::from_micros(10),
            "a short slice keeps most of itself"
        );
    }
}
