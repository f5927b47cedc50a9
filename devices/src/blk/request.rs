//! From a descriptor chain to a typed request (virtio 1.2, 5.2.6). Pure: reads guest memory, writes
//! nothing, and reads every byte that it decides on once.
//!
//! The driver may frame its bytes as it likes (2.7.4): the readable bytes are the 16-byte header,
//! then data; the writable bytes are data, then the status byte, wherever descriptors end.

use std::sync::Arc;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Address, GuestAddress, GuestMemory as _, Permissions};

use super::config::{MAX_DISCARD_BYTES, MAX_REQUEST_BYTES, SEG_MAX};
use super::{Disk, SECTOR_BYTES};
use crate::memory::{Buffers, GuestMemory, OutsideMemory};
use crate::virtqueue::{self, Chain, Descriptor};

/// Type, reserved word, sector.
const HEADER_BYTES: u64 = 16;
/// Sector, number of sectors, flags: the data of a discard or write-zeroes request.
const RANGE_BYTES: u64 = 16;
/// The one flag of a range.
const RANGE_FLAG_UNMAP: u32 = 1;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        /// The data has to be on stable storage when the request completes, because the driver
        /// cannot ask for a flush.
        durable: bool,
    },
    /// Everything that was completed before has to be on stable storage.
    Flush,
    /// The contents of this range are no longer needed.
    Discard(Range),
    /// This range has to read as zeros.
    WriteZeroes(Range),
}

/// What is to be done with a disk, whoever asks for it.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// The data buffers; empty unless `op` is a read or a write.
    pub buffers: Buffers,
}

/// A well-formed chain.
#[derive(Debug)]
pub(super) enum Command {
    /// For the I/O domain.
    Io { op: Op, buffers: Buffers },
    /// To be answered with the disk's name.
    GetId { buffers: Buffers },
}

/// A rule of virtio 1.2, 5.2.6 that a chain broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A readable descriptor after a writable one.
    #[error("a readable descriptor follows a writable one")]
    MixedDirections,
    /// No writable byte in guest memory to put the status in.
    #[error("there is no writable status byte")]
    NoStatus,
    /// Fewer than 16 readable bytes.
    #[error("request header has {0} of 16 bytes")]
    ShortHeader(u64),
    /// Header or data are not guest memory.
    #[error(transparent)]
    OutsideMemory(#[from] OutsideMemory),
    /// A type that this device does not have, or that was not negotiated.
    #[error("request type {0} is not supported")]
    UnknownType(u32),
    /// Data bytes in the direction that the type does not have.
    #[error("request type {kind} carries {len_bytes} bytes in the wrong direction")]
    WrongDirection {
        /// Type of the request.
        kind: u32,
        /// Bytes that should not be there.
        len_bytes: u64,
    },
    /// Data of no or a wrong length: reads and writes move whole sectors, ranges have 16 bytes.
    #[error("request type {kind} cannot have {len_bytes} bytes of data")]
    BadLength {
        /// Type of the request.
        kind: u32,
        /// Bytes of data.
        len_bytes: u64,
    },
    /// More than the configuration space allows.
    #[error("{segments} data segments, at most {SEG_MAX} are allowed")]
    TooManySegments {
        /// How many there are.
        segments: usize,
    },
    /// Longer than the configuration space allows, or too long for one unit of disk time.
    #[error("{len_bytes} bytes in one request")]
    TooLong {
        /// How many there are.
        len_bytes: u64,
    },
    /// A part of it lies behind the end of the disk.
    #[error("{len_bytes} bytes at sector {sector} do not lie on the disk")]
    BeyondCapacity {
        /// First sector.
        sector: u64,
        /// Length.
        len_bytes: u64,
    },
    /// A request that changes a read-only disk.
    #[error("request type {0} on a read-only disk")]
    ReadOnly(u32),
    /// A flag of a range that is reserved, or not allowed with this type.
    #[error("flags {flags:#x} of request type {kind} are not supported")]
    BadFlags {
        /// Type of the request.
        kind: u32,
        /// The flags.
        flags: u32,
    },
}

/// Where the status byte goes: the last writable byte of the chain, if that is guest memory.
pub(super) fn status_address(mem: &GuestMemory, chain: &Chain) -> Option<GuestAddress> {
    let last = chain.descriptors.last().filter(|last| last.writable)?;
    let address = last.addr.checked_add(u64::from(last.len).checked_sub(1)?)?;
    mem.check_range(address, 1, Permissions::Write).then_some(address)
}

/// Parses one chain. `features` are those that the driver has chosen.
pub(super) fn parse(
    mem: &Arc<GuestMemory>,
    chain: &Chain,
    disk: &Disk,
    durable: bool,
) -> Result<Command, ParseError> {
    let (readable, writable) = chain.split().ok_or(ParseError::MixedDirections)?;
    let data_in = virtqueue::len_bytes(writable).checked_sub(1).ok_or(ParseError::NoStatus)?;
    let (kind, sector) = header(mem, readable)?;
    let data_out = virtqueue::len_bytes(readable).saturating_sub(HEADER_BYTES);
    let request = Raw { mem, disk, kind, sector, readable, writable, data_in, data_out };
    let io = |op, buffers| Ok(Command::Io { op, buffers });
    let nothing = || Buffers::new(Arc::clone(mem));
    match kind {
        VIRTIO_BLK_T_IN => {
            io(Op::Read { offset_bytes: request.data_range(data_in)? }, request.data_to_guest()?)
        }
        VIRTIO_BLK_T_OUT => {
            request.changes_disk()?;
            let offset_bytes = request.data_range(data_out)?;
            io(Op::Write { offset_bytes, durable }, request.data_from_guest()?)
        }
        VIRTIO_BLK_T_FLUSH => {
            request.expect_data(0, 0)?;
            io(Op::Flush, nothing())
        }
        VIRTIO_BLK_T_GET_ID => {
            request.expect_data(0, data_in)?;
            Ok(Command::GetId { buffers: request.data_to_guest()? })
        }
        VIRTIO_BLK_T_DISCARD if disk.discard => {
            let range = request.range(MAX_DISCARD_BYTES, 0)?;
            io(Op::Discard(range), nothing())
        }
        VIRTIO_BLK_T_WRITE_ZEROES if disk.write_zeroes => {
            let range = request.range(MAX_REQUEST_BYTES, RANGE_FLAG_UNMAP)?;
            io(Op::WriteZeroes(range), nothing())
        }
        _ => Err(ParseError::UnknownType(kind)),
    }
}

/// Type and sector.
fn header(mem: &Arc<GuestMemory>, readable: &[Descriptor]) -> Result<(u32, u64), ParseError> {
    let mut bytes = [0; 16];
    let buffers = virtqueue::buffers(mem, readable, 0, HEADER_BYTES)?;
    if buffers.copy_to(&mut bytes) < bytes.len() {
        return Err(ParseError::ShortHeader(buffers.len_bytes()));
    }
    let [a, b, c, d, _, _, _, _, sector @ ..] = bytes;
    Ok((u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(sector)))
}

/// A chain whose header was read.
struct Raw<'a> {
    mem: &'a Arc<GuestMemory>,
    disk: &'a Disk,
    kind: u32,
    sector: u64,
    readable: &'a [Descriptor],
    writable: &'a [Descriptor],
    /// Bytes for the guest, without the status byte.
    data_in: u64,
    /// Bytes from the guest, without the header.
    data_out: u64,
}

impl Raw<'_> {
    fn changes_disk(&self) -> Result<(), ParseError> {
        if self.disk.read_only { Err(ParseError::ReadOnly(self.kind)) } else { Ok(()) }
    }

    /// Requires so many data bytes from and to the guest.
    fn expect_data(&self, data_out: u64, data_in: u64) -> Result<(), ParseError> {
        let excess = self.data_out.saturating_sub(data_out) + self.data_in.saturating_sub(data_in);
        if excess > 0 {
            return Err(ParseError::WrongDirection { kind: self.kind, len_bytes: excess });
        }
        if self.data_out < data_out {
            return Err(ParseError::BadLength { kind: self.kind, len_bytes: self.data_out });
        }
        Ok(())
    }

    /// Where a read or write of `len_bytes` begins, in bytes; the other direction has to be empty.
    fn data_range(&self, len_bytes: u64) -> Result<u64, ParseError> {
        let other = self.data_in + self.data_out - len_bytes;
        if other > 0 {
            return Err(ParseError::WrongDirection { kind: self.kind, len_bytes: other });
        }
        if len_bytes == 0 || !len_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(ParseError::BadLength { kind: self.kind, len_bytes });
        }
        if len_bytes > MAX_REQUEST_BYTES {
            return Err(ParseError::TooLong { len_bytes });
        }
        self.on_disk(self.sector, len_bytes)
    }

    /// The offset in bytes of a range that has to lie on the disk.
    fn on_disk(&self, sector: u64, len_bytes: u64) -> Result<u64, ParseError> {
        let sectors = len_bytes / SECTOR_BYTES;
        sector
            .checked_add(sectors)
            .filter(|end| *end <= self.disk.capacity_sectors)
            .and_then(|_| sector.checked_mul(SECTOR_BYTES))
            .ok_or(ParseError::BeyondCapacity { sector, len_bytes })
    }

    fn data_to_guest(&self) -> Result<Buffers, ParseError> {
        within_segments(virtqueue::buffers(self.mem, self.writable, 0, self.data_in)?)
    }

    fn data_from_guest(&self) -> Result<Buffers, ParseError> {
        within_segments(virtqueue::buffers(self.mem, self.readable, HEADER_BYTES, self.data_out)?)
    }

    /// The one range of a discard or write-zeroes request.
    fn range(&self, max_bytes: u64, allowed_flags: u32) -> Result<Range, ParseError> {
        self.changes_disk()?;
        self.expect_data(RANGE_BYTES, 0)?;
        let mut bytes = [0; 16];
        virtqueue::buffers(self.mem, self.readable, HEADER_BYTES, RANGE_BYTES)?.copy_to(&mut bytes);
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let len_bytes = u64::from(u32::from_le_bytes([n0, n1, n2, n3])) * SECTOR_BYTES;
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        if flags & !allowed_flags != 0 {
            return Err(ParseError::BadFlags { kind: self.kind, flags });
        }
        if len_bytes > max_bytes {
            return Err(ParseError::TooLong { len_bytes });
        }
        let offset_bytes = self.on_disk(sector, len_bytes)?;
        Ok(Range { offset_bytes, len_bytes, unmap: flags & RANGE_FLAG_UNMAP != 0 })
    }
}

fn within_segments(buffers: Buffers) -> Result<Buffers, ParseError> {
    let segments = buffers.segments().len();
    if segments > SEG_MAX as usize {
        return Err(ParseError::TooManySegments { segments });
    }
    Ok(buffers)
}
