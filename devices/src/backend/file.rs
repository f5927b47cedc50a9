//! One file or block device below a volume.
//!
//! Reads and writes go with O_DIRECT between device and guest memory. A request whose addresses are
//! misaligned bounces through memory of ours; one whose place on the disk is misaligned, and every
//! request where the file system has no O_DIRECT, goes through the page cache.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::bounce;
use super::error::VolumeError;
use super::job::{Part, State, Way};
use super::probe::{self, Alignment};
use super::uring::{Deallocate, Ring, RingFull};
use crate::blk::{Op, Outcome, Range, SECTOR_BYTES};
use crate::counters::Counters;

/// How much is zeroed at a time where the file system cannot zero a range.
const ZERO_CHUNK_BYTES: u64 = 1 << 20;

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
    id: FileId,
    discards: bool,
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
        if size_bytes < SECTOR_BYTES {
            let path = name.to_owned();
            return Err(VolumeError::TooSmall { path, size_bytes, least_bytes: SECTOR_BYTES });
        }
        probe::make_blocking(&file).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let buffered = probe::reopen(&file, read_only);
        let direct =
            buffered.ok().and_then(|again| Some((probe::make_direct(&file)?, Arc::new(again))));
        let discards = !read_only && probe::punches(&file, size_bytes);
        let id = FileId::of(&metadata);
        Ok(Self { file: Arc::new(file), direct, size_bytes, id, discards })
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

    /// Begins what is left of a part. A part that is nothing to do is done.
    pub(super) fn submit(&self, ring: &mut Ring, token: u64, part: &mut Part) -> Submitted {
        match part.op {
            Op::Read { offset_bytes } => self.read(ring, token, part, offset_bytes)?,
            Op::Write { offset_bytes, durable } => {
                self.write(ring, token, part, offset_bytes, durable)?;
            }
            Op::Flush => ring.fdatasync(&self.file, token)?,
            Op::Discard(Range { len_bytes: 0, .. })
            | Op::WriteZeroes(Range { len_bytes: 0, .. }) => {
                part.state = State::Done(Outcome::Ok);
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
        &self,
        ring: &mut Ring,
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
            Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => {
                part.state = State::Done(Outcome::Ok);
                return Ok(());
            }
        };
        if bytes == 0 {
            // The file has become shorter than it was when it was opened, or takes no more.
            part.state = State::Done(Outcome::IoError);
            return Ok(());
        }
        account(counters, part, bytes.min(total - part.done_bytes));
        if part.done_bytes < total {
            return self.again(ring, token, part);
        }
        part.state = State::Done(Outcome::Ok);
        Ok(())
    }

    fn again(&self, ring: &mut Ring, token: u64, part: &mut Part) -> Submitted {
        part.state = State::Waiting;
        self.submit(ring, token, part)
    }

    /// What an error of the kernel means for the part.
    fn failed(&self, ring: &mut Ring, token: u64, part: &mut Part, error: &io::Error) -> Submitted {
        let code = error.raw_os_error();
        let unsupported = matches!(code, Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL));
        match part.op {
            _ if matches!(code, Some(libc::EINTR | libc::EAGAIN)) => {
                return self.again(ring, token, part);
            }
            // A discard is a hint.
            Op::Discard(_) if unsupported => part.state = State::Done(Outcome::Ok),
            Op::WriteZeroes(range) if unsupported && part.refused < 2 => {
                part.refused = if range.unmap { part.refused + 1 } else { 2 };
                return self.again(ring, token, part);
            }
            _ => part.state = State::Done(Outcome::IoError),
        }
        Ok(())
    }

    /// Which file and which memory the rest of a read or write uses.
    fn way(&self, offset: u64, part: &Part) -> Way {
        let Some((alignment, _)) = &self.direct else { return Way::PageCache };
        let rest = part.buffers.len_bytes() - part.done_bytes;
        if (offset | rest) & u64::from(alignment.offset - 1) != 0 {
            return Way::PageCache;
        }
        let fits = part.buffers.segments().iter().all(|segment| {
            segment.addr & (alignment.memory as usize - 1) == 0
                && segment.len & (alignment.offset as usize - 1) == 0
        });
        if fits {
            return Way::Direct;
        }
        bounce::zeroed(rest).map_or(Way::PageCache, Way::Bounce)
    }

    fn file_for(&self, way: &Way) -> &Arc<File> {
        match (way, &self.direct) {
            (Way::PageCache, Some((_, buffered))) => buffered,
            _ => &self.file,
        }
    }

    /// Reads what is left of the part.
    fn read(&self, ring: &mut Ring, token: u64, part: &mut Part, at: u64) -> Submitted {
        let offset = at + part.done_bytes;
        part.way = self.way(offset, part);
        let buffers = match &part.way {
            Way::Bounce(memory) => memory.clone(),
            Way::Direct | Way::PageCache => part.rest(),
        };
        ring.readv(self.file_for(&part.way), buffers, offset, token)
    }

    /// Writes what is left of the part.
    fn write(
        &self,
        ring: &mut Ring,
        token: u64,
        part: &mut Part,
        at: u64,
        durable: bool,
    ) -> Submitted {
        let offset = at + part.done_bytes;
        part.way = self.way(offset, part);
        let buffers = match &part.way {
            Way::Bounce(memory) => {
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
        ring: &mut Ring,
        token: u64,
        part: &mut Part,
        range: Range,
    ) -> Submitted {
        let how = match (part.refused, range.unmap) {
            (0, true) => Deallocate::PunchHole,
            (0, false) | (1, true) => Deallocate::ZeroRange,
            _ => {
                let rest = range.len_bytes - part.done_bytes;
                let zeros = bounce::zeroed(rest.min(ZERO_CHUNK_BYTES)).map_err(|_| RingFull)?;
                part.way = Way::PageCache;
                let file = self.file_for(&part.way);
                let offset = range.offset_bytes + part.done_bytes;
                return ring.writev(file, zeros, offset, false, token);
            }
        };
        let Range { offset_bytes, len_bytes, .. } = range;
        ring.deallocate(&self.file, how, offset_bytes, len_bytes, token)
    }
}

/// Counts `bytes` that went the part's way, and copies them on where that is left to us.
fn account(counters: &mut Counters, part: &mut Part, bytes: u64) {
    match (&part.way, part.op) {
        // Zeros are nobody's payload.
        (_, Op::WriteZeroes(_)) => {}
        (Way::Direct, _) => counters.direct_bytes += bytes,
        (Way::PageCache, _) => counters.copied_by_kernel_bytes += bytes,
        (Way::Bounce(memory), op) => {
            counters.copied_by_us_bytes += bytes;
            if let Op::Read { .. } = op {
                part.rest().copy_from_buffers(&memory.slice(0, bytes));
            }
        }
    }
    part.done_bytes += bytes;
}

/// Whether an operation went into the ring. If not, the part waits.
pub(super) type Submitted = Result<(), RingFull>;
