//! A volume that has requests wait for each other when it likes, as images do. It says so only
//! while something of it is in the ring, or a request that has it to itself is not over: so much
//! it promises.

use std::fs::File;
use std::io;
use std::sync::Arc;

use moirai_devices::backend::{Deallocate, Deferred, Job, Operations, Step, Storage, Volume};
use moirai_devices::blk::Disk;
use moirai_devices::counters::Counters;
use moirai_devices::memory::Buffers;

use super::chance::Chance;

/// The volume.
pub(super) struct Moody {
    volume: Volume,
    chance: Chance,
    /// How often a job has to wait, in a thousand.
    defers: u64,
    /// Operations in the ring.
    in_flight: u64,
    busy: bool,
    /// The token of the job that has it to itself, as one that changes an image's clusters has.
    alone: Option<u64>,
}

/// A token without the number of the operation in it.
fn job_of(token: u64) -> u64 {
    token & !(0xffff << 32)
}

impl Moody {
    pub(super) fn new(volume: Volume, chance: Chance, defers: u64) -> Self {
        Self { volume, chance, defers, in_flight: 0, busy: false, alone: None }
    }

    fn mood(&mut self, job: u64) -> Result<(), Deferred> {
        if let Some(other) = self.alone {
            return if other == job { Ok(()) } else { Err(Deferred::ImageTaken) };
        }
        if self.in_flight == 0 && self.chance.permille(self.defers) {
            self.alone = Some(job);
        }
        if self.in_flight == 0 || !self.chance.permille(self.defers) {
            return Ok(());
        }
        self.busy = self.chance.permille(500);
        let why = [Deferred::BlocksTaken, Deferred::ImageTaken, Deferred::WorkerFull];
        Err(self.chance.of(&why))
    }

    fn ended(&mut self, token: u64, step: Result<Step, Deferred>) -> Result<Step, Deferred> {
        if matches!(step, Ok(Step::Done(_))) && self.alone == Some(job_of(token)) {
            self.alone = None;
        }
        step
    }
}

impl Storage for Moody {
    fn submit(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
    ) -> Result<Step, Deferred> {
        self.mood(job_of(token))?;
        let mut ring = Counted { ring, begun: &mut self.in_flight };
        let step = self.volume.submit(&mut ring, token, job);
        self.ended(token, step)
    }

    fn completed(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
        result: io::Result<u32>,
    ) -> Result<Step, Deferred> {
        self.in_flight -= 1;
        self.busy = false;
        let mut ring = Counted { ring, begun: &mut self.in_flight };
        let step = self.volume.completed(&mut ring, token, job, result);
        self.ended(token, step)
    }

    fn abandon(&mut self, job: &mut Job) -> Step {
        let step = self.volume.abandon(job);
        // What is in the ring is the job's that has the volume to itself, if one has.
        if self.in_flight == 0 {
            self.alone = None;
        }
        step
    }

    fn disk(&self, queues: u16, queue_size: u16) -> Disk {
        self.volume.disk(queues, queue_size)
    }

    fn is_busy(&self) -> bool {
        self.busy || self.alone.is_some()
    }

    fn counters(&self) -> Counters {
        self.volume.counters()
    }
}

/// A ring that counts what is begun.
struct Counted<'a> {
    ring: &'a mut dyn Operations,
    begun: &'a mut u64,
}

impl Counted<'_> {
    fn count(&mut self, went: Result<(), Deferred>) -> Result<(), Deferred> {
        *self.begun += u64::from(went.is_ok());
        went
    }
}

impl Operations for Counted<'_> {
    fn readv(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        token: u64,
    ) -> Result<(), Deferred> {
        let went = self.ring.readv(file, buffers, offset, token);
        self.count(went)
    }

    fn writev(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        durable: bool,
        token: u64,
    ) -> Result<(), Deferred> {
        let went = self.ring.writev(file, buffers, offset, durable, token);
        self.count(went)
    }

    fn next_by_worker(&mut self) {
        self.ring.next_by_worker();
    }

    fn fdatasync(&mut self, file: &Arc<File>, token: u64) -> Result<(), Deferred> {
        let went = self.ring.fdatasync(file, token);
        self.count(went)
    }

    fn deallocate(
        &mut self,
        file: &Arc<File>,
        how: Deallocate,
        offset: u64,
        len_bytes: u64,
        token: u64,
    ) -> Result<(), Deferred> {
        let went = self.ring.deallocate(file, how, offset, len_bytes, token);
        self.count(went)
    }

    fn nop(&mut self, token: u64) -> Result<(), Deferred> {
        let went = self.ring.nop(token);
        self.count(went)
    }

    fn wait_readable(&mut self, file: &Arc<File>, token: u64) -> Result<(), Deferred> {
        let went = self.ring.wait_readable(file, token);
        self.count(went)
    }
}
