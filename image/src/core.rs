//! An open image, and what is done with it: look clusters up, read those that are compressed or not
//! there, write those that have to be allocated.

use std::io;
use std::ptr;

use imago::{Mapping, Storage as _};
use moirai_image_wire::{
    DATA_BYTES, Location, MAX_WINDOWS, Start, Task, WINDOW, What, Window, encode_window, in_window,
};

use crate::arena::Arena;
use crate::layers::Access;

/// An open image.
pub(crate) struct Core {
    access: Access,
    arena: Arena,
    start: Start,
}

/// What is in the arena when a task is done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) bytes: u32,
    pub(crate) windows: u32,
}

impl Core {
    pub(crate) fn new(access: Access, arena: Arena, start: Start) -> Self {
        Self { access, arena, start }
    }

    /// Does a task.
    pub(crate) fn serve(&mut self, task: &Task) -> io::Result<Done> {
        let Task { what, offset, len, .. } = *task;
        let nothing = Done::default();
        match what {
            What::Find => return self.find(offset, len),
            What::Read => {
                let data = self.arena.data(len);
                self.access.read(&mut *data, offset)?;
                let bytes = u32::try_from(data.len()).map_err(io::Error::other)?;
                return Ok(Done { bytes, ..nothing });
            }
            What::Write => self.access.write(&*self.arena.data(len), offset)?,
            What::Flush => {
                self.access.flush()?;
                self.access.sync()?;
            }
            What::Discard => self.access.discard_to_any(offset, len)?,
            What::DiscardToZero => self.access.discard_to_zero(offset, len)?,
            What::ZeroClusters => self.access.write_zeroes(offset, len)?,
            What::WriteZeros => {
                let data = self.arena.data(len.min(DATA_BYTES as u64));
                data.fill(0);
                self.access.write(&*data, offset)?;
            }
        }
        Ok(nothing)
    }

    /// Puts `count` windows from number `first` on into the arena.
    fn find(&mut self, first: u64, count: u64) -> io::Result<Done> {
        let count = count.min(MAX_WINDOWS);
        for index in 0..count {
            let window = self.window(first.saturating_add(index))?;
            if let Some(place) = self.arena.window(index) {
                place.copy_from_slice(&encode_window(&window));
            }
        }
        let windows = u32::try_from(count).map_err(io::Error::other)?;
        Ok(Done { windows, ..Done::default() })
    }

    /// Looks up the clusters of a window that lie in one piece in a file.
    fn window(&self, number: u64) -> io::Result<Window> {
        let Start { size_bytes, cluster_bytes, align, .. } = self.start;
        let files = self.access.inner().collect_storage_dependencies();
        let mut window: Window = [None; 64];
        let span = WINDOW * cluster_bytes;
        let mut at = number.saturating_mul(span);
        let end = at.saturating_add(span).min(size_bytes);
        let written = self.start.layers.last().is_some_and(|top| top.writable);
        while at < end && align > 0 {
            let (mapping, len) = self.access.get_mapping(at, end - at)?;
            if len == 0 {
                break;
            }
            if let Mapping::Raw { storage, offset, writable, .. } = mapping
                && let Some(file) = files.iter().position(|file| ptr::eq(*file, storage))
            {
                // imago calls a data file writable that nobody writes.
                let writable = writable && written;
                self.check_place(file + 1 == files.len(), writable, offset, len)?;
                let file_bytes = storage.size()?;
                let first = at.div_ceil(cluster_bytes);
                for cluster in first..(at + len).div_ceil(cluster_bytes) {
                    let begin = cluster * cluster_bytes;
                    let length = cluster_bytes.min(size_bytes - begin);
                    let place = offset + (begin - at);
                    let whole = begin + length <= at + len;
                    // Behind the end of the file there are zeros that only imago knows of.
                    let there = place.saturating_add(length.next_multiple_of(align));
                    if !whole || there > file_bytes || !place.is_multiple_of(align) {
                        continue;
                    }
                    if let (Some(slot), Ok(file)) =
                        (window.get_mut(in_window(cluster)), u16::try_from(file))
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
        if top && writable && self.start.reserved.iter().any(hits) {
            let what = format!("{len} bytes at {offset:#x} are data and tables at once");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}
