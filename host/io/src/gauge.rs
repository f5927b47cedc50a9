//! What the units of a disk take, beside what was declared: the measure that contracts are held
//! against while they run.

use moirai_scheduler::device::Kind;
use moirai_scheduler::{Amount, Moment};

use crate::maxima::Maxima;
use crate::snapshot::KindSnapshot;

/// One kind of unit.
#[derive(Debug, Default)]
struct Line {
    maxima: Maxima,
    units: u64,
    left_out: u64,
}

/// The measure of one disk.
#[derive(Debug)]
pub(crate) struct Gauge {
    declared: Amount,
    /// Admission counts the largest unit; it does not on an ideal machine.
    counts: bool,
    lines: [Line; Kind::ALL.len()],
}

impl Gauge {
    /// For a disk whose largest unit was declared to take so long.
    pub(crate) fn new(declared: Amount, counts: bool) -> Self {
        Self { declared, counts, lines: Default::default() }
    }

    /// The declared largest unit, in nanoseconds.
    pub(crate) fn declared(&self) -> Amount {
        self.declared
    }

    /// A unit of this kind took so much.
    pub(crate) fn note(&mut self, kind: Kind, took: Amount, now: Moment) {
        if let Some(line) = self.line(kind) {
            line.units += 1;
            line.maxima.note(took, now);
        }
    }

    /// A unit during which the machine stood still.
    pub(crate) fn leave_out(&mut self, kind: Kind) {
        if let Some(line) = self.line(kind) {
            line.units += 1;
            line.left_out += 1;
        }
    }

    /// What units take, in nanoseconds: the kind that takes longest. Zero if nothing was measured.
    pub(crate) fn measured(&mut self, now: Moment) -> Amount {
        self.lines.iter_mut().map(|line| line.maxima.measure(now)).max().unwrap_or(Amount::ZERO)
    }

    /// The measured unit, where it is longer than what admission counted.
    pub(crate) fn excess(&mut self, now: Moment) -> Option<Amount> {
        let measured = self.measured(now);
        (self.counts && measured > self.declared).then_some(measured)
    }

    /// Kind by kind, those that there were.
    pub(crate) fn report(&mut self, now: Moment) -> Vec<KindSnapshot> {
        let lines = Kind::ALL.into_iter().zip(&mut self.lines).filter(|(_, line)| line.units > 0);
        let report = lines.map(|(kind, line)| KindSnapshot {
            kind: name(kind),
            units: line.units,
            left_out: line.left_out,
            measured_ns: line.maxima.measure(now).as_nanos(),
        });
        report.collect()
    }

    fn line(&mut self, kind: Kind) -> Option<&mut Line> {
        let place = Kind::ALL.iter().position(|other| *other == kind)?;
        self.lines.get_mut(place)
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "read",
        Kind::Write => "write",
        Kind::Flush => "flush",
        Kind::Discard => "discard",
        Kind::WriteZeroes => "write-zeroes",
    }
}
