//! How long the parts of requests may be, so that each costs at most a given time.
//!
//! Kind by kind, a power of two: halved when two of the last few parts of that size took longer,
//! doubled when many in a row would have had time for twice as much and a third more. One part
//! that was slow says nothing.

use moirai_devices::backend::Cuts;
use moirai_scheduler::Amount;
use moirai_scheduler::device::Kind;

use crate::work::Work;

/// So many good parts in a row double the size.
const GOOD: u32 = 16;
/// So many long ones, with fewer than that many good ones between them, halve it.
const LONG: u32 = 2;

/// Limits of one kind: the least that is cut, what is tried first, the most that a request may
/// have. Bytes.
struct Limits {
    least: u64,
    first: u64,
    most: u64,
}

const DATA: Limits = Limits { least: 64 << 10, first: 256 << 10, most: 4 << 20 };
const DISCARD: Limits = Limits { least: 64 << 10, first: 1 << 20, most: 64 << 20 };
const ZEROES: Limits = Limits { least: 64 << 10, first: 1 << 20, most: 4 << 20 };

#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: u64,
    good: u32,
    long: u32,
}

/// The sizes of one disk's parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutter {
    unit_max: Amount,
    read: Size,
    write: Size,
    discard: Size,
    write_zeroes: Size,
}

impl Cutter {
    /// For parts that take at most so long.
    pub(crate) fn new(unit_max: Amount) -> Self {
        let first = |limits: &Limits| Size { bytes: limits.first, good: 0, long: 0 };
        let (data, discard, write_zeroes) = (first(&DATA), first(&DISCARD), first(&ZEROES));
        Self { unit_max, read: data, write: data, discard, write_zeroes }
    }

    /// How long parts may be now.
    pub(crate) fn cuts(&self) -> Cuts {
        Cuts {
            read: self.read.bytes,
            write: self.write.bytes,
            discard: self.discard.bytes,
            write_zeroes: self.write_zeroes.bytes,
        }
    }

    /// A part took so much of the disk's time.
    pub(crate) fn note(&mut self, work: Work, cost: Amount) {
        let unit_max = self.unit_max;
        let (size, limits) = match work.kind {
            Kind::Read => (&mut self.read, DATA),
            Kind::Write => (&mut self.write, DATA),
            Kind::Discard => (&mut self.discard, DISCARD),
            Kind::WriteZeroes => (&mut self.write_zeroes, ZEROES),
            Kind::Flush => return,
        };
        // Half a size says little about the whole, and what is longer was cut by another rule.
        if work.bytes <= size.bytes / 2 || work.bytes > size.bytes {
            return;
        }
        if cost > unit_max {
            (size.good, size.long) = (0, size.long + 1);
            if size.long >= LONG {
                size.bytes = (size.bytes / 2).max(limits.least);
                size.long = 0;
            }
            return;
        }
        let roomy = cost.saturating_mul(8) <= unit_max.saturating_mul(3);
        size.good = if roomy && work.bytes == size.bytes { size.good + 1 } else { size.good };
        if size.good >= GOOD {
            size.bytes = size.bytes.saturating_mul(2).min(limits.most);
            (size.good, size.long) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    /// Serves parts of a disk that needs so many nanoseconds for a byte; the size that is left.
    fn settled(kind: Kind, picos_per_byte: u64) -> u64 {
        let mut cutter = Cutter::new(Amount::from_millis(1));
        let size = |cutter: &Cutter| match kind {
            Kind::Read => cutter.cuts().read,
            _ => cutter.cuts().discard,
        };
        for _ in 0..500 {
            let bytes = size(&cutter);
            cutter.note(
                Work { kind, bytes, plain: true },
                Amount::from_nanos(bytes * picos_per_byte / 1000),
            );
        }
        size(&cutter)
    }

    #[test]
    fn parts_become_as_long_as_the_unit_allows_and_no_longer() {
        assert_eq!(settled(Kind::Read, 500), 1024 * KIB, "0.52 ms; twice as much is too much");
        assert_eq!(settled(Kind::Read, 5_000), 128 * KIB);
        assert_eq!(settled(Kind::Read, 500_000), 64 * KIB, "the least");
        assert_eq!(settled(Kind::Read, 1), 4096 * KIB, "the most");
        assert_eq!(settled(Kind::Discard, 1), 65_536 * KIB);
    }

    #[test]
    fn one_slow_part_changes_nothing_and_small_requests_neither() {
        let mut cutter = Cutter::new(Amount::from_millis(1));
        let read = |bytes| Work { kind: Kind::Read, bytes, plain: true };
        cutter.note(read(256 * KIB), Amount::from_millis(50));
        for _ in 0..100 {
            cutter.note(read(4 * KIB), Amount::from_millis(2));
            cutter.note(read(4 * KIB), Amount::ONE);
        }
        assert_eq!(cutter.cuts().read, 256 * KIB);
        cutter.note(read(256 * KIB), Amount::from_millis(50));
        assert_eq!(cutter.cuts().read, 128 * KIB);
        assert_eq!(cutter.cuts().write, 256 * KIB);
    }
}
