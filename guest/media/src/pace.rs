//! When which byte of a film is due.
//!
//! Between two clock references the bytes pass at an even rate (ISO/IEC 13818-1, section 2.4.2.3),
//! so the time of a byte is interpolated between the references around it. Behind the last
//! reference the rate of the last second goes on, in front of the first the first rate counts. If
//! the clock jumps (a film starts again, was cut, or declares the jump), time goes on at the same
//! rate, so the time of the stream never jumps. While no two references of one clock have come
//! there is no rate, and a fallback is used.

use crate::TICKS_PER_SECOND;
use crate::ts::PCR_WRAP;
use alloc::collections::VecDeque;

/// A step that is longer than the bytes make likely, by more than this, is a jump.
const JUMP_MIN: u64 = TICKS_PER_SECOND;
/// Before there is a rate, a longer step than this is a jump.
const FIRST_STEP_MAX: u64 = 10 * TICKS_PER_SECOND;
/// The rate is the average of about the last so many ticks.
const RATE_TICKS: u64 = TICKS_PER_SECOND;
/// Bits per second of a film that has no clock, unless another rate is given.
pub const FALLBACK_BPS: u64 = 8_000_000;

/// Why no two clock references of a film say how fast it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRate {
    /// There are no two.
    Missing,
    /// They are all the same.
    Still,
    /// From each to the next the clock jumps.
    Jumping,
}

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
/// film or the same one again and again; time is in ticks since the stream's start.
#[derive(Debug)]
pub struct Timeline {
    /// The references that count; the first is the stream's start, whether it has one or not.
    points: VecDeque<Point>,
    begun: bool,
    last_pcr: Option<u64>,
    rate: Option<Rate>,
    fallback: Rate,
    /// The time of the first reference is that of the fallback until there is a rate, and nobody
    /// knows it.
    provisional: bool,
    /// The last time that was given: it never shrinks.
    latest: u64,
    /// Times behind the last reference were given: until the next one, nobody waits for one again.
    bridging: bool,
    guessed: bool,
    /// A reference was the same as the one before.
    repeated: bool,
    /// Jumps of the clock that the film declared.
    pub declared_jumps: u64,
    /// Jumps that it did not declare.
    pub undeclared_jumps: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new(FALLBACK_BPS)
    }
}

impl Timeline {
    /// A time line that falls back to `bits` per second.
    #[must_use]
    pub fn new(bits: u64) -> Self {
        Self {
            points: VecDeque::from([Point { position: 0, ticks: 0 }]),
            begun: false,
            last_pcr: None,
            rate: None,
            fallback: Rate { ticks: 8 * TICKS_PER_SECOND, bytes: bits.max(1) },
            provisional: false,
            latest: 0,
            bridging: false,
            guessed: false,
            repeated: false,
            declared_jumps: 0,
            undeclared_jumps: 0,
        }
    }

    /// Adds the next clock reference; positions grow. `declared`: the film says that the clock may
    /// have jumped since the last one. A reference that is repeated says nothing new.
    pub fn add(&mut self, position: u64, pcr: u64, declared: bool) {
        let Some(&last) = self.points.back() else { return };
        if !core::mem::replace(&mut self.begun, true) {
            self.last_pcr = Some(pcr);
            self.provisional = !self.guessed;
            if position > last.position {
                self.push(last, position, self.fallback.ticks_for(position - last.position));
            }
            return;
        }
        if position <= last.position {
            return;
        }
        let bytes = position - last.position;
        let step = self.last_pcr.map(|last_pcr| (pcr + PCR_WRAP - last_pcr) % PCR_WRAP);
        if step == Some(0) && !declared {
            self.repeated = true;
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
                self.rate.unwrap_or(self.fallback).ticks_for(bytes)
            }
        };
        let last = self.points.back().copied().unwrap_or(last);
        self.push(last, position, step);
        self.last_pcr = Some(pcr);
    }

    fn push(&mut self, last: Point, position: u64, step: u64) {
        self.points.push_back(Point { position, ticks: last.ticks.saturating_add(step) });
        self.bridging = false;
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
        if core::mem::take(&mut self.provisional) {
            self.measure_start(rate);
        }
    }

    /// The first rate counts for what lies in front of the first reference, too.
    fn measure_start(&mut self, rate: Rate) {
        let (Some(start), Some(first)) = (self.points.front(), self.points.get(1)) else { return };
        let bytes = first.position - start.position;
        let (guessed, right) = (self.fallback.ticks_for(bytes), rate.ticks_for(bytes));
        for point in self.points.iter_mut().skip(1) {
            point.ticks = (point.ticks - guessed).saturating_add(right);
        }
    }

    /// The clock references that follow are of another film, or of the same from its start.
    pub fn jump(&mut self) {
        self.last_pcr = None;
    }

    /// Was a time given that only the fallback says?
    #[must_use]
    pub fn has_guessed(&self) -> bool {
        self.guessed
    }

    /// Why there is no rate, if there is none.
    #[must_use]
    pub fn no_rate(&self) -> NoRate {
        match self.declared_jumps + self.undeclared_jumps {
            0 if self.repeated => NoRate::Still,
            0 => NoRate::Missing,
            _ => NoRate::Jumping,
        }
    }

    /// When the byte at `position` is due. `None`: not known before more references are added;
    /// `ended`: there will be none.
    ///
    /// Positions must not shrink from call to call: references behind are forgotten.
    pub fn due(&mut self, position: u64, ended: bool) -> Option<u64> {
        let ended = ended || self.bridging;
        if self.rate.is_none() {
            if !ended {
                return None;
            }
            (self.guessed, self.provisional) = (true, false);
        }
        while self.points.get(1).is_some_and(|second| second.position <= position) {
            self.points.pop_front();
        }
        let first = *self.points.front()?;
        let beyond = position.saturating_sub(first.position);
        let rate = match self.points.get(1) {
            Some(second) => {
                let ticks = second.ticks - first.ticks;
                Rate { ticks, bytes: second.position - first.position }
            }
            None if ended => {
                self.bridging = true;
                self.rate.unwrap_or(self.fallback)
            }
            None if beyond == 0 => self.fallback,
            None => return None,
        };
        self.latest = self.latest.max(first.ticks.saturating_add(rate.ticks_for(beyond)));
        Some(self.latest)
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
