//! One file or block device below a volume.
//!
//! Reads and writes go with O_DIRECT between device and guest memory. Three kinds of request take
//! another way:
//!
//! - A request with misaligned addresses, or one that reads blocks in part, bounces through memory
//!   of ours.
//! - A request that writes a block in part reads it, changes it and writes it back (`blocks`).
//! - A write to the end of a file that is no whole block goes through the page cache, and so does
//!   every request if the file system has no O_DIRECT.
//!
//! Nothing here reaches behind the end of the file. `file/serve.rs` chooses the way; this file says
//! what a file is, and who has which of its blocks.

mod serve;

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use smallvec::SmallVec;

use super::blocks::{self, Claims};
use super::error::VolumeError;
use super::probe::{self, Alignment};
use super::range::{changes, range_of};
use super::ring::Deferred;
use super::sub_request::SubRequest;
use crate::blk::SECTOR_BYTES;

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
    /// Its file system makes whoever begins a read or write wait.
    waits: bool,
    claims: Claims,
}

/// Opens a path that an operator gave.
pub(super) fn open_path(path: &Path, read_only: bool) -> Result<File, VolumeError> {
    // O_NONBLOCK: a path that turns out to be a pipe must not hold us up.
    let mut options = File::options();
    options.read(true).write(!read_only).custom_flags(libc::O_NONBLOCK);
    options.open(path).map_err(|error| open_error(error, path.display().to_string(), read_only))
}

/// Opens a file below a folder: no symlink leads out of that. Without a folder it is any file.
pub(super) fn open_below(
    root: Option<&Path>,
    path: &Path,
    read_only: bool,
) -> Result<File, VolumeError> {
    let Some(root) = root else { return open_path(path, read_only) };
    let name = || path.display().to_string();
    let outside = || VolumeError::Outside { path: name(), root: root.display().to_string() };
    let inner = path.strip_prefix(root).map_err(|_| outside())?;
    let folder = File::open(root).map_err(|error| open_error(error, name(), read_only))?;
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&folder, inner, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(file.into()),
        Err(Errno::XDEV) => Err(outside()),
        Err(errno) => Err(open_error(errno.into(), name(), read_only)),
    }
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
        let (claims, waits) = (Claims::default(), probe::makes_wait(&file));
        let (file, grows) = (Arc::new(file), false);
        Ok(Self { file, direct, size_bytes, grows, id, discards, waits, claims })
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

    /// What requests past the page cache must be multiples of; one byte if there are none.
    pub(super) fn alignment(&self) -> Alignment {
        let any = Alignment { memory: 1, offset: 1 };
        self.direct.as_ref().map_or(any, |(alignment, _)| *alignment)
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
    pub(super) fn split(&self, part: SubRequest) -> SmallVec<[SubRequest; 3]> {
        if self.suits(&part) {
            return SmallVec::from_iter([part]);
        }
        blocks::split(part, self.align().into(), self.end_bytes())
    }

    /// Whether a part begins and ends at blocks, or need not.
    pub(super) fn suits(&self, part: &SubRequest) -> bool {
        let (start, len) = range_of(part.op, part.buffers.len_bytes());
        self.direct.is_none() || (start | len) & (u64::from(self.align()) - 1) == 0
    }

    /// Whether two requests of different sectors may meet in one block.
    fn shares_blocks(&self) -> bool {
        let whole = self.grows || self.size_bytes.is_multiple_of(SECTOR_BYTES);
        self.direct.is_some() && (u64::from(self.align()) > SECTOR_BYTES || !whole)
    }

    /// Whether the part has its blocks to itself, as far as it needs to.
    fn claim(&mut self, part: &mut SubRequest) -> bool {
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
}

/// Whether an operation went into the ring. If not, the part waits.
pub(super) type Submitted = Result<(), Deferred>;
