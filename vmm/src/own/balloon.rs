//! The balloon: guest memory goes back to the host as holes in the memfd.
//!
//! This process shares the memfd with the I/O domain, so dropping pages from its own mapping would
//! free nothing. A hole takes the pages out of the file and out of every page table. A request in
//! flight keeps the pages that it has pinned, and then works on memory that nobody sees: only data
//! of the guest suffers, which gave the memory away while it lent it. Pages that the guest uses
//! again come as zeros.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use moirai_devices::balloon::stats::{Stats, StatsQueue};
use moirai_devices::balloon::{self, Hole, Role, Size};
use moirai_devices::fault::Fault;
use moirai_devices::memory::GuestMemory;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::backend::{Mailbox, Note};
use super::model::{Model, Queues};
use crate::virtio::DeviceEvents;

/// What the guest has said last, for the main thread. Held for a copy only.
pub(super) type SharedStats = Arc<Mutex<Stats>>;

/// What the main thread does with the balloon.
#[derive(Debug)]
pub struct Balloon {
    pub(super) index: usize,
    pub(super) size: Arc<Size>,
    pub(super) stats: SharedStats,
    pub(super) events: Arc<DeviceEvents>,
    pub(super) mailbox: Mailbox,
}

impl Balloon {
    /// Wants the guest to give `bytes` back; a guest without a driver hears of it when it has one.
    pub fn set_target(&self, bytes: u64) {
        if self.size.set_target(bytes) {
            self.events.config.announce();
        }
    }

    /// What the guest says that it has given back, in bytes.
    #[must_use]
    pub fn actual_bytes(&self) -> u64 {
        self.size.actual_bytes()
    }

    /// What the guest has said last about its memory. Asks for fresh figures, for the next time.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.mailbox.tell(self.index, Note::AskStats);
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The device.
#[derive(Debug)]
pub(super) struct Pages {
    size: Arc<Size>,
    features: u64,
    stats: StatsQueue,
    shared: SharedStats,
    /// The next turn asks the guest for figures.
    ask: bool,
}

impl Pages {
    pub(super) fn new(size: Arc<Size>, shared: SharedStats) -> Self {
        Self { size, features: 0, stats: StatsQueue::default(), shared, ask: false }
    }
}

impl Model for Pages {
    fn serve(&mut self, queues: &mut Queues) -> Result<(), Fault> {
        for index in 0..usize::from(balloon::QUEUES) {
            let Some(role) = balloon::role(index, self.features) else { continue };
            let stats = &mut self.stats;
            queues.each(index, |mem, queue| match role {
                Role::Inflate => balloon::serve(mem, queue, |holes| punch(mem, holes)),
                // What the guest takes back comes by itself when it is used.
                Role::Deflate => balloon::serve(mem, queue, |_| ()),
                Role::Reporting => balloon::serve_reports(mem, queue, |holes| punch(mem, holes)),
                Role::Stats => stats.serve(mem, queue),
            })?;
            if role == Role::Stats {
                let ask = std::mem::take(&mut self.ask);
                queues.each(index, |mem, queue| {
                    if ask {
                        stats.ask(mem, queue)?;
                    }
                    Ok(false)
                })?;
                *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = stats.latest();
            }
        }
        Ok(())
    }

    fn tell(&mut self, note: Note) {
        self.ask |= note == Note::AskStats;
    }

    fn start(&mut self, features: u64) {
        self.features = features;
    }

    fn reset(&mut self) {
        self.size.reset();
        self.stats = StatsQueue::default();
    }
}

fn punch(mem: &GuestMemory, holes: &[Hole]) {
    for hole in holes {
        // A hole lies inside of memory, and regions do not touch: it lies in one.
        let Some(region) = mem.find_region(hole.start) else { continue };
        let Some(file) = region.file_offset() else { continue };
        let offset = file.start() + (hole.start.0 - region.start_addr().0);
        if let Err(errno) = punch_file(file.file(), offset, hole.len_bytes) {
            eprintln!("moirai-tenant: balloon: memory is not given back: {errno}");
            return;
        }
    }
}

fn punch_file(file: &File, offset: u64, len_bytes: u64) -> Result<(), Errno> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::io::retry_on_intr(|| fallocate(file, flags, offset, len_bytes))
}
