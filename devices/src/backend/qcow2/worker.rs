//! The worker of an image: does what the loop cannot do itself, with the image process. It has
//! clusters looked up, has those read that are compressed or not there, and has those written that
//! have to be allocated.
//!
//! The worker waits for the process, so an event loop cannot do its work. Its thread belongs to the
//! volume and ends when the volume is dropped, after the tables were brought to the disk. Guests'
//! bytes pass through the arena: what is written is what was read, whatever the guest does to its
//! memory meanwhile.

use std::sync::mpsc::{Receiver, TryRecvError};

use moirai_image_wire::{DATA_BYTES, WINDOW, What, Window};
use rustix::event::{PollFd, PollFlags, poll};

use super::bell::{Answer, Desk, Task};
use super::courier::{Courier, Trouble};
use super::map::{ClusterMap, Extent, clusters};
use crate::backend::range::range_of;
use crate::blk::{Op, Outcome};
use crate::memory::Buffers;

/// How many clusters are discarded or become zero in one task: so many that a task ends in time.
const MAX_CLUSTERS: u64 = 4096;

/// What an image's work is done by.
pub struct Worker {
    courier: Courier,
    tasks: Receiver<Task>,
    desk: Desk,
}

/// Where a range is: extents if all of it can go past the process, and what was learnt by looking.
struct Found {
    extents: Option<Vec<Extent>>,
    windows: Vec<(u64, Box<Window>)>,
}

impl Worker {
    pub(super) fn new(courier: Courier, tasks: Receiver<Task>, desk: Desk) -> Self {
        Self { courier, tasks, desk }
    }

    /// The number of the image process, which is to run where this worker runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.courier.process_id()
    }

    /// Works until the volume is dropped.
    pub fn run(mut self) {
        loop {
            match self.tasks.try_recv() {
                // A task that gets no answer has failed.
                Ok(mut task) => {
                    if let Some(answer) = self.serve(&task) {
                        task.finish(answer);
                    }
                }
                Err(TryRecvError::Empty) => self.wait(),
                Err(TryRecvError::Disconnected) => break,
            }
        }
        // Nobody is left to be told; the guest's last flush has succeeded or failed before.
        let _ = self.courier.ask(What::Flush, 0, 0);
    }

    /// Waits for a task, or for the end of the process.
    fn wait(&mut self) {
        let listened = self.courier.socket();
        let mut both = vec![PollFd::new(&self.desk, PollFlags::IN)];
        both.extend(listened.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        let _ = poll(&mut both, None);
        let talks = both.get(1).is_some_and(|socket| !socket.revents().is_empty());
        drop(both);
        if talks {
            self.courier.unasked();
        }
        self.desk.quiet();
    }

    /// Does a task; `None` if the image has failed.
    fn serve(&mut self, task: &Task) -> Option<Answer> {
        match self.try_serve(task.op, task.buffers()?) {
            Ok(answer) => Some(answer),
            Err(Trouble::Image) => None,
            Err(Trouble::Task(outcome)) => {
                Some(Answer::Done { outcome, copied_bytes: 0, windows: Vec::new() })
            }
        }
    }

    fn try_serve(&mut self, op: Op, buffers: &Buffers) -> Result<Answer, Trouble> {
        let (offset, len) = range_of(op, buffers.len_bytes());
        let mut copied_bytes = 0;
        let mut windows = Vec::new();
        let discards = self.courier.shape.discards;
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
                    self.courier.ask(What::Flush, 0, 0)?;
                }
                (windows, copied_bytes) = (self.find(offset, len, true)?.windows, len);
            }
            Op::Flush => self.courier.ask(What::Flush, 0, 0)?,
            Op::Discard(_) => self.in_pieces(What::Discard, offset, len)?,
            Op::WriteZeroes(range) if range.unmap && discards => {
                self.in_pieces(What::DiscardToZero, offset, len)?;
            }
            Op::WriteZeroes(_) if discards => self.in_pieces(What::ZeroClusters, offset, len)?,
            // Version 2 has no clusters of zeros.
            Op::WriteZeroes(_) => self.in_pieces(What::WriteZeros, offset, len)?,
        }
        Ok(Answer::Done { outcome: Outcome::Ok, copied_bytes, windows })
    }

    fn read(&mut self, offset: u64, buffers: &Buffers) -> Result<(), Trouble> {
        for at in (0..buffers.len_bytes()).step_by(DATA_BYTES) {
            let part = buffers.slice(at, DATA_BYTES as u64);
            let len = part.len_bytes();
            self.courier.ask(What::Read, offset + at, len)?;
            part.copy_from_buffers(&self.courier.data(len));
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, buffers: &Buffers) -> Result<(), Trouble> {
        for at in (0..buffers.len_bytes()).step_by(DATA_BYTES) {
            let part = buffers.slice(at, DATA_BYTES as u64);
            let len = part.len_bytes();
            self.courier.data(len).copy_from_buffers(&part);
            self.courier.ask(What::Write, offset + at, len)?;
        }
        Ok(())
    }

    /// Changes a range in pieces that end where clusters end, as far as that can be.
    fn in_pieces(&mut self, what: What, offset: u64, len: u64) -> Result<(), Trouble> {
        let most = match what {
            What::WriteZeros => DATA_BYTES as u64,
            _ => self.courier.shape.cluster_bytes.saturating_mul(MAX_CLUSTERS),
        };
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let next = end.min((at / most).saturating_add(1).saturating_mul(most));
            self.courier.ask(what, at, next - at)?;
            at = next;
        }
        Ok(())
    }

    /// Looks a range up.
    fn find(&mut self, offset: u64, len: u64, writing: bool) -> Result<Found, Trouble> {
        let cluster_bytes = self.courier.shape.cluster_bytes;
        let mut map = ClusterMap::new(cluster_bytes);
        let range = clusters(cluster_bytes, offset, len);
        let mut windows = Vec::new();
        if self.courier.shape.align > 0 && !range.is_empty() {
            let first = range.start / WINDOW;
            windows = self.courier.find(first, range.end.div_ceil(WINDOW) - first)?;
        }
        for (number, window) in &windows {
            map.insert(*number, window.clone());
        }
        Ok(Found { extents: map.extents(offset, len, writing), windows })
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
