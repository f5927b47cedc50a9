//! How well the contract of one device was kept, lately: misses, excuses, bytes.

use std::collections::VecDeque;

use moirai_scheduler::{Moment, Span};

use crate::snapshot::Excuse;

/// How many excuses are listed.
const LISTED: usize = 16;
/// A miss counts against a contract for this long.
const GRACE: Span = Span::from_secs(60);

/// Steps and length of the window in which bytes are counted.
const STEPS: usize = 10;
const STEP: Span = Span::from_secs(1);

/// What happened to the promises made to one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    excused: u64,
    excuses: VecDeque<Excuse>,
    /// The last miss without an excuse, and the worst one since the contract was kept.
    last_miss: Option<Moment>,
    worst: Span,
    bytes: Delivered,
}

impl Record {
    /// A miss that was the machine's.
    pub(crate) fn excuse(&mut self, excuse: Excuse) {
        self.excused += 1;
        if self.excuses.len() == LISTED {
            self.excuses.pop_front();
        }
        self.excuses.push_back(excuse);
    }

    /// A miss that was ours, found at `now`.
    pub(crate) fn miss(&mut self, late: Span, now: Moment) {
        if self.recent_miss(now).is_none() {
            self.worst = Span::ZERO;
        }
        self.last_miss = Some(now);
        self.worst = self.worst.max(late);
    }

    /// By how much the worst of the last misses was late, if there was one within a minute.
    pub(crate) fn recent_miss(&self, now: Moment) -> Option<Span> {
        let last = self.last_miss?;
        (now.since(last) < GRACE).then_some(self.worst)
    }

    /// Misses that were excused.
    pub(crate) fn excused(&self) -> u64 {
        self.excused
    }

    /// The last of them.
    pub(crate) fn excuses(&self) -> Vec<Excuse> {
        self.excuses.iter().copied().collect()
    }

    /// So many bytes were delivered; `exhausted`: the slice was used up, and more was wanted.
    pub(crate) fn deliver(&mut self, bytes: u64, exhausted: bool, now: Moment) {
        self.bytes.note(bytes, exhausted, now);
    }

    /// Bytes per second in the last ten seconds, counting those in which the device wanted more
    /// than its slice; `None` if there were less than two of them.
    pub(crate) fn rate_when_exhausted(&self, now: Moment) -> Option<u64> {
        self.bytes.rate(now)
    }
}

/// Bytes second by second.
#[derive(Clone, Debug, Default)]
struct Delivered {
    /// Number of the second, bytes, whether the slice was used up in it.
    steps: [(u64, u64, bool); STEPS],
}

impl Delivered {
    fn note(&mut self, bytes: u64, exhausted: bool, now: Moment) {
        let second = now.since(Moment::ZERO) / STEP;
        let place = usize::try_from(second).unwrap_or(0) % STEPS;
        let Some(step) = self.steps.get_mut(place) else { return };
        if step.0 != second {
            *step = (second, 0, false);
        }
        step.1 = step.1.saturating_add(bytes);
        step.2 |= exhausted;
    }

    fn rate(&self, now: Moment) -> Option<u64> {
        let second = now.since(Moment::ZERO) / STEP;
        // The current second is not over.
        let whole = self.steps.iter().filter(|(number, _, exhausted)| {
            *exhausted && *number < second && number + (STEPS as u64) > second
        });
        let (count, bytes) = whole.fold((0, 0_u64), |(count, sum), (_, bytes, _)| {
            (count + 1, sum.saturating_add(*bytes))
        });
        (count >= 2).then(|| bytes / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_excuses_stays_short_and_their_number_does_not() {
        let mut record = Record::default();
        (0..100).for_each(|at_ns| record.excuse(Excuse { at_ns, late_ns: 1, hiccup_ns: 1 }));
        assert_eq!(record.excused(), 100);
        let listed: Vec<_> = record.excuses().iter().map(|excuse| excuse.at_ns).collect();
        assert_eq!(listed, (84..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_miss_counts_for_a_minute() {
        let at = Moment::from_nanos;
        let mut record = Record::default();
        assert_eq!(record.recent_miss(Moment::from_nanos(5)), None);
        record.miss(Span::from_nanos(30), Moment::from_nanos(5));
        record.miss(Span::from_nanos(20), Moment::from_nanos(6));
        assert_eq!(record.recent_miss(at(5) + GRACE), Some(Span::from_nanos(30)));
        assert_eq!(record.recent_miss(at(6) + GRACE), None);
        record.miss(Span::from_nanos(10), Moment::ZERO + 2 * GRACE);
        assert_eq!(record.recent_miss(Moment::ZERO + 2 * GRACE), Some(Span::from_nanos(10)));
    }

    #[test]
    fn bytes_are_held_against_a_rate_only_where_more_was_wanted() {
        let mut record = Record::default();
        for second in 100..105 {
            record.deliver(1_000, second != 102, Moment::from_secs(second));
            record.deliver(2_000, false, Moment::from_secs(second) + STEP / 2);
        }
        assert_eq!(record.rate_when_exhausted(Moment::from_secs(101)), None);
        assert_eq!(record.rate_when_exhausted(Moment::from_secs(105)), Some(3_000));
        assert_eq!(
            record.rate_when_exhausted(Moment::from_secs(113)),
            None,
            "one second is no rate"
        );
    }
}
