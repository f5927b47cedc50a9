//! A volume in one raw file or on one block device.
//!
//! Reads and writes go with O_DIRECT between device and guest memory. A request whose addresses are
//! misaligned bounces through memory of ours; one whose place on the disk is misaligned, and every
//! request where the file system has no O_DIRECT, goes through the page cache.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::job::Way;
use super::probe::{self, Alignment};
use super::uring::{Deallocate, Ring, RingFull};
use super::{Job, Step, Storage, bounce};
use crate::blk::{DISK_ID_LEN, Op, Outcome, Range, SECTOR_BYTES};
use crate::counters::Counters;

/// How much is zeroed at a time where the file system cannot zero a range.
const ZERO_CHUNK_BYTES: u64 = 1 << 20;

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is nothing at this path.
    #[error("volume {0} does not exist; create it or correct the path")]
    Missing(String),
    /// No permission to open it so.
    #[error("no permission to {how} volume {path}; change its mode or owner")]
    Forbidden {
        /// The volume.
        path: String,
        /// "read" or "read and write".
        how: &'static str,
    },
    /// A directory, a pipe, a character device.
    #[error("volume {0} is neither a file nor a block device")]
    NotAVolume(String),
    /// Less than one sector.
    #[error("volume {path} has {size_bytes} bytes, less than one sector of 512")]
    TooSmall {
        /// The volume.
        path: String,
        /// Its size.
        size_bytes: u64,
    },
    /// Anything else that went wrong when it was opened.
    #[error("volume {path}: {source}")]
    Io {
        /// The volume.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// One volume: an open file and what is known of it.
#[derive(Debug)]
pub struct Volume {
    file: Arc<File>,
    /// What O_DIRECT wants, and the same file without O_DIRECT.
    direct: Option<(Alignment, Arc<File>)>,
    size_bytes: u64,
    read_only: bool,
    id: [u8; DISK_ID_LEN],
    /// How its payload moved.
    pub counters: Counters,
}

impl Volume {
    /// Opens a raw file or block device, with O_DIRECT where the file system has it.
    ///
    /// # Errors
    /// See [`VolumeError`]; each says what to do.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, VolumeError> {
        let name = path.display().to_string();
        // O_NONBLOCK: a path that turns out to be a pipe must not hold us up.
        let mut options = File::options();
        options.read(true).write(!read_only).custom_flags(libc::O_NONBLOCK);
        match options.open(path) {
            Ok(file) => Self::from_file(file, name, read_only),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound => VolumeError::Missing(name),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    let how = if read_only { "read" } else { "read and write" };
                    VolumeError::Forbidden { path: name, how }
                }
                io::ErrorKind::IsADirectory => VolumeError::NotAVolume(name),
                _ => VolumeError::Io { path: name, source: error },
            }),
        }
    }

    /// Takes over an open file; `name` is for messages. Its file status flags are changed.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn from_file(file: File, name: String, read_only: bool) -> Result<Self, VolumeError> {
        let failed = |source| VolumeError::Io { path: name.clone(), source };
        let Some(size_bytes) = probe::size(&file).map_err(failed)? else {
            return Err(VolumeError::NotAVolume(name));
        };
        if size_bytes < SECTOR_BYTES {
            return Err(VolumeError::TooSmall { path: name, size_bytes });
        }
        probe::make_blocking(&file).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let buffered = probe::reopen_buffered(&file, read_only);
        let direct =
            buffered.ok().and_then(|again| Some((probe::make_direct(&file)?, Arc::new(again))));
        Ok(Self {
            id: identity(&metadata),
            file: Arc::new(file),
            direct,
            size_bytes: size_bytes - size_bytes % SECTOR_BYTES,
            read_only,
            counters: Counters::default(),
        })
    }

    /// Usable size in bytes, a multiple of 512.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether the page cache is bypassed. If not, the kernel copies every byte; say so to the user.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// What offsets and lengths must be multiples of, in bytes, to bypass the page cache.
    pub fn align(&self) -> u32 {
        self.direct.as_ref().map_or(1, |(alignment, _)| alignment.offset)
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// A stable name for the guest, made of device and inode number.
    pub fn id(&self) -> [u8; DISK_ID_LEN] {
        self.id
    }

    /// What a guest sees of it, with `queues` request queues of `queue_size`.
    pub fn disk(&self, queues: u16, queue_size: u16) -> crate::blk::Disk {
        crate::blk::Disk {
            capacity_sectors: self.size_bytes / SECTOR_BYTES,
            read_only: self.read_only,
            block_size: self.align().clamp(512, 4096),
            discard: !self.read_only,
            queues,
            queue_size,
            id: self.id,
        }
    }

    /// Which file and which memory the rest of a read or write uses.
    fn way(&self, offset: u64, job: &Job) -> Way {
        let Some((alignment, _)) = &self.direct else { return Way::PageCache };
        let rest = job.request.buffers.len_bytes() - job.done_bytes;
        if (offset | rest) & u64::from(alignment.offset - 1) != 0 {
            return Way::PageCache;
        }
        let fits = job.request.buffers.segments().iter().all(|segment| {
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

    /// Reads what is left of the job.
    fn read(&mut self, ring: &mut Ring, token: u64, job: &mut Job, at: u64) -> Submitted {
        let offset = at + job.done_bytes;
        job.way = self.way(offset, job);
        let buffers = match &job.way {
            Way::Bounce(memory) => memory.clone(),
            Way::Direct | Way::PageCache => job.rest(),
        };
        ring.readv(self.file_for(&job.way), buffers, offset, token)
    }

    /// Writes what is left of the job.
    fn write(
        &mut self,
        ring: &mut Ring,
        token: u64,
        job: &mut Job,
        at: u64,
        durable: bool,
    ) -> Submitted {
        let offset = at + job.done_bytes;
        job.way = self.way(offset, job);
        let buffers = match &job.way {
            Way::Bounce(memory) => {
                memory.copy_from_buffers(&job.rest());
                memory.clone()
            }
            Way::Direct | Way::PageCache => job.rest(),
        };
        ring.writev(self.file_for(&job.way), buffers, offset, durable, token)
    }

    /// Zeroes a range in the best way that the file system has not refused yet: as asked for, by
    /// giving the space back if that is allowed, by writing zeros.
    fn write_zeroes(
        &mut self,
        ring: &mut Ring,
        token: u64,
        job: &mut Job,
        range: Range,
    ) -> Submitted {
        let how = match (job.refused, range.unmap) {
            (0, true) => Deallocate::PunchHole,
            (0, false) | (1, true) => Deallocate::ZeroRange,
            _ => {
                let rest = range.len_bytes - job.done_bytes;
                let zeros = bounce::zeroed(rest.min(ZERO_CHUNK_BYTES)).map_err(|_| RingFull)?;
                job.way = Way::PageCache;
                let file = self.file_for(&job.way);
                return ring.writev(file, zeros, range.offset_bytes + job.done_bytes, false, token);
            }
        };
        let Range { offset_bytes, len_bytes, .. } = range;
        ring.deallocate(&self.file, how, offset_bytes, len_bytes, token)
    }

    /// Counts `bytes` that went the job's way, and copies them on where that is left to us.
    fn account(&mut self, job: &mut Job, bytes: u64) {
        let counters = &mut self.counters;
        match (&job.way, job.request.op) {
            // Zeros are nobody's payload.
            (_, Op::WriteZeroes(_)) => {}
            (Way::Direct, _) => counters.direct_bytes += bytes,
            (Way::PageCache, _) => counters.copied_by_kernel_bytes += bytes,
            (Way::Bounce(memory), op) => {
                counters.copied_by_us_bytes += bytes;
                if let Op::Read { .. } = op {
                    job.rest().copy_from_buffers(&memory.slice(0, bytes));
                }
            }
        }
        job.done_bytes += bytes;
    }
}

/// Whether an operation went into the ring.
type Submitted = Result<(), RingFull>;

impl Storage for Volume {
    fn submit(&mut self, ring: &mut Ring, token: u64, job: &mut Job) -> Result<Step, RingFull> {
        match job.request.op {
            Op::Read { offset_bytes } => self.read(ring, token, job, offset_bytes)?,
            Op::Write { offset_bytes, durable } => {
                self.write(ring, token, job, offset_bytes, durable)?;
            }
            Op::Flush => ring.fdatasync(&self.file, token)?,
            Op::Discard(Range { len_bytes: 0, .. })
            | Op::WriteZeroes(Range { len_bytes: 0, .. }) => {
                return Ok(Step::Done(Outcome::Ok));
            }
            Op::Discard(Range { offset_bytes, len_bytes, .. }) => {
                let hole = Deallocate::PunchHole;
                ring.deallocate(&self.file, hole, offset_bytes, len_bytes, token)?;
            }
            Op::WriteZeroes(range) => self.write_zeroes(ring, token, job, range)?,
        }
        Ok(Step::Pending)
    }

    fn completed(
        &mut self,
        ring: &mut Ring,
        token: u64,
        job: &mut Job,
        result: io::Result<u32>,
    ) -> Result<Step, RingFull> {
        let bytes = match result {
            Ok(bytes) => u64::from(bytes),
            Err(error) => return self.failed(ring, token, job, &error),
        };
        let total = match job.request.op {
            Op::Read { .. } | Op::Write { .. } => job.request.buffers.len_bytes(),
            Op::WriteZeroes(range) if job.refused > 1 => range.len_bytes,
            Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => {
                return Ok(Step::Done(Outcome::Ok));
            }
        };
        if bytes == 0 {
            // The volume has become shorter than it was when it was opened, or takes no more.
            return Ok(Step::Done(Outcome::IoError));
        }
        self.account(job, bytes.min(total - job.done_bytes));
        if job.done_bytes < total {
            return self.submit(ring, token, job);
        }
        Ok(Step::Done(Outcome::Ok))
    }
}

impl Volume {
    /// What an error of the kernel means for the job.
    fn failed(
        &mut self,
        ring: &mut Ring,
        token: u64,
        job: &mut Job,
        error: &io::Error,
    ) -> Result<Step, RingFull> {
        let code = error.raw_os_error();
        let unsupported = matches!(code, Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL));
        match job.request.op {
            _ if matches!(code, Some(libc::EINTR | libc::EAGAIN)) => self.submit(ring, token, job),
            // A discard is a hint.
            Op::Discard(_) if unsupported => Ok(Step::Done(Outcome::Ok)),
            Op::WriteZeroes(range) if unsupported && job.refused < 2 => {
                job.refused = if range.unmap { job.refused + 1 } else { 2 };
                self.submit(ring, token, job)
            }
            _ => Ok(Step::Done(Outcome::IoError)),
        }
    }
}

/// Device and inode number: the same for every name of the file, and across restarts.
fn identity(metadata: &std::fs::Metadata) -> [u8; DISK_ID_LEN] {
    let text = format!("{:x}-{:x}", metadata.dev(), metadata.ino());
    let mut id = [0; DISK_ID_LEN];
    id.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    id
}

impl AsFd for Volume {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
