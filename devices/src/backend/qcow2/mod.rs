//! qcow2 images, served with a process for each (docs/design/0015).
//!
//! | file | what it holds |
//! | --- | --- |
//! | `chain.rs`, `name.rs` | what is opened, and what is refused |
//! | `header.rs`, `tables.rs`, `fields.rs` | the same, of what the image itself says |
//! | `process.rs` | the seam to whoever starts image processes |
//! | `courier.rs`, `check.rs` | how a process is asked, and what of its answers is believed |
//! | `map.rs` | where clusters are, as far as the loop knows |
//! | `turnstile.rs` | which requests may be in the image together |
//! | `worker.rs`, `bell.rs` | the thread that asks the process, and how it is asked itself |
//! | here | the loop's side: where a request goes |
//!
//! If all clusters of a request are known, allocated and, for a write, ours alone, the request goes
//! straight to the files like that of a raw volume. Every other request goes to the worker, which
//! either says where the data is or does the request.
//!
//! *Why the two ways agree.* Only the image process and we write the image. A cluster's place
//! changes only by a request that covers the cluster and changes the image: an allocating write, a
//! discard, zeroing. Such a request has the image to itself ([`turnstile`]). It begins when nothing
//! else is in flight. Before that, the loop forgets what it knows of the request's clusters.
//! Nothing else begins until the request is over. So no operation of the ring is under way to a
//! cluster that the process frees, moves, or rewrites in part. Lookups, reads of the worker and
//! flushes change no place and run beside the others. Backing files are opened for reading, and
//! nobody of this host writes them.

mod bell;
mod chain;
mod check;
mod courier;
mod fields;
mod header;
mod map;
mod name;
mod process;
mod tables;
mod turnstile;
mod worker;

use std::path::Path;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

pub use moirai_image_wire::channel::pair as socket_pair;
pub use process::{ImageProcess, ImageProcesses, StartedImage};
pub use turnstile::Pass;
pub use worker::Worker;

pub use super::error::ImageError;
use super::error::VolumeError;
use super::file::{DiskFile, Submitted};
use super::range::{changes, moved, range_of};
use super::ring::{Deferred, Operations};
use super::sub_request::{Place, State, SubRequest};
use crate::blk::{Op, Outcome, Request};
use crate::counters::Counters;
use bell::{Answer, Bell, Task, Tasks};
use chain::Chain;
use check::Shape;
use courier::{Courier, Failure};
use map::{ClusterMap, Extent};
use turnstile::Turnstile;

/// Smallest cluster that goes past the process: below it, tables and data may share a block of the
/// disk.
const LEAST_DIRECT_CLUSTER: u64 = 4096;
/// Most tasks that wait for the worker.
const MAX_TASKS: usize = 64;

/// The loop's side of an image.
#[derive(Debug)]
pub(super) struct Image {
    tasks: Tasks,
    /// How many of them are not over.
    outstanding: usize,
    /// All bells; a part that is with the worker has the number of its own.
    bells: Vec<Arc<Bell>>,
    silent: Vec<usize>,
    map: ClusterMap,
    turnstile: Turnstile,
    worker: Option<Worker>,
    size_bytes: u64,
    cluster_bytes: u64,
    discards: bool,
    top_files: usize,
    failure: Failure,
}

impl Image {
    /// Opens an image and starts its process; files and warnings are for [`super::Volume`].
    pub(super) fn open(
        root: &Path,
        path: &Path,
        read_only: bool,
        processes: &dyn ImageProcesses,
    ) -> Result<(Self, Vec<DiskFile>, Vec<String>), VolumeError> {
        let Chain { luggage, files, header, top_files, warnings } =
            chain::open_chain(root, path, read_only)?;
        let name = root.join(path).display().to_string();
        let align = u64::from(files.iter().map(DiskFile::align).max().unwrap_or(1)).max(512);
        let direct = header.cluster_bytes >= LEAST_DIRECT_CLUSTER.max(align);
        let (size_bytes, cluster_bytes) = (header.size_bytes, header.cluster_bytes);
        let discards = header.version > 2;
        let shape = Shape {
            size_bytes,
            cluster_bytes,
            align: if direct { align } else { 0 },
            discards,
            // With a data file of its own the image holds nothing but tables, and the other file
            // none.
            reserved: match header.data_file {
                Some(_) => [(0, 0); 3],
                None => header.tables.reserved(),
            },
            writable: !read_only,
        };
        let courier = Courier::start(processes, &name, shape, luggage)?;
        let failure = courier.failure();
        let tasks = Tasks::new(MAX_TASKS);
        let (tasks, queue, desk) =
            tasks.map_err(|source| VolumeError::Io { path: name, source })?;
        let image = Self {
            tasks,
            outstanding: 0,
            bells: Vec::new(),
            silent: Vec::new(),
            map: ClusterMap::new(cluster_bytes),
            turnstile: Turnstile::default(),
            worker: Some(Worker::new(courier, queue, desk)),
            size_bytes,
            cluster_bytes,
            discards,
            top_files,
            failure,
        };
        Ok((image, files, warnings))
    }

    /// Why it has failed for good, if it has.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    pub(super) fn take_worker(&mut self) -> Option<Worker> {
        self.worker.take()
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn cluster_bytes(&self) -> u32 {
        u32::try_from(self.cluster_bytes).unwrap_or(u32::MAX)
    }

    /// Whether discarding gives space back (not in version 2).
    pub(super) fn discards(&self) -> bool {
        self.discards
    }

    /// Whether the worker has a task, or a request waits to have the image to itself.
    pub(super) fn is_busy(&self) -> bool {
        self.outstanding > 0 || self.turnstile.is_closed()
    }

    /// How many of its files belong to the top layer.
    pub(super) fn top_files(&self) -> usize {
        self.top_files
    }

    /// Says where a request goes, or that it has to wait for others.
    pub(super) fn plan(
        &mut self,
        request: &Request,
        pass: &mut Pass,
    ) -> Result<SmallVec<[SubRequest; 1]>, Deferred> {
        let (offset, len) = range_of(request.op, request.buffers.len_bytes());
        let known = match request.op {
            // What the process knew of the tables is lost: nobody may rely on what is in the files.
            _ if self.failure.get().is_some() => None,
            Op::Read { .. } => self.map.extents(offset, len, false),
            // The tables have to be on stable storage, too.
            Op::Write { durable: true, .. } => None,
            Op::Write { .. } => self.map.extents(offset, len, true),
            Op::Flush | Op::Discard(_) | Op::WriteZeroes(_) => None,
        };
        let alone = known.is_none() && changes(request.op);
        if !self.turnstile.enter(pass, alone) {
            return Err(Deferred::ImageTaken);
        }
        if alone {
            self.map.forget(offset, len);
        }
        Ok(match known {
            Some(extents) => parts(request, &extents),
            None => {
                smallvec![SubRequest::new(Place::Worker(None), request.op, request.buffers.clone())]
            }
        })
    }

    /// A request turned out to write what is there already: it changes no place.
    pub(super) fn share(&mut self, pass: &mut Pass) {
        self.turnstile.share(pass);
    }

    /// A request is over.
    pub(super) fn leave(&mut self, pass: &mut Pass) {
        self.turnstile.leave(pass);
    }

    /// Gives a part to the worker.
    pub(super) fn submit(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        part: &mut SubRequest,
    ) -> Submitted {
        if self.outstanding >= MAX_TASKS {
            return Err(Deferred::WorkerFull);
        }
        let Some((number, bell)) = self.silent_bell() else {
            part.end(Outcome::IoError);
            return Ok(());
        };
        ring.wait_readable(bell.event(), token)?;
        self.silent.pop();
        self.outstanding += 1;
        self.tasks.give(Task::new(part.op, part.buffers.clone(), bell));
        part.place = Place::Worker(Some(number));
        part.state = State::InFlight;
        Ok(())
    }

    /// The bell that the next task gets, with its number: the last of the silent ones, or a new
    /// one.
    fn silent_bell(&mut self) -> Option<(usize, Arc<Bell>)> {
        if self.silent.is_empty() {
            let bell = Bell::new().ok()?;
            self.silent.push(self.bells.len());
            self.bells.push(Arc::new(bell));
        }
        let number = *self.silent.last()?;
        Some((number, Arc::clone(self.bells.get(number)?)))
    }

    /// Takes the worker's answer. The parts of the request, if it is to go on without the worker.
    pub(super) fn answered(
        &mut self,
        request: &Request,
        part: &mut SubRequest,
        counters: &mut Counters,
    ) -> Option<SmallVec<[SubRequest; 1]>> {
        self.outstanding = self.outstanding.saturating_sub(1);
        part.state = State::Done(Outcome::IoError);
        let Place::Worker(Some(number)) = std::mem::replace(&mut part.place, Place::Worker(None))
        else {
            return None;
        };
        let answer = self.bells.get(number)?.take();
        self.silent.push(number);
        let (windows, located) = match answer? {
            Answer::Located { extents, windows } => (windows, Some(parts(request, &extents))),
            Answer::Done { outcome, copied_bytes, windows } => {
                part.state = State::Done(outcome);
                counters.copied_by_us_bytes += copied_bytes;
                (windows, None)
            }
        };
        for (number, window) in windows {
            self.map.insert(number, window);
        }
        located
    }
}

/// One part for each extent of a request.
fn parts(request: &Request, extents: &[Extent]) -> SmallVec<[SubRequest; 1]> {
    let shares = extents.iter().enumerate().map(|(hand, extent)| (hand, extent.len));
    let buffers = request.buffers.deal(extents.len(), shares);
    let parts = extents.iter().zip(buffers).map(|(extent, buffers)| {
        SubRequest::new(
            Place::File(extent.file),
            moved(request.op, extent.offset, extent.len),
            buffers,
        )
    });
    parts.collect()
}

#[cfg(test)]
mod tests;
