//! A file as imago sees it: as it is, or without the marks that an image was not closed or is
//! corrupt. imago refuses every image with these marks, but such an image may be read. And nothing
//! but a header is written where the header is, and an entry of the level-1 table only behind what
//! it names (`late`).
//!
//! What direct I/O wants of a request the host service has found out. imago would do so by reading
//! and writing the start of the file, and a hole there can be read in any way.
#![allow(unsafe_code, reason = "imago's trait for storage has unsafe methods")]

use std::fmt::{Display, Formatter};
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use imago::io_buffers::{IoBuffer, IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageOpenOptions};

use moirai_image_wire::Alignment;
use moirai_image_wire::format::{FEATURES_LAST_BYTE, MAGIC, MARKS};

use crate::late::LateTable;

/// A file of an image.
#[derive(Debug)]
pub(crate) struct ImageFile {
    inner: imago::file::File,
    alignment: Alignment,
    beginning: Beginning,
    /// Of an image that is written.
    late: Option<Mutex<LateTable>>,
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
        Ok(Self { inner, alignment, beginning, late: None })
    }

    /// The same, of which the level-1 table is at these bytes, from and to.
    pub(crate) fn with_table(self, l1: (u64, u64)) -> Self {
        Self { late: Some(Mutex::new(LateTable::new(l1))), ..self }
    }

    /// The table with entries that wait, if the range is part of it.
    fn late(&self, offset: u64, len: u64) -> Option<MutexGuard<'_, LateTable>> {
        let table = self.late.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        table.meets(offset, len).then_some(table)
    }

    /// Memory for so many bytes, aligned as direct I/O wants it, with what is there now.
    fn copy_of(&self, offset: u64, len: u64) -> io::Result<IoBuffer> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut copy = IoBuffer::new(len, self.mem_align())?;
        // SAFETY: the memory is aligned, and the range is one that imago writes, or a block.
        unsafe { self.inner.pure_readv((&mut copy).into(), offset)? };
        Ok(copy)
    }

    /// Writes what has waited, behind everything that was written before.
    fn settle(&self) -> io::Result<()> {
        let Some(late) = &self.late else { return Ok(()) };
        let mut table = late.lock().unwrap_or_else(PoisonError::into_inner);
        let align = self.req_align().max(512) as u64;
        let mut synced = false;
        while let Some(offset) = table.next_block(align) {
            if !synced {
                self.inner.sync()?;
                synced = true;
            }
            let mut block = self.copy_of(offset, align)?;
            table.fill_in(offset, block.as_mut().into_slice());
            // SAFETY: the memory is aligned, and so is the block.
            unsafe { self.inner.pure_writev((&block).into(), offset)? };
            table.written(offset, align);
        }
        Ok(())
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
        let (len, end) = (bufv.len(), offset.saturating_add(bufv.len()));
        let marked = self.beginning == Beginning::MarkedHeader
            && (offset..end).contains(&FEATURES_LAST_BYTE);
        let late = self.late(offset, len);
        if !marked && late.is_none() {
            // SAFETY: as imago promised to us.
            return unsafe { self.inner.pure_readv(bufv, offset) };
        }
        let mut copy = self.copy_of(offset, len)?;
        let bytes = copy.as_mut().into_slice();
        if let Some(table) = late {
            table.fill_in(offset, bytes);
        }
        let place = usize::try_from(FEATURES_LAST_BYTE.saturating_sub(offset));
        if marked && let Some(features) = bytes.get_mut(place.map_err(io::Error::other)?) {
            *features &= !MARKS;
        }
        bufv.copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let bufv = self.checked(bufv, offset)?;
        let Some(mut table) = self.late(offset, bufv.len()) else {
            // SAFETY: as imago promised to us.
            return unsafe { self.inner.pure_writev(bufv, offset) };
        };
        let there = self.copy_of(offset, bufv.len())?;
        let mut now = IoBuffer::new(there.len(), self.mem_align())?;
        bufv.copy_into_slice(now.as_mut().into_slice());
        let there = there.as_ref().into_slice();
        table.hold_back(offset, now.as_mut().into_slice(), there);
        if now.as_ref().into_slice() == there {
            return Ok(());
        }
        // SAFETY: as imago promised to us; the copy is aligned and as long as what it gave.
        unsafe { self.inner.pure_writev((&now).into(), offset) }
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

    /// imago calls this when it has written what it had in memory.
    fn flush(&self) -> io::Result<()> {
        self.settle()?;
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
