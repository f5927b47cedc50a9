//! One file or block device below a volume.
//!
//! Reads and writes go with O_DIRECT between device and guest memory. A request whose addresses are
//! misaligned bounces through memory of ours, and so does one that reads blocks in part; one that
//! writes a block in part reads it, changes it and writes it back (`blocks`). Through the page cache
//! goes every request where the file system has no O_DIRECT, and what is written to the end of a file
//! that is no whole block. Nothing here reaches behind the end of the file.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use smallvec::SmallVec;

use super::blocks::{self, Claims};
use super::bounce;
use super::error::VolumeError;
use super::job::{Part, State};
use super::probe::{self, Alignment};
use super::range::{changes, range_of};
use super::ring::{Deallocate, Deferred, Operations};
use super::way::{Way, account};
use crate::blk::{Op, Outcome, Range, SECTOR_BYTES};
use crate::counters::Counters;

/// How much is zeroed at a time where the file system cannot zero a range.
const ZERO_CHUNK_BYTES: u64 = 1 << 20;
/// So often the kernel may move less than a whole block.
const MAX_TRIES: u8 = 8;

/// Device and inode number: the same for every name of a file, and across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// The device that holds the file; of a block device, its own number.
    pub device: u64,
    /// The inode; zero for a block device.
    pub inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        match metadata.rdev() {
            0 => Self { device: metadata.dev(), inode: metadata.ino() },
            device => Self { device, inode: 0 },
        }
    }
}

/// An open file and what is known of it.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: Arc<File>,
    /// What O_DIRECT wants, and the same file without O_DIRECT.
    direct: Option<(Alignment, Arc<File>)>,
    size_bytes: u64,
    /// It belongs to an image, which may make it longer and knows where it ends.
    grows: bool,
    id: FileId,
    discards: bool,
    claims: Claims,
}

/// Opens a path that an operator gave.
pub(super) fn open_path(path: &Path, read_only: bool) -> Result<File, VolumeError> {
    // O_NONBLOCK: a path that turns out to be a pipe must not hold us up.
    let mut options = File::options();
    options.read(true).write(!read_only).custom_flags(libc::O_NONBLOCK);
    options.open(path).map_err(|error| open_error(error, path.display().to_string(), read_only))
}

/// What an error of `open` means.
pub(super) fn open_error(error: io::Error, path: String, read_only: bool) -> VolumeError {
    match error.kind() {
        io::ErrorKind::NotFound => VolumeError::Missing(path),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            let how = if read_only { "read" } else { "read and write" };
            VolumeError::Forbidden { path, how }
        }
        io::ErrorKind::IsADirectory => VolumeError::NotAVolume(path),
        _ => VolumeError::Io { path, source: error },
    }
}

impl DiskFile {
    /// Takes over an open file; `name` is for messages. Its file status flags are changed.
    pub(super) fn new(file: File, name: &str, read_only: bool) -> Result<Self, VolumeError> {
        let failed = |source| VolumeError::Io { path: name.to_owned(), source };
        let Some(size_bytes) = probe::size(&file).map_err(failed)? else {
            return Err(VolumeError::NotAVolume(name.to_owned()));
        };
        probe::make_blocking(&file).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let buffered = probe::reopen(&file, read_only);
        let direct =
            buffered.ok().and_then(|again| Some((probe::make_direct(&file)?, Arc::new(again))));
        if let Some((Alignment { offset: block, .. }, _)) = direct
            && metadata.rdev() != 0
            && !size_bytes.is_multiple_of(block.into())
        {
            return Err(VolumeError::TornDevice { path: name.to_owned(), size_bytes, block });
        }
        let discards = !read_only && probe::punches(&file, size_bytes);
        let id = FileId::of(&metadata);
        let claims = Claims::default();
        let (file, grows) = (Arc::new(file), false);
        Ok(Self { file, direct, size_bytes, grows, id, discards, claims })
    }

    /// Size in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// What offsets and lengths must be multiples of to bypass the page cache.
    pub(super) fn align(&self) -> u32 {
        self.direct.as_ref().map_or(1, |(alignment, _)| alignment.offset)
    }

    /// From now on the file is read and written in blocks of so many bytes, as on a disk that has
    /// them.
    #[cfg(test)]
    pub(super) fn pretend_blocks(&mut self, bytes: u32) {
        if let Some((alignment, _)) = &mut self.direct {
            alignment.offset = alignment.offset.max(bytes);
        }
    }

    /// It belongs to an image: requests are for what is there, and its length may change.
    pub(super) fn set_grows(&mut self) {
        self.grows = true;
    }

    /// Where it ends.
    fn end_bytes(&self) -> u64 {
        if self.grows { u64::MAX } else { self.size_bytes }
    }

    /// What a part becomes so that each piece goes one way only.
    pub(super) fn split(&self, part: Part) -> SmallVec<[Part; 3]> {
        if self.suits(&part) {
            return SmallVec::from_iter([part]);
        }
        blocks::split(part, self.align().into(), self.end_bytes())
    }

    /// Whether a part begins and ends at blocks, or need not.
    pub(super) fn suits(&self, part: &Part) -> bool {
        let (start, len) = range_of(part.op, part.buffers.len_bytes());
        self.direct.is_none() || (start | len) & (u64::from(self.align()) - 1) == 0
    }

    /// Whether two requests of different sectors may meet in one block.
    fn shares_blocks(&self) -> bool {
        let whole = self.grows || self.size_bytes.is_multiple_of(SECTOR_BYTES);
        self.direct.is_some() && (u64::from(self.align()) > SECTOR_BYTES || !whole)
    }

    /// Whether the part has its blocks to itself, as far as it needs to.
    fn claim(&mut self, part: &mut Part) -> bool {
        if part.claim.is_none() && changes(part.op) && self.shares_blocks() {
            part.claim = self.claims.claim(part, self.align().into(), self.end_bytes());
            return part.claim.is_some();
        }
        true
    }

    /// Whether the space behind a range can be given back.
    pub(super) fn discards(&self) -> bool {
        self.discards
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Begins what is left of a part. A part that is nothing to do is done. One that has to wait for
    /// another one says so.
    pub(super) fn submit(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut Part,
    ) -> Submitted {
        if !self.claim(part) {
            return Err(Deferred::BlocksTaken);
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
    pub(super) fn completed(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut Part,
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

    fn again(&mut self, ring: &mut dyn Operations, token: u64, part: &mut Part) -> Submitted {
        part.state = State::Waiting;
        self.submit(ring, token, part)
    }

    /// What an error of the kernel means for the part.
    fn failed(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut Part,
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
    fn way(&self, part: &Part) -> Way {
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
    fn read(&self, ring: &mut dyn Operations, token: u64, part: &mut Part, at: u64) -> Submitted {
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
        part: &mut Part,
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
        part: &mut Part,
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

/// Whether an operation went into the ring. If not, the part waits.
pub(super) type Submitted = Result<(), Deferred>;
