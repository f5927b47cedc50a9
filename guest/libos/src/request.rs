//! Requests to a volume: what they are, how they are refused, how they end. [`crate::disk::Disk`]
//! is the volume of a tenant; tests have volumes of their own.

use crate::memory::Buffer;
use thiserror::Error;

/// Bytes of a sector, the unit of every request.
pub const SECTOR: u64 = 512;

/// A request was refused before it reached the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// As many requests as the ring holds are in flight.
    #[error("the disk has as many requests in flight as its ring holds")]
    Full,
    /// Position or length is no multiple of a sector, or behind the end.
    #[error("bytes {offset}+{len} are not whole sectors of a volume of {capacity} bytes")]
    Range {
        /// Position in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the volume in bytes.
        capacity: u64,
    },
    /// A write to a read-only volume.
    #[error("the volume is read-only")]
    ReadOnly,
}

/// The device answered a request with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// VIRTIO_BLK_S_IOERR, or a status that is none.
    #[error("I/O error")]
    Io,
    /// VIRTIO_BLK_S_UNSUPP.
    #[error("request not supported by the device")]
    Unsupported,
}

/// Names a request in flight; unique until its completion. What the number means is the volume's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u16);

/// A finished request.
#[derive(Debug)]
pub struct Completion {
    /// Which one.
    pub id: RequestId,
    /// Its buffer; `None` for a flush.
    pub buffer: Option<Buffer>,
    /// How it went.
    pub result: Result<(), RequestError>,
}

/// Something that can be read with many requests in flight. A request takes its [`Buffer`] along
/// and gives it back with its completion, so nobody can touch memory that a device works on.
pub trait Volume {
    /// What it means that the volume can not be used any more.
    type Fault;

    /// Size in bytes.
    fn capacity(&self) -> u64;

    /// What its size is a multiple of, in bytes. The last block may end in zeros that nobody wrote.
    fn block(&self) -> u64 {
        SECTOR
    }

    /// Where these zeros begin, if that is known.
    fn data_bytes(&self) -> Option<u64> {
        None
    }

    /// Requests in flight.
    fn in_flight(&self) -> u16;

    /// Queues a read of the first `len` bytes of `buffer` from byte `offset`.
    ///
    /// # Errors
    /// A [`Refusal`], with the buffer.
    fn read(
        &mut self,
        offset: u64,
        buffer: Buffer,
        len: usize,
    ) -> Result<RequestId, (Refusal, Buffer)>;

    /// Shows queued requests to the device.
    fn kick(&mut self);

    /// The next finished request, in any order.
    ///
    /// # Errors
    /// The fault of a device that is unusable from now on.
    fn poll(&mut self) -> Result<Option<Completion>, Self::Fault>;
}
