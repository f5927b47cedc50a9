//! What is measured: a file without a name in the disk's folder, which ends with this process
//! however that ends, or a block device, which is only read.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstatvfs};

/// Size of our file, unless a quarter of what is free is less; of a device, what is read of it at
/// most.
const FILE_BYTES: u64 = 256 << 20;
const DEVICE_BYTES: u64 = 16 << 30;
/// The least that can be measured.
const LEAST_BYTES: u64 = 4 << 20;
/// Written at a time to fill the file.
const CHUNK_BYTES: usize = 1 << 20;

/// An open file or device.
#[derive(Debug)]
pub(super) struct Target {
    file: Arc<File>,
    size_bytes: u64,
    writable: bool,
    direct: bool,
}

impl Target {
    /// Opens what is at `path`; fills a file of its own in a folder.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let metadata = path.metadata()?;
        let (file, size_bytes, writable) = if metadata.is_dir() {
            let mut file = tempfile::tempfile_in(path)?;
            let size_bytes = fill(&mut file)?;
            (file, size_bytes, true)
        } else if metadata.file_type().is_block_device() {
            let mut file = File::open(path)?;
            let size_bytes = file.seek(SeekFrom::End(0))?.min(DEVICE_BYTES);
            (file, size_bytes, false)
        } else {
            return Err(io::Error::other("it is neither a folder nor a block device"));
        };
        if size_bytes < LEAST_BYTES {
            return Err(io::Error::other("there are less than 4 MiB to measure"));
        }
        let flags = fcntl_getfl(&file)?;
        let direct = fcntl_setfl(&file, flags | OFlags::DIRECT).is_ok();
        Ok(Self { file: Arc::new(file), size_bytes, writable, direct })
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether the page cache is bypassed.
    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }
}

/// Writes the file full; its size. What was never written is read without the disk.
fn fill(file: &mut File) -> io::Result<u64> {
    let system = fstatvfs(&*file)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let chunk = vec![0x5a; CHUNK_BYTES];
    let chunks = (free / 4).min(FILE_BYTES) / CHUNK_BYTES as u64;
    for _ in 0..chunks {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(chunks * CHUNK_BYTES as u64)
}
