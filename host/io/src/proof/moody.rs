//! A volume that has requests wait for each other when it likes, as images do. It says so only
//! while something of it is in the ring: so much it promises.

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
}

impl Moody {
    pub(super) fn new(volume: Volume, chance: Chance, defers: u64) -> Self {
        Self { volume, chance, defers, in_flight: 0, busy: false }
    }

    fn mood(&mut self) -> Result<(), Deferred> {
        if self.in_flight == 0 || !self.chance.permille(self.defers) {
            return Ok(());
        }
        self.busy = self.chance.permille(500);
        let why = [Deferred::BlocksTaken, Deferred::ImageTaken, Deferred::WorkerFull];
        Err(self.chance.of(&why))
    }
}

impl Storage for Moody {
    fn submit(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
    ) -> Result<Step, Deferred> {
        self.mood()?;
        self.volume.submit(&mut Counted { ring, begun: &mut self.in_flight }, token, job)
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
        self.volume.completed(&mut ring, token, job, result)
    }

    fn abandon(&mut self, job: &mut Job) -> Step {
        self.volume.abandon(job)
    }

    fn disk(&self, queues: u16, queue_size: u16) -> Disk {
        self.volume.disk(queues, queue_size)
    }

    fn is_busy(&self) -> bool {
        self.busy
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
