//! Reads files that somebody else wrote, and little-endian fields in what was read.
//!
//! By `pread` only: the sandbox of the process allows no more, and no position is shared with
//! others who have the file open.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Why bytes of a file could not be had.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file ends too soon.
    #[error("is truncated: it ends before byte {end}")]
    Truncated {
        /// First byte after what is missing.
        end: u64,
    },
    /// The kernel refuses.
    #[error("cannot be read at byte {offset}: {error}")]
    Io {
        /// Where.
        offset: u64,
        /// What the kernel said.
        error: io::Error,
    },
    /// There is no memory at the place where it should go.
    #[error("does not fit guest memory at {address:#x}")]
    NoMemory {
        /// Where.
        address: u64,
    },
}

/// Fills `bytes` from `offset` on.
pub(super) fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
    file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            ReadError::Truncated { end: offset.saturating_add(bytes.len() as u64) }
        }
        _ => ReadError::Io { offset, error },
    })
}

/// Copies `len` bytes of the file to guest memory. The caller has checked that neither range wraps.
pub(super) fn copy(
    file: &File,
    offset: u64,
    len: u64,
    memory: &GuestMemoryMmap,
    address: u64,
) -> Result<(), ReadError> {
    const CHUNK: u64 = 128 << 10;
    let mut buffer = vec![0; usize::try_from(len.min(CHUNK)).unwrap_or(0)];
    let mut done = 0;
    while done < len {
        let size = usize::try_from((len - done).min(CHUNK)).unwrap_or(0);
        let Some(chunk) = buffer.get_mut(..size) else { break };
        read_at(file, offset.saturating_add(done), chunk)?;
        let address = address.saturating_add(done);
        let target = memory.get_slice(GuestAddress(address), size);
        target.map_err(|_| ReadError::NoMemory { address })?.copy_from(chunk);
        done += size as u64;
    }
    Ok(())
}

/// Little-endian field at `offset`; zero if the bytes are too short, which callers rule out.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

pub(super) fn u8_at(bytes: &[u8], offset: usize) -> u8 {
    u8::from_le_bytes(field(bytes, offset))
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(field(bytes, offset))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(field(bytes, offset))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(field(bytes, offset))
}
