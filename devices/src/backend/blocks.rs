//! Where a request meets the blocks of a file: which operations can go as they are, which change
//! only a part of a block, and who waits for whom there.
//!
//! A *block* is the unit in which the file is read and written past the page cache: 512 bytes, 4096
//! on many devices. A guest's sectors have 512. A write that covers a block in part has to read it,
//! change it and write it back. If somebody else changed that block between the two, the write
//! would undo that change. So each operation that changes such a file claims its blocks from its
//! beginning to its end. An operation that changes blocks in part shares them with nobody.

use std::ops::Range;
use std::sync::{Arc, Weak};

use smallvec::{SmallVec, smallvec};

use super::range::{changes, moved, range_of};
use super::sub_request::{Claim, SubRequest};
use crate::blk::Op;

/// The most of a file that the kernel keeps in one piece in its page cache; a multiple of every
/// block.
const SURROUNDINGS_BYTES: u64 = 2 << 20;

/// The pieces of a part: each begins and ends at blocks, or lies within one, or is what the file
/// ends with. `end_bytes` is the file's end.
pub(super) fn split(part: SubRequest, block: u64, end_bytes: u64) -> SmallVec<[SubRequest; 3]> {
    let (start, len) = range_of(part.op, part.buffers.len_bytes());
    let stop = start.saturating_add(len);
    let last = end_bytes - end_bytes % block;
    let (first, then) = match part.op {
        Op::Flush => return smallvec![part],
        // Blocks are read whole, wherever the request begins; the last one may be none.
        Op::Read { .. } => (start, if stop > last { last } else { stop }),
        Op::Write { .. } | Op::WriteZeroes(_) | Op::Discard(_) => {
            (start.next_multiple_of(block), stop - stop % block)
        }
    };
    if let Op::Discard(_) = part.op {
        return smallvec![discard(part, first..then, stop == end_bytes, stop)];
    }
    let cuts = [start, first.clamp(start, stop), then.clamp(first.clamp(start, stop), stop), stop];
    let pieces = cuts.windows(2).filter_map(|cut| match cut {
        [from, to] if from < to => {
            let op = moved(part.op, *from, to - from);
            let buffers = part.buffers.slice(from - start, to - from);
            Some(SubRequest::new(part.place.clone(), op, buffers))
        }
        _ => None,
    });
    pieces.collect()
}

/// A discard is a hint: it leaves alone what is not a whole block. The end of a file is as good.
fn discard(part: SubRequest, whole: Range<u64>, at_end: bool, stop: u64) -> SubRequest {
    let end = if at_end { stop } else { whole.end };
    let op = moved(part.op, whole.start, end.saturating_sub(whole.start));
    SubRequest::new(part.place, op, part.buffers)
}

/// Who changes which blocks of a file.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    blocks: Range<u64>,
    in_part: bool,
    owner: Weak<()>,
}

impl Claims {
    /// Claims what a part changes. `None`: it has to wait for another one.
    /// `end_bytes` is the file's end.
    pub(super) fn claim(&mut self, part: &SubRequest, block: u64, end_bytes: u64) -> Option<Claim> {
        let (mut start, len) = range_of(part.op, part.buffers.len_bytes());
        let stop = start.saturating_add(len);
        if stop.next_multiple_of(block) > end_bytes {
            start -= start % SURROUNDINGS_BYTES;
        }
        let blocks = start / block..stop.div_ceil(block);
        let in_part = !start.is_multiple_of(block) || !stop.is_multiple_of(block);
        self.held.retain(|held| held.owner.strong_count() > 0);
        let meets = |held: &Held| {
            (held.in_part || in_part)
                && held.blocks.start < blocks.end
                && blocks.start < held.blocks.end
        };
        if changes(part.op) && self.held.iter().any(meets) {
            return None;
        }
        let claim = Arc::new(());
        if changes(part.op) {
            self.held.push(Held { blocks, in_part, owner: Arc::downgrade(&claim) });
        }
        Some(Claim::new(claim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::bounce;
    use crate::backend::sub_request::Place;
    use crate::blk::Range as BlkRange;
    use proptest::prelude::*;

    const END: u64 = 1 << 30;

    fn part(op: Op, len: u64) -> SubRequest {
        let memory = bounce::zeroed(1 << 20).unwrap();
        SubRequest::new(Place::File(0), op, memory.slice(0, len))
    }

    fn write(offset_bytes: u64, len: u64) -> SubRequest {
        part(Op::Write { offset_bytes, durable: false }, len)
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_part_in_order_and_only_the_edges_are_not_blocks(
            start in 0_u64..20_000,
            len in 1_u64..40_000,
            tail in 0_u64..4096,
            reads: bool,
        ) {
            let end = start + len + tail;
            let op = match reads {
                true => Op::Read { offset_bytes: start },
                false => Op::Write { offset_bytes: start, durable: true },
            };
            let mut at = start;
            for piece in split(part(op, len), 4096, end) {
                let (from, len) = range_of(piece.op, piece.buffers.len_bytes());
                prop_assert_eq!(from, at);
                at += len;
                let aligned = from % 4096 == 0 && at % 4096 == 0;
                let within = from / 4096 == (at - 1) / 4096;
                let last = from >= end - end % 4096;
                prop_assert!(aligned || within || (reads && at <= end - end % 4096) || last);
            }
            prop_assert_eq!(at, start + len);
        }
    }

    #[test]
    fn a_discard_keeps_to_whole_blocks_and_to_the_end_of_the_file() {
        let discard = |offset_bytes, len_bytes, end| {
            let range = BlkRange { offset_bytes, len_bytes, unmap: false };
            let pieces = split(part(Op::Discard(range), 0), 4096, end);
            range_of(pieces[0].op, 0)
        };
        assert_eq!(discard(512, 8192, 1 << 20), (4096, 4096));
        assert_eq!(discard(512, 1024, 1 << 20), (4096, 0));
        assert_eq!(discard(4096, 5000, 9096), (4096, 5000));
    }

    #[test]
    fn one_that_changes_a_block_in_part_shares_it_with_nobody() {
        let mut claims = Claims::default();
        let first = claims.claim(&write(512, 512), 4096, END);
        assert!(first.is_some());
        assert!(claims.claim(&write(1024, 512), 4096, END).is_none(), "the same block");
        assert!(claims.claim(&write(0, 4096), 4096, END).is_none(), "all of it");
        let read = part(Op::Read { offset_bytes: 0 }, 4096);
        assert!(claims.claim(&read, 4096, END).is_some(), "readers see one or the other");
        let other = claims.claim(&write(4096, 4096), 4096, END);
        assert!(
            other.is_some() && claims.claim(&write(4096, 4096), 4096, END).is_some(),
            "as before"
        );
        drop(first);
        assert!(claims.claim(&write(1024, 512), 4096, END).is_some());
        drop(other);
        assert!(claims.held.len() <= 3);
    }

    #[test]
    fn what_a_file_ends_with_is_written_while_nobody_writes_around_it() {
        const ODD: u64 = (3 << 20) + 700;
        let mut claims = Claims::default();
        let near = claims.claim(&write((3 << 20) - 4096, 4096), 512, ODD);
        let far = claims.claim(&write(0, 4096), 512, ODD);
        assert!(near.is_some() && far.is_some());
        assert!(claims.claim(&write((3 << 20) + 512, 188), 512, ODD).is_none());
        drop(near);
        let end = claims.claim(&write((3 << 20) + 512, 188), 512, ODD);
        assert!(end.is_some() && claims.claim(&write(2 << 20, 512), 512, ODD).is_none());
        assert!(claims.claim(&write(1 << 20, 512), 512, ODD).is_some());
    }
}
