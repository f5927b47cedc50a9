//! Reading, writing and zeroing a [`DiskFile`]: which way a part goes, and what a result or an
//! error of the kernel means for it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{DiskFile, Submitted};
use crate::backend::bounce;
use crate::backend::ring::{Deallocate, Deferred, Operations};
use crate::backend::sub_request::{State, SubRequest, Way};
use crate::backend::way::account;
use crate::blk::{Op, Outcome, Range};
use crate::counters::Counters;

/// How much is zeroed at a time where the file system cannot zero a range.
const ZERO_CHUNK_BYTES: u64 = 1 << 20;
/// So often the kernel may move less than a whole block.
const MAX_TRIES: u8 = 8;

impl DiskFile {
    /// Begins what is left of a part. A part that is nothing to do is done. One that has to wait
    /// for another one says so.
    pub(in crate::backend) fn submit(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut SubRequest,
    ) -> Submitted {
        if !self.claim(part) {
            return Err(Deferred::BlocksTaken);
        }
        if self.waits {
            ring.next_by_worker();
        }
        match part.op {
            Op::Read { offset_bytes } => self.read(ring, token, part, offset_bytes)?,
            Op::Write { offset_bytes, durable } => {
                self.write(ring, token, part, offset_bytes, durable)?;
            }
            Op::Flush => ring.fdatasync(&self.file, token)?,
            Op::Discard(Range { len_bytes: 0, .. })
            | Op::WriteZeroes(Range { len_bytes: 0, .. }) => {
                part.end(Outcome::Ok);
                return Ok(());
            }
            Op::Discard(Range { offset_bytes, len_bytes, .. }) => {
                let hole = Deallocate::PunchHole;
                ring.deallocate(&self.file, hole, offset_bytes, len_bytes, token)?;
            }
            Op::WriteZeroes(range) => self.write_zeroes(ring, token, part, range)?,
        }
        part.state = State::InFlight;
        Ok(())
    }

    /// Takes the result of a part's operation and begins the rest, if any.
    pub(in crate::backend) fn completed(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut SubRequest,
        result: io::Result<u32>,
        counters: &mut Counters,
    ) -> Submitted {
        let bytes = match result {
            Ok(bytes) => u64::from(bytes),
            Err(error) => return self.failed(ring, token, part, &error),
        };
        let total = match part.op {
            Op::Read { .. } | Op::Write { .. } => part.buffers.len_bytes(),
            Op::WriteZeroes(range) if part.refused > 1 => range.len_bytes,
            Op::WriteZeroes(range) if matches!(part.way, Way::Modify { .. }) => range.len_bytes,
            Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => {
                part.end(Outcome::Ok);
                return Ok(());
            }
        };
        if bytes == 0 {
            // The file has become shorter than it was when it was opened, or takes no more.
            part.end(Outcome::IoError);
            return Ok(());
        }
        let moved = match &mut part.way {
            Way::Modify { memory, skip, writing } => {
                let whole = bytes >= memory.len_bytes();
                if whole && !*writing {
                    let within = memory.slice(*skip, total);
                    match part.op {
                        Op::Write { .. } => {
                            let rest = part.buffers.slice(part.done_bytes, u64::MAX);
                            within.copy_from_buffers(&rest);
                        }
                        _ => within.fill_zero(),
                    }
                    *writing = true;
                    counters.read_modify_writes += 1;
                    return self.again(ring, token, part);
                }
                if whole { total - part.done_bytes } else { 0 }
            }
            // What lies before the request in its first block is not the guest's.
            Way::Bounce { skip, .. } => {
                bytes.saturating_sub(*skip).min(total.saturating_sub(part.done_bytes))
            }
            Way::Direct | Way::PageCache => bytes.min(total.saturating_sub(part.done_bytes)),
        };
        if moved == 0 {
            part.tries += 1;
            if part.tries >= MAX_TRIES {
                part.end(Outcome::IoError);
                return Ok(());
            }
        }
        account(counters, part, moved);
        if part.done_bytes < total {
            return self.again(ring, token, part);
        }
        part.end(Outcome::Ok);
        Ok(())
    }

    fn again(&mut self, ring: &mut dyn Operations, token: u64, part: &mut SubRequest) -> Submitted {
        part.state = State::Waiting;
        self.submit(ring, token, part)
    }

    /// What an error of the kernel means for the part.
    fn failed(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut SubRequest,
        error: &io::Error,
    ) -> Submitted {
        let code = error.raw_os_error();
        let unsupported = matches!(code, Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL));
        match part.op {
            _ if matches!(code, Some(libc::EINTR | libc::EAGAIN)) => {
                return self.again(ring, token, part);
            }
            // A discard is a hint.
            Op::Discard(_) if unsupported => part.end(Outcome::Ok),
            Op::WriteZeroes(range)
                if unsupported && part.refused < 2 && !matches!(part.way, Way::Modify { .. }) =>
            {
                part.refused = if range.unmap { part.refused + 1 } else { 2 };
                return self.again(ring, token, part);
            }
            _ => part.end(Outcome::IoError),
        }
        Ok(())
    }

    /// Which file and which memory the rest of a part uses.
    fn way(&self, part: &SubRequest) -> Way {
        let alignment = self.direct.as_ref().map(|(alignment, _)| *alignment);
        alignment.map_or(Way::PageCache, |it| Way::of(part, it, self.end_bytes()))
    }

    fn file_for(&self, way: &Way) -> &Arc<File> {
        match (way, &self.direct) {
            (Way::PageCache, Some((_, buffered))) => buffered,
            _ => &self.file,
        }
    }

    /// Reads what is left of the part.
    fn read(
        &self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut SubRequest,
        at: u64,
    ) -> Submitted {
        part.way = self.way(part);
        let offset = at + part.done_bytes;
        let (buffers, offset) = match &part.way {
            Way::Bounce { memory, skip } => (memory.clone(), offset - skip),
            Way::Direct | Way::PageCache | Way::Modify { .. } => (part.rest(), offset),
        };
        ring.readv(self.file_for(&part.way), buffers, offset, token)
    }

    /// Writes what is left of the part, or begins to change a block.
    fn write(
        &self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut SubRequest,
        at: u64,
        durable: bool,
    ) -> Submitted {
        if !matches!(part.way, Way::Modify { writing: true, .. }) {
            part.way = self.way(part);
        }
        let offset = at + part.done_bytes;
        let buffers = match &part.way {
            Way::Modify { memory, skip, writing } => {
                let (file, block) = (self.file_for(&part.way), memory.clone());
                return match writing {
                    true => ring.writev(file, block, offset - skip, durable, token),
                    false => ring.readv(file, block, offset - skip, token),
                };
            }
            Way::Bounce { memory, .. } => {
                memory.copy_from_buffers(&part.rest());
                memory.clone()
            }
            Way::Direct | Way::PageCache => part.rest(),
        };
        ring.writev(self.file_for(&part.way), buffers, offset, durable, token)
    }

    /// Zeroes a range in the best way that the file system has not refused yet: as asked for, by
    /// giving the space back if that is allowed, by writing zeros.
    fn write_zeroes(
        &self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut SubRequest,
        range: Range,
    ) -> Submitted {
        let block = u64::from(self.align());
        if (range.offset_bytes | range.len_bytes) & (block - 1) != 0 && part.refused < 2 {
            if (range.offset_bytes + range.len_bytes).next_multiple_of(block) <= self.end_bytes() {
                return self.write(ring, token, part, range.offset_bytes, false);
            }
            // What a file ends with.
            part.refused = 2;
        }
        let how = match (part.refused, range.unmap) {
            (0, true) => Deallocate::PunchHole,
            (0, false) | (1, true) => Deallocate::ZeroRange,
            _ => {
                let rest = range.len_bytes - part.done_bytes;
                let zeros = bounce::zeroed(rest.min(ZERO_CHUNK_BYTES))
                    .map_err(|_| Deferred::OutOfMemory)?;
                let offset = range.offset_bytes + part.done_bytes;
                let aligned = (offset | rest) & (block - 1) == 0;
                part.way = if aligned { Way::Direct } else { Way::PageCache };
                let file = self.file_for(&part.way);
                return ring.writev(file, zeros, offset, false, token);
            }
        };
        let Range { offset_bytes, len_bytes, .. } = range;
        ring.deallocate(&self.file, how, offset_bytes, len_bytes, token)
    }
}
