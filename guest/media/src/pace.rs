//! When which byte of a film is due.
//!
//! Between two clock references the bytes pass at an even rate (ISO/IEC 13818-1, section 2.4.2.3),
//! so the time of a byte is interpolated between the references around it; behind the last one the
//! rate of the last second is kept. Where the clock jumps (a film starts again, was cut, or
//! declares it), time goes on at that rate too, so the time of the stream never jumps.

use crate::TICKS_PER_SECOND;
use crate::ts::PCR_WRAP;
use alloc::collections::VecDeque;

/// A step that is longer than the bytes make likely, by more than this, is a jump.
const JUMP_MIN: u64 = TICKS_PER_SECOND;
/// Before there is a rate, a longer step than this is a jump.
const FIRST_STEP_MAX: u64 = 10 * TICKS_PER_SECOND;
/// The rate is the average of about the last so many ticks.
const RATE_TICKS: u64 = TICKS_PER_SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    position: u64,
    ticks: u64,
}

/// An even rate: `ticks` for `bytes`.
#[derive(Clone, Copy, Debug)]
struct Rate {
    ticks: u64,
    bytes: u64,
}

impl Rate {
    fn ticks_for(self, bytes: u64) -> u64 {
        let ticks = u128::from(bytes) * u128::from(self.ticks) / u128::from(self.bytes.max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// The time line of a stream. Positions are bytes from the start of the stream, which may be one
/// film or the same one again and again; time is in ticks since the first clock reference.
#[derive(Debug, Default)]
pub struct Timeline {
    points: VecDeque<Point>,
    last_pcr: Option<u64>,
    rate: Option<Rate>,
    /// Jumps of the clock that the film declared.
    pub declared_jumps: u64,
    /// Jumps that it did not declare.
    pub undeclared_jumps: u64,
}

impl Timeline {
    /// Adds the next clock reference; positions grow. `declared`: the film says that the clock may
    /// have jumped since the last one. A reference that is repeated says nothing new.
    pub fn add(&mut self, position: u64, pcr: u64, declared: bool) {
        let Some(&last) = self.points.back() else {
            self.points.push_back(Point { position, ticks: 0 });
            self.last_pcr = Some(pcr);
            return;
        };
        if position <= last.position {
            return;
        }
        let bytes = position - last.position;
        let step = self.last_pcr.map(|last_pcr| (pcr + PCR_WRAP - last_pcr) % PCR_WRAP);
        if step == Some(0) && !declared {
            return;
        }
        let step = match step {
            Some(ticks) if !declared && self.is_likely(ticks, bytes) => {
                self.average(ticks, bytes);
                ticks
            }
            _ => {
                self.declared_jumps += u64::from(declared && step.is_some());
                self.undeclared_jumps += u64::from(!declared && step.is_some());
                self.rate.map_or(0, |rate| rate.ticks_for(bytes))
            }
        };
        self.points.push_back(Point { position, ticks: last.ticks.saturating_add(step) });
        self.last_pcr = Some(pcr);
    }

    /// May the clock have gone on by `ticks` while `bytes` passed? References may be rare.
    fn is_likely(&self, ticks: u64, bytes: u64) -> bool {
        let expected = self.rate.map(|rate| rate.ticks_for(bytes));
        let most = expected.map_or(FIRST_STEP_MAX, |ticks| ticks.saturating_add(JUMP_MIN));
        ticks <= most.min(PCR_WRAP / 2)
    }

    fn average(&mut self, ticks: u64, bytes: u64) {
        let mut rate = self.rate.unwrap_or(Rate { ticks: 0, bytes: 0 });
        if rate.ticks > RATE_TICKS && rate.bytes > 1 {
            rate = Rate { ticks: rate.ticks / 2, bytes: rate.bytes / 2 };
        }
        rate.ticks = rate.ticks.saturating_add(ticks);
        rate.bytes = rate.bytes.saturating_add(bytes);
        self.rate = Some(rate);
    }

    /// The clock references that follow are of another film, or of the same from its start.
    pub fn jump(&mut self) {
        self.last_pcr = None;
    }

    /// Is there a rate, that is: have two references of one clock been seen?
    #[must_use]
    pub fn has_rate(&self) -> bool {
        self.rate.is_some()
    }

    /// When the byte at `position` is due. `None`: not known before more references are added, or
    /// ever if `ended` and there were not two. What lies before the first reference is due with it.
    ///
    /// Positions must not shrink from call to call: references behind are forgotten.
    pub fn due(&mut self, position: u64, ended: bool) -> Option<u64> {
        while self.points.get(1).is_some_and(|second| second.position <= position) {
            self.points.pop_front();
        }
        let first = *self.points.front()?;
        if position <= first.position {
            return Some(first.ticks);
        }
        let beyond = position - first.position;
        match self.points.get(1) {
            Some(second) => {
                let ticks = second.ticks - first.ticks;
                let rate = Rate { ticks, bytes: second.position - first.position };
                Some(first.ticks.saturating_add(rate.ticks_for(beyond)))
            }
            None if ended => Some(first.ticks.saturating_add(self.rate?.ticks_for(beyond))),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_between_references_pass_at_an_even_rate() {
        let mut line = Timeline::default();
        line.add(1000, 500, false);
        line.add(2000, 27_500, false);
        assert_eq!(line.due(0, false), Some(0));
        assert_eq!(line.due(1000, false), Some(0));
        assert_eq!(line.due(1500, false), Some(13_500));
        assert_eq!(line.due(2000, false), Some(27_000));
    }

    #[test]
    fn behind_the_last_reference_the_rate_is_kept_only_at_the_end() {
        let mut line = Timeline::default();
        line.add(0, 0, false);
        line.add(1000, 1000, false);
        assert_eq!(line.due(1500, false), None);
        assert_eq!(line.due(1500, true), Some(1500));
    }

    #[test]
    fn clock_that_wraps_goes_on() {
        let mut line = Timeline::default();
        line.add(0, PCR_WRAP - 100, false);
        line.add(1000, 900, false);
        assert_eq!(line.due(1000, false), Some(1000));
    }

    #[test]
    fn time_does_not_jump_where_the_clock_does() {
        let mut line = Timeline::default();
        line.add(0, 50_000_000, false);
        line.add(1000, 50_027_000, false);
        line.jump();
        line.add(2000, 0, false);
        line.add(3000, 27_000, false);
        assert_eq!(line.due(2000, false), Some(54_000));
        assert_eq!(line.due(2500, false), Some(67_500));
        // A film that was cut: the clock goes back without anybody saying so.
        line.add(4000, 1_000, false);
        assert_eq!(line.due(4000, true), Some(108_000));
    }

    /// References every 40 ms and 1000 bytes, at the second with `jump` from there on.
    fn with_jump(jump: i64, declared: bool) -> Timeline {
        let mut line = Timeline::default();
        for step in 0..50u64 {
            let jumped = if step < 25 { 0 } else { jump };
            let pcr = (PCR_WRAP + step * 1_080_000).checked_add_signed(jumped).unwrap_or(0);
            line.add(step * 1000, pcr % PCR_WRAP, declared && step == 25);
        }
        line
    }

    #[test]
    fn jump_costs_no_time_whether_the_film_declares_it_or_not() {
        let second = 27_000_000;
        for jump in [5 * second, 3600 * second, -50 * second, -second / 50, 2 * second] {
            for declared in [true, false] {
                let mut line = with_jump(jump, declared);
                let found = (line.declared_jumps, line.undeclared_jumps);
                let expected = if declared || jump == -second / 50 { found } else { (0, 1) };
                assert_eq!(found, expected, "{jump}");
                assert!(!declared || found == (1, 0), "{jump}");
                let end = line.due(49_000, true).unwrap_or(0);
                assert!(end.abs_diff(49 * 1_080_000) <= 540_000, "{jump}: {end}");
            }
        }
    }

    #[test]
    fn declared_jump_of_less_than_a_second_costs_no_time() {
        assert_eq!(with_jump(13_500_000, true).due(49_000, true), Some(49 * 1_080_000));
        let mut undeclared = with_jump(13_500_000, false);
        assert_eq!(undeclared.due(49_000, true), Some(49 * 1_080_000 + 13_500_000));
        assert_eq!(undeclared.undeclared_jumps, 0);
    }

    #[test]
    fn rare_references_are_no_jumps() {
        let mut line = Timeline::default();
        for step in 0..5 {
            line.add(step * 1_000_000, step * 9 * 27_000_000, false);
        }
        assert_eq!(line.due(4_000_000, true), Some(36 * 27_000_000));
        assert_eq!(line.undeclared_jumps, 0);
    }

    #[test]
    fn repeated_reference_says_nothing_new() {
        let mut line = Timeline::default();
        line.add(0, 0, false);
        line.add(1000, 1000, false);
        line.add(1188, 1000, false);
        line.add(2000, 2000, false);
        assert_eq!(line.due(1500, false), Some(1500));
        assert_eq!(line.undeclared_jumps, 0);
    }

    #[test]
    fn due_times_never_shrink() {
        let (mut line, mut seed, mut pcr) = (Timeline::default(), 7u64, PCR_WRAP - 1_000_000);
        let mut last = 0;
        for step in 0..5000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            pcr = (pcr + seed % 3_000_000) % PCR_WRAP;
            if seed.is_multiple_of(97) {
                pcr = seed % PCR_WRAP;
            }
            line.add(step * 1316, pcr, false);
            if let Some(due) = line.due(step.saturating_sub(1) * 1316, false) {
                assert!(due >= last, "step {step}: {due} after {last}");
                last = due;
            }
        }
    }

    #[test]
    fn film_with_one_reference_has_no_time() {
        let mut line = Timeline::default();
        line.add(376, 5, false);
        assert_eq!(line.due(376, true), Some(0));
        assert_eq!(line.due(1316, true), None);
    }
}
