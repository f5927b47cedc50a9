//! How long the units of a disk really take, lately: what a declared `max_unit` is held against.
//!
//! The measure of a kind of unit is the time that all but one in a thousand of the last minute
//! stayed within, and all but one in any case: a single outlier says nothing about the next minute.
//! Units that overlap a hiccup of the machine are left out and counted apart.

use moirai_scheduler::{Amount, Moment, Span};

/// The window is so many steps of this length; the oldest step is forgotten as a whole.
const STEP: Span = Span::from_secs(5);
const STEPS: usize = 12;
/// One in so many may take longer.
const ONE_IN: u64 = 1000;

/// Times are told apart by their leading bits: so many of them after the first one.
const FINE: u32 = 3;
/// Shorter times than this all count as it.
const SHORTEST: u64 = 1 << 10;
/// Leading bits from [`SHORTEST`] to a minute.
const BUCKETS: usize = (26 << FINE) as usize;

/// The last minute of one kind of unit.
#[derive(Clone, Debug)]
pub(crate) struct Maxima {
    steps: Vec<Step>,
    /// Which step is the current one, counted from the beginning of time.
    current: u64,
}

#[derive(Clone, Debug)]
struct Step {
    counts: Box<[u32; BUCKETS]>,
    longest: Amount,
}

impl Step {
    fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), longest: Amount::ZERO }
    }
}

/// The place of a time among the buckets.
fn bucket(time: Amount) -> usize {
    let time = time.as_nanos().max(SHORTEST);
    let octave = time.ilog2();
    let fine = time >> (octave - FINE) & ((1 << FINE) - 1);
    let place = u64::from(octave - SHORTEST.ilog2()) << FINE | fine;
    usize::try_from(place).map_or(BUCKETS - 1, |place| place.min(BUCKETS - 1))
}

/// The longest time of a bucket.
fn longest_of(place: usize) -> Amount {
    let next = place as u64 + 1;
    let (octave, fine) = (next >> FINE, next & ((1 << FINE) - 1));
    Amount::from_nanos(((SHORTEST << octave) + (fine << octave) * (SHORTEST >> FINE)) - 1)
}

impl Default for Maxima {
    fn default() -> Self {
        Self { steps: vec![Step::new(); STEPS], current: 0 }
    }
}

impl Maxima {
    /// A unit took so long.
    pub(crate) fn note(&mut self, took: Amount, now: Moment) {
        self.forget(now);
        let place = usize::try_from(self.current).unwrap_or(0) % STEPS;
        let Some(step) = self.steps.get_mut(place) else { return };
        if let Some(count) = step.counts.get_mut(bucket(took)) {
            *count = count.saturating_add(1);
        }
        step.longest = step.longest.max(took);
    }

    /// The measure, in nanoseconds; zero if there was at most one unit. Rounded up to an eighth of
    /// a power of two, but never more than the longest time that was seen.
    pub(crate) fn measure(&mut self, now: Moment) -> Amount {
        self.forget(now);
        let sum = |place: usize| -> u64 {
            self.steps
                .iter()
                .map(|step| u64::from(step.counts.get(place).copied().unwrap_or(0)))
                .sum()
        };
        let counts: Vec<u64> = (0..BUCKETS).map(sum).collect();
        let mut over = counts.iter().sum::<u64>() / ONE_IN + 1;
        for (place, count) in counts.iter().enumerate().rev() {
            if *count > over {
                let longest =
                    self.steps.iter().map(|step| step.longest).max().unwrap_or(Amount::ZERO);
                return longest_of(place).min(longest);
            }
            over -= count;
        }
        Amount::ZERO
    }

    /// Empties the steps that have become too old.
    fn forget(&mut self, now: Moment) {
        let step = now.since(Moment::ZERO) / STEP;
        let passed = step.saturating_sub(self.current).min(STEPS as u64);
        self.current = self.current.max(step);
        for back in 0..passed {
            let place = usize::try_from(self.current - back).unwrap_or(0) % STEPS;
            if let Some(step) = self.steps.get_mut(place) {
                *step = Step::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_time_lies_in_its_bucket_and_above_the_one_before(time in 0_u64..60_000_000_000) {
            let time = Amount::from_nanos(time);
            let place = bucket(time);
            prop_assert!(time <= longest_of(place), "{} {}", place, longest_of(place));
            prop_assert!(place == 0 || time > longest_of(place - 1));
        }
    }

    #[test]
    fn one_outlier_is_no_measure_and_two_of_them_are() {
        let mut maxima = Maxima::default();
        for _ in 0..500 {
            maxima.note(Amount::from_micros(100), Moment::ZERO);
        }
        maxima.note(Amount::from_millis(9), Moment::from_nanos(1));
        let usual = maxima.measure(Moment::from_nanos(1));
        assert!((100_000..115_000).contains(&usual.as_nanos()), "{usual}");
        maxima.note(Amount::from_millis(8), Moment::from_nanos(2));
        let measure = maxima.measure(Moment::from_nanos(2));
        assert!((8_000_000..=9_000_000).contains(&measure.as_nanos()), "{measure}");
    }

    #[test]
    fn one_in_a_thousand_may_be_longer() {
        let mut maxima = Maxima::default();
        (0..4_000).for_each(|_| maxima.note(Amount::from_micros(100), Moment::ZERO));
        (0..4).for_each(|_| maxima.note(Amount::from_millis(50), Moment::ZERO));
        assert!(maxima.measure(Moment::ZERO) < Amount::from_micros(115));
        (0..2).for_each(|_| maxima.note(Amount::from_millis(50), Moment::ZERO));
        assert_eq!(maxima.measure(Moment::ZERO), Amount::from_millis(50));
    }

    #[test]
    fn what_was_slow_a_minute_ago_is_forgotten() {
        let mut maxima = Maxima::default();
        assert_eq!(maxima.measure(Moment::ZERO), Amount::ZERO);
        (0..2).for_each(|_| maxima.note(Amount::from_millis(5), Moment::ZERO + 3 * STEP));
        (0..2).for_each(|_| maxima.note(Amount::from_millis(1), Moment::ZERO + 14 * STEP));
        assert_eq!(maxima.measure(Moment::ZERO + 14 * STEP), Amount::from_millis(5));
        assert_eq!(
            maxima.measure(Moment::ZERO + 15 * STEP),
            Amount::from_millis(1),
            "and never more than was seen"
        );
        assert_eq!(maxima.measure(Moment::ZERO + 1000 * STEP), Amount::ZERO);
    }
}
