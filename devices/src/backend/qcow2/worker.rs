//! The worker of an image: the one place where imago runs. It looks clusters up, reads those that
//! are compressed or not there, and writes those that have to be allocated.
//!
//! The worker blocks on the disk and inflates, so an event loop cannot do its work. Its thread
//! belongs to the volume and ends when the volume is dropped, after it has brought its tables to
//! the disk. A panic in imago makes this image fail for good and nothing else. Guests' bytes pass
//! through memory of ours: what is written is what was read, whatever the guest does to its memory
//! meanwhile.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::mpsc::Receiver;

use imago::io_buffers::IoBuffer;
use imago::{Mapping, Storage as _};

use super::bell::{Answer, Task};
use super::chain::Access;
use super::map::{ClusterMap, Extent, Location, WINDOW, Window, clusters, within};
use crate::backend::range::range_of;
use crate::blk::{Op, Outcome};
use crate::memory::Buffers;

/// How much passes through our memory at a time.
const CHUNK_BYTES: usize = 512 << 10;

/// What an image's work is done by.
pub struct Worker {
    core: Option<Core>,
    tasks: Receiver<Task>,
}

/// The image as imago sees it, and what our own lookups need to know of it.
pub(super) struct Core {
    pub(super) access: Access,
    pub(super) size_bytes: u64,
    pub(super) cluster_bytes: u64,
    /// What places in the files have to be multiples of; zero if nothing goes past imago.
    pub(super) align: u64,
    /// Whether discarding leaves zeros behind (version 3).
    pub(super) discards: bool,
    /// What of the file with the data of the top layer is no data: header and tables, from and to.
    pub(super) reserved: [(u64, u64); 3],
    pub(super) buffer: IoBuffer,
    /// The locked files; dropped after `access` has written its last.
    pub(super) _locks: Vec<File>,
}

/// Where a range is: extents if all of it can go past imago, and what was learnt by looking.
struct Found {
    extents: Option<Vec<Extent>>,
    windows: Vec<(u64, Box<Window>)>,
}

impl Worker {
    pub(super) fn new(core: Core, tasks: Receiver<Task>) -> Self {
        Self { core: Some(core), tasks }
    }

    /// Works until the volume is dropped.
    pub fn run(mut self) {
        while let Ok(mut task) = self.tasks.recv() {
            let Some(core) = &mut self.core else { continue };
            match catch_unwind(AssertUnwindSafe(|| core.serve(&task))) {
                Ok(answer) => task.finish(answer),
                // What imago still has in memory may be wrong; it must not get to the disk.
                Err(_) => std::mem::forget(self.core.take()),
            }
        }
        if let Some(core) = &mut self.core {
            // Nobody is left to be told; the guest's last flush has succeeded or failed before.
            let _ = catch_unwind(AssertUnwindSafe(|| core.flush()));
        }
    }
}

impl Core {
    pub(super) fn buffer(align: usize) -> io::Result<IoBuffer> {
        IoBuffer::new(CHUNK_BYTES, align.max(4096))
    }

    fn serve(&mut self, task: &Task) -> Answer {
        let gone = || io::Error::other("the task is over");
        let answer = task.buffers().ok_or_else(gone);
        let answer = answer.and_then(|buffers| self.try_serve(task.op, buffers));
        answer.unwrap_or_else(|error| {
            let unsupported = error.kind() == io::ErrorKind::Unsupported;
            let outcome = if unsupported { Outcome::Unsupported } else { Outcome::IoError };
            Answer::Done { outcome, copied_bytes: 0, windows: Vec::new() }
        })
    }

    fn try_serve(&mut self, op: Op, buffers: &Buffers) -> io::Result<Answer> {
        let (offset, len) = range_of(op, buffers.len_bytes());
        let mut copied_bytes = 0;
        let mut windows = Vec::new();
        match op {
            Op::Read { .. } => {
                let found = self.find(offset, len, false)?;
                if let Some(extents) = found.extents {
                    return Ok(Answer::Located { extents, windows: found.windows });
                }
                self.read(offset, buffers)?;
                (windows, copied_bytes) = (found.windows, len);
            }
            Op::Write { durable, .. } => {
                let found = self.find(offset, len, true)?;
                if let Some(extents) = found.extents.filter(|_| !durable) {
                    return Ok(Answer::Located { extents, windows: found.windows });
                }
                self.write(offset, buffers)?;
                if durable {
                    self.flush()?;
                }
                (windows, copied_bytes) = (self.find(offset, len, true)?.windows, len);
            }
            Op::Flush => self.flush()?,
            Op::Discard(_) | Op::WriteZeroes(_) if len == 0 => {}
            Op::Discard(_) => self.access.discard_to_any(offset, len)?,
            Op::WriteZeroes(range) if range.unmap && self.discards => {
                self.access.discard_to_zero(offset, len)?;
            }
            Op::WriteZeroes(_) if self.discards => self.access.write_zeroes(offset, len)?,
            // Version 2 has no clusters of zeros.
            Op::WriteZeroes(_) => self.write_zeros(offset, len)?,
        }
        Ok(Answer::Done { outcome: Outcome::Ok, copied_bytes, windows })
    }

    /// Data and tables are on stable storage when this returns.
    fn flush(&mut self) -> io::Result<()> {
        let tables = |are: bool| {
            let files = self.access.inner().collect_storage_dependencies();
            files.iter().for_each(|file| file.writes_tables(are));
        };
        tables(true);
        let flushed = self.access.flush();
        tables(false);
        flushed?;
        self.access.sync()
    }

    fn read(&mut self, offset: u64, buffers: &Buffers) -> io::Result<()> {
        for at in (0..buffers.len_bytes()).step_by(CHUNK_BYTES) {
            let part = buffers.slice(at, CHUNK_BYTES as u64);
            let len = usize::try_from(part.len_bytes()).unwrap_or(0);
            self.access.read(self.buffer.as_mut_range(0..len), offset + at)?;
            part.copy_from(self.buffer.as_ref_range(0..len).into_slice());
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, buffers: &Buffers) -> io::Result<()> {
        for at in (0..buffers.len_bytes()).step_by(CHUNK_BYTES) {
            let part = buffers.slice(at, CHUNK_BYTES as u64);
            let len = usize::try_from(part.len_bytes()).unwrap_or(0);
            part.copy_to(self.buffer.as_mut_range(0..len).into_slice());
            self.access.write(self.buffer.as_ref_range(0..len), offset + at)?;
        }
        Ok(())
    }

    fn write_zeros(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.buffer.as_mut().into_slice().fill(0);
        for at in (0..len).step_by(CHUNK_BYTES) {
            let piece = usize::try_from(len - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            self.access.write(self.buffer.as_ref_range(0..piece), offset + at)?;
        }
        Ok(())
    }

    /// Looks a range up.
    fn find(&self, offset: u64, len: u64, writing: bool) -> io::Result<Found> {
        let mut windows = Vec::new();
        let mut map = ClusterMap::new(self.cluster_bytes);
        let range = clusters(self.cluster_bytes, offset, len);
        let numbers =
            if range.is_empty() { 0..0 } else { range.start / WINDOW..range.end.div_ceil(WINDOW) };
        for number in numbers.filter(|_| self.align > 0) {
            let window = self.window(number)?;
            map.insert(number, window.clone());
            windows.push((number, window));
        }
        Ok(Found { extents: map.extents(offset, len, writing), windows })
    }

    /// Looks up the clusters of a window that lie in one piece in a file.
    fn window(&self, number: u64) -> io::Result<Box<Window>> {
        let files = self.access.inner().collect_storage_dependencies();
        let mut window: Box<Window> = Box::new([None; 64]);
        let span = WINDOW * self.cluster_bytes;
        let mut at = number.saturating_mul(span);
        let end = at.saturating_add(span).min(self.size_bytes);
        while at < end {
            let (mapping, len) = self.access.get_mapping(at, end - at)?;
            if len == 0 {
                break;
            }
            if let Mapping::Raw { storage, offset, writable, .. } = mapping
                && let Some(file) = files.iter().position(|file| ptr::eq(*file, storage))
            {
                self.check_place(file + 1 == files.len(), writable, offset, len)?;
                let file_bytes = storage.size()?;
                let first = at.div_ceil(self.cluster_bytes);
                for cluster in first..clusters(self.cluster_bytes, at, len).end {
                    let begin = cluster * self.cluster_bytes;
                    let length = self.cluster_bytes.min(self.size_bytes - begin);
                    let place = offset + (begin - at);
                    let whole = begin + length <= at + len;
                    // Behind the end of the file there are zeros that only imago knows of.
                    let there = place.saturating_add(length.next_multiple_of(self.align));
                    if !whole || there > file_bytes || !place.is_multiple_of(self.align) {
                        continue;
                    }
                    if let (Some(slot), Ok(file)) =
                        (window.get_mut(within(cluster)), u16::try_from(file))
                    {
                        *slot = Some(Location { file, writable, offset: place });
                    }
                }
            }
            at = at.saturating_add(len);
        }
        Ok(window)
    }

    /// A damaged table may say that header or tables are data of the guest, who would then write
    /// them.
    fn check_place(&self, top: bool, writable: bool, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len);
        let hits = |(from, to): &(u64, u64)| offset < *to && *from < end;
        if top && writable && self.reserved.iter().any(hits) {
            let what = format!("{len} bytes at {offset:#x} are data and tables at once");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("works", &self.core.is_some()).finish_non_exhaustive()
    }
}
