//! The range of a volume or file that an operation is about.

use crate::blk::{Op, Range, Request};

/// Cuts off what is behind the end of the data, less than a block: there it reads as zeros, and
/// nobody keeps what is written. Called again it changes nothing.
pub(super) fn clip(request: &mut Request, data_bytes: u64) {
    let (offset, len) = range_of(request.op, request.buffers.len_bytes());
    let kept = data_bytes.saturating_sub(offset);
    if len <= kept {
        return;
    }
    if let Op::Read { .. } = request.op {
        request.buffers.slice(kept, u64::MAX).fill_zero();
    }
    request.buffers = request.buffers.slice(0, kept);
    request.op = moved(request.op, offset, kept);
}

/// Whether the operation changes what is stored.
pub(super) fn changes(op: Op) -> bool {
    match op {
        Op::Read { .. } | Op::Flush => false,
        Op::Write { .. } | Op::Discard(_) | Op::WriteZeroes(_) => true,
    }
}

/// The range of the volume that an operation is about.
pub(super) fn range_of(op: Op, data_bytes: u64) -> (u64, u64) {
    match op {
        Op::Read { offset_bytes } | Op::Write { offset_bytes, .. } => (offset_bytes, data_bytes),
        Op::Discard(range) | Op::WriteZeroes(range) => {
            let Range { offset_bytes, len_bytes, .. } = range;
            (offset_bytes, len_bytes)
        }
        Op::Flush => (0, 0),
    }
}

/// The same operation at another place.
pub(super) fn moved(op: Op, offset_bytes: u64, len_bytes: u64) -> Op {
    match op {
        Op::Read { .. } => Op::Read { offset_bytes },
        Op::Write { durable, .. } => Op::Write { offset_bytes, durable },
        Op::Flush => Op::Flush,
        Op::Discard(range) => Op::Discard(Range { offset_bytes, len_bytes, ..range }),
        Op::WriteZeroes(range) => Op::WriteZeroes(Range { offset_bytes, len_bytes, ..range }),
    }
}
