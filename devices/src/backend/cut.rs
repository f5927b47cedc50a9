//! Long requests are cut into parts, so that none of them keeps a disk for long.
//!
//! A disk does not give back what it was given. So whoever promises time of a disk bounds what goes
//! to it in one piece. The owner says how long a part may be, for each kind of request. A cut
//! changes neither what is done nor how: parts begin at multiples of 4 KiB from the start of the
//! piece, so a piece that suits O_DIRECT is cut into parts that do.

use smallvec::SmallVec;

use super::range::{moved, range_of};
use super::sub_request::{MAX_PARTS, Place, SubRequest};
use crate::blk::Op;

/// Parts are multiples of this, except for the last one of a piece.
pub(super) const STEP_BYTES: u64 = 4096;

/// The most that goes to the disk in one part, in bytes, by kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// Reads.
    pub read: u64,
    /// Writes.
    pub write: u64,
    /// Discards.
    pub discard: u64,
    /// Writes of zeros.
    pub write_zeroes: u64,
}

impl Cuts {
    /// Nothing is cut.
    pub const NONE: Self =
        Self { read: u64::MAX, write: u64::MAX, discard: u64::MAX, write_zeroes: u64::MAX };

    /// The most for this kind: a multiple of 4 KiB, not zero. A flush is one part in any
    /// case.
    #[must_use]
    pub fn of(self, op: Op) -> u64 {
        let bytes = match op {
            Op::Read { .. } => self.read,
            Op::Write { .. } => self.write,
            Op::Discard(_) => self.discard,
            Op::WriteZeroes(_) => self.write_zeroes,
            Op::Flush => u64::MAX,
        };
        (bytes - bytes % STEP_BYTES).max(STEP_BYTES)
    }

    /// Cuts the parts that go to files. What an image's worker does is its own affair: it answers
    /// for a request as a whole.
    pub(super) fn apply(self, parts: SmallVec<[SubRequest; 1]>) -> SmallVec<[SubRequest; 1]> {
        let fits = |part: &SubRequest| {
            let (_, len_bytes) = range_of(part.op, part.buffers.len_bytes());
            !matches!(part.place, Place::File(_)) || len_bytes <= self.of(part.op)
        };
        if parts.iter().all(fits) {
            return parts;
        }
        let mut rest = parts.len();
        let mut cut = SmallVec::new();
        for part in parts {
            rest -= 1;
            let room = MAX_PARTS.saturating_sub(cut.len()).saturating_sub(rest);
            if fits(&part) {
                cut.push(part);
            } else {
                cut.extend(pieces(&part, self.of(part.op), room));
            }
        }
        cut
    }
}

/// A part in pieces of at most `most` bytes each; longer ones if there would be more than `room`.
fn pieces(part: &SubRequest, most: u64, room: usize) -> impl Iterator<Item = SubRequest> {
    let (offset_bytes, len_bytes) = range_of(part.op, part.buffers.len_bytes());
    let least = len_bytes.div_ceil((room as u64).max(1));
    let most = most.max(least.checked_next_multiple_of(STEP_BYTES).unwrap_or(u64::MAX));
    let count = len_bytes.div_ceil(most);
    let lengths = (0..count).map(move |piece| (piece * most, most.min(len_bytes - piece * most)));
    let hands = usize::try_from(count).unwrap_or(usize::MAX);
    let buffers = part.buffers.deal(hands, lengths.clone().map(|it| it.1).enumerate());
    lengths.zip(buffers).map(move |((skip, len_bytes), buffers)| {
        let op = moved(part.op, offset_bytes + skip, len_bytes);
        SubRequest::new(part.place.clone(), op, buffers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::bounce;
    use crate::blk::Range;
    use proptest::prelude::*;

    fn part(place: Place, op: Op, len_bytes: u64) -> SubRequest {
        let memory = bounce::zeroed(1 << 20).unwrap();
        let buffers = match op {
            Op::Read { .. } | Op::Write { .. } => memory.slice(0, len_bytes),
            Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => memory.slice(0, 0),
        };
        SubRequest::new(place, op, buffers)
    }

    fn cuts(bytes: u64) -> Cuts {
        Cuts { read: bytes, write: bytes, discard: bytes, write_zeroes: bytes }
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_part_in_order_and_none_is_too_long(
            sector in 0_u64..1000,
            sectors in 1_u64..2048,
            limit in 1_u64..600_000,
            discard: bool,
        ) {
            let (offset_bytes, len_bytes) = (sector * 512, sectors * 512);
            let op = if discard {
                Op::Discard(Range { offset_bytes, len_bytes, unmap: false })
            } else {
                Op::Write { offset_bytes, durable: true }
            };
            let whole = part(Place::File(3), op, len_bytes);
            let segments = whole.buffers.segments().to_vec();
            let (mut at, mut bytes) = (offset_bytes, 0);
            let cut = cuts(limit).apply(SmallVec::from_iter([whole]));
            for piece in &cut {
                let (offset, len) = range_of(piece.op, piece.buffers.len_bytes());
                prop_assert_eq!(offset, at);
                prop_assert!(len > 0 && len <= limit.max(STEP_BYTES));
                prop_assert!((offset - offset_bytes).is_multiple_of(STEP_BYTES));
                prop_assert!(matches!(piece.place, Place::File(3)));
                let durable = matches!(piece.op, Op::Write { durable: true, .. });
                prop_assert!(durable || discard);
                for segment in piece.buffers.segments() {
                    prop_assert_eq!(segment.addr, segments[0].addr + bytes);
                    bytes += segment.len;
                }
                at += len;
            }
            prop_assert_eq!(at, offset_bytes + len_bytes);
            prop_assert!(discard || bytes as u64 == len_bytes);
        }
    }

    #[test]
    fn there_are_never_more_parts_than_their_numbers_have_room_for() {
        let range = Range { offset_bytes: 0, len_bytes: 1 << 40, unmap: false };
        let one = || part(Place::File(0), Op::Discard(range), 0);
        let cut = cuts(STEP_BYTES).apply(SmallVec::from_iter([one(), one(), one()]));
        assert!(cut.len() <= MAX_PARTS, "{}", cut.len());
        let total: u64 = cut.iter().map(|it| range_of(it.op, 0).1).sum();
        assert_eq!(total, 3 << 40);
    }

    #[test]
    fn a_flush_and_what_the_worker_of_an_image_does_stay_whole() {
        let parts = [
            part(Place::File(0), Op::Flush, 0),
            part(Place::Worker(None), Op::Write { offset_bytes: 0, durable: false }, 1 << 20),
        ];
        assert_eq!(cuts(STEP_BYTES).apply(SmallVec::from_iter(parts)).len(), 2);
    }
}
