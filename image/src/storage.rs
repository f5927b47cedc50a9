//! A file as imago sees it: as it is, or without the marks that an image was not closed or is
//! corrupt. imago refuses every image with these marks, but such an image may be read. And nothing
//! but a header is written where the header is.
//!
//! What direct I/O wants of a request the host service has found out. imago would do so by reading
//! and writing the start of the file, and a hole there can be read in any way.
#![allow(unsafe_code, reason = "imago's trait for storage has unsafe methods")]

use std::fmt::{Display, Formatter};
use std::fs::File;
use std::io;

use imago::io_buffers::{IoBuffer, IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageOpenOptions};

use moirai_image_wire::Alignment;
use moirai_image_wire::format::{FEATURES_LAST_BYTE, MAGIC, MARKS};

/// A file of an image.
#[derive(Debug)]
pub(crate) struct ImageFile {
    inner: imago::file::File,
    alignment: Alignment,
    beginning: Beginning,
}

/// What a file of an image begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Data: a raw backing file, a data file.
    Data,
    /// The header of an image.
    Header,
    /// The same, with marks that are hidden from imago: only if it is opened for reading.
    MarkedHeader,
}

impl ImageFile {
    /// Takes over an open file, and what its requests have to be multiples of.
    pub(crate) fn new(
        file: File,
        writable: bool,
        alignment: Alignment,
        beginning: Beginning,
    ) -> io::Result<Self> {
        // Not told of O_DIRECT, imago probes nothing.
        let options = StorageOpenOptions::new().write(writable).direct(false);
        let inner = imago::file::File::from_open_file(file, options)?;
        Ok(Self { inner, alignment, beginning })
    }

    /// What may be written. Damaged tables may say that the first cluster is free, and imago would
    /// make data or a table of it; with a refcount block there it calls itself for ever.
    fn checked<'a>(&self, bufv: IoVector<'a>, offset: u64) -> io::Result<IoVector<'a>> {
        if offset >= MAGIC.len() as u64 || self.beginning == Beginning::Data {
            return Ok(bufv);
        }
        let slices = bufv.into_inner();
        let begin = slices.iter().flat_map(|slice| slice.iter()).take(MAGIC.len());
        if offset > 0 || !begin.eq(MAGIC) {
            return Err(over_the_header());
        }
        Ok(slices.into())
    }

    /// The same for what is discarded or becomes zero.
    fn check_cleared(&self, offset: u64) -> io::Result<()> {
        if offset < MAGIC.len() as u64 && self.beginning != Beginning::Data {
            return Err(over_the_header());
        }
        Ok(())
    }
}

fn over_the_header() -> io::Error {
    let what = "the tables of the image say that its header is free";
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Display for ImageFile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

// SAFETY of all the unsafe methods: what imago promises to this storage, this storage promises to
// the file below it, with the same arguments.
impl Storage for ImageFile {
    fn mem_align(&self) -> usize {
        self.alignment.memory as usize
    }

    fn req_align(&self) -> usize {
        self.alignment.offset as usize
    }

    fn zero_align(&self) -> usize {
        self.inner.zero_align().max(self.req_align())
    }

    fn discard_align(&self) -> usize {
        self.inner.discard_align().max(self.req_align())
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    unsafe fn pure_readv(&self, mut bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bufv.len());
        let marked = self.beginning == Beginning::MarkedHeader;
        if !marked || !(offset..end).contains(&FEATURES_LAST_BYTE) {
            // SAFETY: as imago promised to us.
            return unsafe { self.inner.pure_readv(bufv, offset) };
        }
        let len = usize::try_from(bufv.len()).map_err(io::Error::other)?;
        let mut copy = IoBuffer::new(len, self.mem_align())?;
        // SAFETY: as imago promised to us; the copy is aligned and as long as what it asked for.
        unsafe { self.inner.pure_readv((&mut copy).into(), offset)? };
        let bytes = copy.as_mut().into_slice();
        let place = usize::try_from(FEATURES_LAST_BYTE - offset).map_err(io::Error::other)?;
        if let Some(features) = bytes.get_mut(place) {
            *features &= !MARKS;
        }
        bufv.copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let bufv = self.checked(bufv, offset)?;
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_writev(bufv, offset) }
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_cleared(offset)?;
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_cleared(offset)?;
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_cleared(offset)?;
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_discard(offset, length) }
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn settle_writes(&self) -> io::Result<()> {
        self.inner.settle_writes()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: as imago promised to us.
        unsafe { self.inner.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.inner.get_storage_helper()
    }

    fn resize(&self, new_size: u64, prealloc_mode: PreallocateMode) -> io::Result<()> {
        self.inner.resize(new_size, prealloc_mode)
    }
}
