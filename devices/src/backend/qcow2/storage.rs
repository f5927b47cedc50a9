//! A file as imago sees it: as it is, or without the marks that an image was not closed or is
//! corrupt. imago refuses every image with these marks, but such an image may be read.
#![allow(unsafe_code, reason = "imago's trait for storage has unsafe methods")]

use std::fmt::{Display, Formatter};
use std::fs::File;
use std::io;

use imago::io_buffers::{IoBuffer, IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageExt as _, StorageOpenOptions};

use super::header::{FEATURES_LAST_BYTE, MARKS};

/// A file of an image.
#[derive(Debug)]
pub(super) struct ImageFile {
    inner: imago::file::File,
    /// Whether its marks are hidden.
    unmarked: bool,
}

impl ImageFile {
    /// Takes over an open file. Hide marks only if it is opened for reading.
    pub(super) fn new(file: File, options: StorageOpenOptions, unmarked: bool) -> io::Result<Self> {
        Ok(Self { inner: imago::file::File::from_open_file(file, options)?, unmarked })
    }
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
        self.inner.mem_align()
    }

    fn req_align(&self) -> usize {
        self.inner.req_align()
    }

    fn zero_align(&self) -> usize {
        self.inner.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.inner.discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    unsafe fn pure_readv(&self, mut bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bufv.len());
        if !self.unmarked || !(offset..end).contains(&FEATURES_LAST_BYTE) {
            // SAFETY: as imago promised to us.
            return unsafe { self.inner.pure_readv(bufv, offset) };
        }
        let len = usize::try_from(bufv.len()).map_err(io::Error::other)?;
        let mut copy = IoBuffer::new(len, self.mem_align())?;
        self.inner.read(&mut copy, offset)?;
        let bytes = copy.as_mut().into_slice();
        let place = usize::try_from(FEATURES_LAST_BYTE - offset).map_err(io::Error::other)?;
        if let Some(features) = bytes.get_mut(place) {
            *features &= !MARKS;
        }
        bufv.copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_writev(bufv, offset) }
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
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
