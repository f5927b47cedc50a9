//! A file as imago sees it: as it is, or without the marks that an image was not closed or is
//! corrupt. imago refuses every image with these marks, but such an image may be read. And nothing
//! but a header is written where the header is.
//!
//! What direct I/O wants of a request is what the file system says (`probe`). imago would find it
//! out by reading and writing the start of the file, and a hole there can be read in any way.
#![allow(unsafe_code, reason = "imago's trait for storage has unsafe methods")]

use std::fmt::{Display, Formatter};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use imago::io_buffers::{IoBuffer, IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageOpenOptions};

use super::header::{FEATURES_LAST_BYTE, MAGIC, MARKS};
use crate::backend::probe::Alignment;

/// A file of an image.
#[derive(Debug)]
pub(super) struct ImageFile {
    inner: imago::file::File,
    alignment: Alignment,
    beginning: Beginning,
    order: Order,
}

/// In which order writes reach the disk.
///
/// imago writes a table before what refers to it, but does not wait until it is there, and a power
/// loss may keep the second and lose the first. And it writes an entry of the level-1 table while
/// the refcount of what that refers to is in its cache; so these entries are kept back until all
/// else is on the disk, as other tables are in its cache until then.
#[derive(Debug, Default)]
struct Order {
    /// Header and tables that never move: level 1, refcounts, snapshots.
    places: OnceLock<[(u64, u64); 4]>,
    /// All tables are being written, and nothing else.
    tables: AtomicBool,
    /// Something was written since the last sync.
    written: AtomicBool,
    /// Writes to the level-1 table: where, and what.
    kept_back: Mutex<Vec<(u64, Vec<u8>)>>,
}

/// What a file of an image begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Data: a raw backing file, a data file.
    Data,
    /// The header of an image.
    Header,
    /// The same, with marks that are hidden from imago: only if it is opened for reading.
    MarkedHeader,
}

impl ImageFile {
    /// Takes over an open file, and what its requests have to be multiples of.
    pub(super) fn new(
        file: File,
        writable: bool,
        alignment: Alignment,
        beginning: Beginning,
    ) -> io::Result<Self> {
        // Not told of O_DIRECT, imago probes nothing.
        let options = StorageOpenOptions::new().write(writable).direct(false);
        let inner = imago::file::File::from_open_file(file, options)?;
        Ok(Self { inner, alignment, beginning, order: Order::default() })
    }

    /// Where header and tables of the image are that this is a file of.
    pub(super) fn set_places(&self, places: [(u64, u64); 4]) {
        if self.beginning == Beginning::Header {
            let _ = self.order.places.set(places);
        }
    }

    /// Says that from now on tables are written, or no more.
    pub(super) fn writes_tables(&self, tables: bool) {
        self.order.tables.store(tables, Ordering::Relaxed);
    }

    /// Whether a write is one to the level-1 table, which is kept back then. Where clusters are
    /// smaller than blocks of the disk, imago reads the block and would not see what was kept back.
    fn keeps_back(&self, bufv: &IoVector<'_>, offset: u64) -> bool {
        let Some([header, (from, to), ..]) = self.order.places.get() else { return false };
        let whole = header.1 >= u64::from(self.alignment.offset);
        // The table has all of its clusters; what is written is a block of the disk.
        let end = to.next_multiple_of(header.1.max(1));
        whole && *from <= offset && offset.saturating_add(bufv.len()) <= end
    }

    /// Writes what was kept back, when all else is on the disk.
    fn let_go(&self) -> io::Result<()> {
        let mut kept_back = self.order.kept_back.lock().unwrap_or_else(PoisonError::into_inner);
        if kept_back.is_empty() {
            return Ok(());
        }
        for (offset, bytes) in &*kept_back {
            let mut copy = IoBuffer::new(bytes.len(), self.mem_align())?;
            copy.as_mut().into_slice().copy_from_slice(bytes);
            // SAFETY: the copy is aligned; place and length are those with which imago wrote.
            unsafe { self.inner.pure_writev((&copy).into(), *offset)? };
        }
        self.inner.sync()?;
        kept_back.clear();
        Ok(())
    }

    /// Before something is written: what was written before a table is on the disk first.
    fn keep_order(&self, offset: u64, length: u64) -> io::Result<()> {
        let Some(places) = self.order.places.get() else { return Ok(()) };
        let end = offset.saturating_add(length);
        let is_table = self.order.tables.load(Ordering::Relaxed)
            || places.iter().any(|(from, to)| offset < *to && *from < end);
        if is_table && self.order.written.load(Ordering::Relaxed) {
            self.inner.sync()?;
        }
        self.order.written.store(true, Ordering::Relaxed);
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
        if self.keeps_back(&bufv, offset) {
            let slices = bufv.into_inner();
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let mut kept_back = self.order.kept_back.lock().unwrap_or_else(PoisonError::into_inner);
            kept_back.push((offset, bytes));
            return Ok(());
        }
        self.keep_order(offset, bufv.len())?;
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_writev(bufv, offset) }
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_cleared(offset)?;
        self.keep_order(offset, length)?;
        // SAFETY: as imago promised to us.
        unsafe { self.inner.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_cleared(offset)?;
        self.keep_order(offset, length)?;
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
        self.inner.sync()?;
        self.order.written.store(false, Ordering::Relaxed);
        self.let_go()
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
