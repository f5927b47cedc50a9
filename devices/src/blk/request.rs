//! From a descriptor chain to a typed request (virtio 1.2, 5.2.6). Pure: reads guest memory, writes
//! nothing, and reads every byte that it decides on once.
//!
//! The driver may frame its bytes as it likes (2.7.4): the readable bytes are the 16-byte header,
//! then data; the writable bytes are data, then the status byte, wherever descriptors end.

use smallvec::SmallVec;

use super::frontend::Token;
use crate::memory::Buffers;

/// A range of the disk for discard and write-zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// Write-zeroes only: the space behind it may be given back.
    pub unmap: bool,
}

/// What a request asks for. Offsets and lengths are multiples of 512 and lie inside the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill the buffers from the disk at this offset in bytes.
    Read {
        /// Where on the disk, in bytes.
        offset_bytes: u64,
    },
    /// Store the buffers to the disk at this offset in bytes.
    Write {
        /// Where on the disk, in bytes.
        offset_bytes: u64,
    },
    /// Everything that was completed before has to be on stable storage.
    Flush,
    /// The contents of these ranges are no longer needed.
    Discard(SmallVec<[Range; 1]>),
    /// These ranges have to read as zeros.
    WriteZeroes(SmallVec<[Range; 1]>),
}

/// A request that the I/O domain has to serve and then hand back by its token.
#[derive(Debug)]
pub struct Request {
    /// Hand this to [`super::Frontend::complete`].
    pub token: Token,
    /// What to do.
    pub op: Op,
    /// The guest's data buffers; empty unless `op` is a read or a write.
    pub buffers: Buffers,
}

/// A rule of virtio 1.2, 5.2.6 that a chain broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Fewer than 16 readable bytes.
    #[error("request header has {0} of 16 bytes")]
    ShortHeader(u64),
}
