//! A volume: what a virtio-blk device shows. One raw file or block device, a stripe set, an image.
//!
//! Owns the open files and, for an image, its mapping. This module decides to which of its files a
//! request goes (`stripe`, `qcow2`); `file` and the image's worker do the parts. `volume/open.rs`
//! opens it.

mod open;

use std::io;
use std::os::fd::BorrowedFd;

use smallvec::{SmallVec, smallvec};

use super::file::{DiskFile, FileId};
use super::qcow2::{Image, Worker};
use super::range::{clip, range_of};
use super::ring::{Deferred, Operations};
use super::stripe::Stripes;
use super::sub_request::{Place, SubRequest, part_of, part_token};
use super::{Job, Step, Storage};
use crate::blk::{DISK_ID_LEN, Op, Outcome, SECTOR_BYTES, Topology, disk_id};
use crate::counters::Counters;

/// What a disk of our days writes at once, whatever its logical blocks are.
const PHYSICAL_BLOCK_BYTES: u32 = 4096;

/// What images are made for unless somebody says otherwise.
const DEFAULT_BLOCK_BYTES: u32 = 512;

/// One volume.
#[derive(Debug)]
pub struct Volume {
    /// Of an image: the layers from the deepest backing file up, each followed by its data file.
    files: Vec<DiskFile>,
    shape: Shape,
    /// What there is, and what it shows: the same up to a whole block.
    data_bytes: u64,
    size_bytes: u64,
    block_bytes: u32,
    read_only: bool,
    warnings: Vec<String>,
    id: [u8; DISK_ID_LEN],
    counters: Counters,
}

/// What the files make together.
#[derive(Debug)]
enum Shape {
    Raw,
    Striped(Stripes),
    Image(Box<Image>),
}

impl Volume {
    fn of(files: Vec<DiskFile>, shape: Shape, data_bytes: u64, read_only: bool) -> Self {
        // The first file of a stripe set, the top layer of an image.
        let main = match shape {
            Shape::Raw | Shape::Striped(_) => files.first(),
            Shape::Image(_) => files.last(),
        };
        Self {
            id: main.map(|file| identity(file.id())).unwrap_or_default(),
            files,
            shape,
            data_bytes,
            size_bytes: data_bytes.next_multiple_of(SECTOR_BYTES),
            block_bytes: DEFAULT_BLOCK_BYTES,
            read_only,
            warnings: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// What does an image's work that is not for an event loop; run it on a thread of its own.
    /// `None` if there is no such work, or it was taken before.
    pub fn take_worker(&mut self) -> Option<Worker> {
        match &mut self.shape {
            Shape::Image(image) => image.take_worker(),
            Shape::Raw | Shape::Striped(_) => None,
        }
    }

    /// The logical block size that the guest is told, in bytes: what its image was made for.
    /// Without this 512, whatever the device below has. The volume ends with a whole block.
    pub fn set_block_size(&mut self, bytes: u32) {
        self.block_bytes = bytes.max(DEFAULT_BLOCK_BYTES);
        self.size_bytes = self.data_bytes.next_multiple_of(self.block_bytes.into());
    }

    /// What the operator should know of it although it works.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Bytes behind the end of the data that it shows all the same, less than a block.
    pub fn padding_bytes(&self) -> u64 {
        self.size_bytes - self.data_bytes
    }

    /// Usable size in bytes, a multiple of the block size. What of that is behind the end of its
    /// files reads as zeros, and writes to it are forgotten.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// From now on its files are read and written in blocks of so many bytes.
    #[cfg(test)]
    pub(super) fn pretend_blocks(&mut self, bytes: u32) {
        self.files.iter_mut().for_each(|file| file.pretend_blocks(bytes));
    }

    /// What offsets and lengths must be multiples of, in bytes, to bypass the page cache.
    pub fn align(&self) -> u32 {
        self.files.iter().map(DiskFile::align).max().unwrap_or(1)
    }

    /// The files that it is made of, and whether it writes them. Whoever writes one of them shares
    /// it with nobody.
    pub fn files(&self) -> impl Iterator<Item = (FileId, bool)> {
        self.with_written().map(|(file, written)| (file.id(), written))
    }

    /// The same files as they are open here.
    pub fn open_files(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.with_written().map(|(file, written)| (file.as_fd(), written))
    }

    fn with_written(&self) -> impl Iterator<Item = (&DiskFile, bool)> {
        let last = self.files.len().saturating_sub(1);
        let whole = self.image().is_none();
        let top = self.image().map_or(0, |image| last + 1 - image.top_files().min(last + 1));
        let written = move |place| !self.read_only && (whole || place >= top);
        self.files.iter().enumerate().map(move |(place, file)| (file, written(place)))
    }

    /// What the guest gets to know as its name: the serial number, or a name made of device and
    /// inode number.
    pub fn id(&self) -> [u8; DISK_ID_LEN] {
        self.id
    }

    /// Gives it a serial number; of one that is longer than 20 bytes see [`disk_id`].
    pub fn set_serial(&mut self, serial: &str) {
        self.id = disk_id(serial);
    }

    fn image(&self) -> Option<&Image> {
        match &self.shape {
            Shape::Image(image) => Some(image),
            Shape::Raw | Shape::Striped(_) => None,
        }
    }

    fn all_discard(&self) -> bool {
        self.files.iter().all(DiskFile::discards)
    }

    /// Says where a request goes.
    fn plan(&mut self, job: &mut Job) -> Result<(), Deferred> {
        clip(&mut job.request, self.data_bytes);
        let request = &job.request;
        if request.op != Op::Flush && range_of(request.op, request.buffers.len_bytes()).1 == 0 {
            job.plan(SmallVec::new());
            return Ok(());
        }
        let parts = match &mut self.shape {
            Shape::Raw => {
                smallvec![SubRequest::new(Place::File(0), request.op, request.buffers.clone())]
            }
            Shape::Striped(stripes) => stripes.split(request),
            Shape::Image(image) => match image.plan(request, &mut job.pass) {
                Ok(parts) => parts,
                Err(full) => {
                    job.detour();
                    return Err(full);
                }
            },
        };
        job.plan(self.split(parts));
        Ok(())
    }

    /// The parts as their files want them.
    fn split(&self, parts: SmallVec<[SubRequest; 1]>) -> SmallVec<[SubRequest; 1]> {
        let file = |part: &SubRequest| match part.place {
            Place::File(place) => self.files.get(place),
            Place::Worker(_) => None,
        };
        if parts.iter().all(|part| file(part).is_none_or(|file| file.suits(part))) {
            return parts;
        }
        let pieces = parts.into_iter().map(|part| match file(&part) {
            Some(file) => file.split(part),
            None => SmallVec::from_iter([part]),
        });
        pieces.flatten().collect()
    }

    fn standing(&mut self, job: &mut Job) -> Step {
        let step = job.standing();
        if let (Step::Done(_), Shape::Image(image)) = (step, &mut self.shape) {
            image.leave(&mut job.pass);
        }
        step
    }
}

impl Storage for Volume {
    fn submit(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
    ) -> Result<Step, Deferred> {
        if !job.is_planned() {
            self.plan(job)?;
        }
        let mut waits = false;
        for (number, part) in job.startable() {
            let token = part_token(token, number);
            let went = match (&part.place, &mut self.shape) {
                (Place::File(place), _) => match self.files.get_mut(*place) {
                    Some(file) => file.submit(ring, token, part),
                    None => {
                        part.end(Outcome::IoError);
                        continue;
                    }
                },
                (Place::Worker(_), Shape::Image(image)) => image.submit(ring, token, part),
                (Place::Worker(_), _) => {
                    part.end(Outcome::IoError);
                    continue;
                }
            };
            match went {
                Ok(()) => {}
                Err(Deferred::BlocksTaken) => {
                    waits = true;
                    break;
                }
                Err(other) => return Err(other),
            }
        }
        if waits {
            job.detour();
            // It may well be waiting for itself; then what comes back tries again.
            if !job.is_under_way() {
                return Err(Deferred::BlocksTaken);
            }
        }
        Ok(self.standing(job))
    }

    fn completed(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
        result: io::Result<u32>,
    ) -> Result<Step, Deferred> {
        let number = part_of(token);
        let (request, part) = job.part(number);
        let Some(part) = part else { return Ok(self.standing(job)) };
        let went = match (&part.place, &mut self.shape) {
            (Place::File(place), _) => match self.files.get_mut(*place) {
                Some(file) => file.completed(ring, token, part, result, &mut self.counters),
                None => Ok(()),
            },
            (Place::Worker(_), Shape::Image(image)) => {
                if let Some(parts) = image.answered(request, part, &mut self.counters) {
                    // The worker has said where the data is; the rest is done here.
                    image.share(&mut job.pass);
                    job.plan(self.split(parts));
                    return self.submit(ring, token, job);
                }
                Ok(())
            }
            (Place::Worker(_), _) => Ok(()),
        };
        if let Some(outcome) = job.failure() {
            job.give_up(outcome);
        }
        went?;
        if job.startable().next().is_some() {
            return self.submit(ring, token, job);
        }
        Ok(self.standing(job))
    }

    fn abandon(&mut self, job: &mut Job) -> Step {
        job.give_up(Outcome::IoError);
        self.standing(job)
    }

    fn disk(&self, queues: u16, queue_size: u16) -> crate::blk::Disk {
        let block_size = self.block_bytes;
        let below = self.align().max(block_size);
        let (discard, write_zeroes, granule, optimal) = match &self.shape {
            Shape::Raw => (self.all_discard(), true, below, 0),
            Shape::Striped(stripes) => {
                let unit = u32::try_from(stripes.unit_bytes).unwrap_or(u32::MAX);
                let row = unit.saturating_mul(u32::try_from(stripes.files).unwrap_or(u32::MAX));
                (self.all_discard(), true, below, row)
            }
            Shape::Image(image) => (image.discards(), true, image.cluster_bytes(), 0),
        };
        crate::blk::Disk {
            capacity_sectors: self.size_bytes / SECTOR_BYTES,
            read_only: self.read_only,
            block_size,
            topology: Topology {
                physical_block_bytes: PHYSICAL_BLOCK_BYTES.max(below),
                optimal_io_bytes: optimal,
                discard_align_bytes: granule,
            },
            discard: discard && !self.read_only,
            write_zeroes: write_zeroes && !self.read_only,
            queues,
            queue_size,
            id: self.id,
        }
    }

    fn is_busy(&self) -> bool {
        self.image().is_some_and(Image::is_busy)
    }

    fn is_plain(&self) -> bool {
        self.image().is_none()
    }

    fn failure(&self) -> Option<&str> {
        self.image().and_then(Image::failure)
    }

    fn is_direct(&self) -> bool {
        self.files.iter().all(DiskFile::is_direct)
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// A name that stays the same.
fn identity(id: FileId) -> [u8; DISK_ID_LEN] {
    disk_id(&format!("{:x}-{:x}", id.device, id.inode))
}
