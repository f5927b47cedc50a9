//! Which way the bytes of a part go between a file and a guest's memory.

use super::bounce;
use super::probe::Alignment;
use super::range::{changes, range_of};
use super::sub_request::{SubRequest, Way};
use crate::blk::Op;
use crate::counters::Counters;
use crate::memory::Buffers;

impl Way {
    /// The way for the rest of a part, on a file that takes O_DIRECT and ends at `end_bytes`.
    pub(super) fn of(part: &SubRequest, alignment: Alignment, end_bytes: u64) -> Self {
        let block = u64::from(alignment.offset);
        let (offset, len) = range_of(part.op, part.buffers.len_bytes());
        let skip = (offset + part.done_bytes) % block;
        let from = offset + part.done_bytes - skip;
        let to = (offset + len).next_multiple_of(block);
        let whole = skip == 0 && offset + len == to;
        if whole && suits(&part.buffers, alignment) {
            return Self::Direct;
        }
        let modifies = !whole && changes(part.op);
        // A whole block would make the file longer, or is not there for the kernel.
        if modifies && to > end_bytes || i64::try_from(to).is_err() {
            return Self::PageCache;
        }
        match bounce::zeroed(to - from) {
            Ok(memory) if modifies => Self::Modify { memory, skip, writing: false },
            Ok(memory) => Self::Bounce { memory, skip },
            Err(_) => Self::PageCache,
        }
    }
}

/// Whether memory can be given to the device as it is.
fn suits(buffers: &Buffers, alignment: Alignment) -> bool {
    buffers.segments().iter().all(|segment| {
        segment.addr & (alignment.memory as usize - 1) == 0
            && segment.len & (alignment.offset as usize - 1) == 0
    })
}

/// Counts `bytes` that went the part's way, and copies them on where that is left to us.
pub(super) fn account(counters: &mut Counters, part: &mut SubRequest, bytes: u64) {
    match (&part.way, part.op) {
        // Zeros are nobody's payload.
        (_, Op::WriteZeroes(_)) => {}
        (Way::Direct, _) => counters.direct_bytes += bytes,
        (Way::PageCache, _) => counters.copied_by_kernel_bytes += bytes,
        (Way::Modify { .. }, _) => counters.copied_by_us_bytes += bytes,
        (Way::Bounce { memory, skip }, op) => {
            counters.copied_by_us_bytes += bytes;
            if let Op::Read { .. } = op {
                part.rest().copy_from_buffers(&memory.slice(*skip, bytes));
            }
        }
    }
    part.done_bytes += bytes;
}
