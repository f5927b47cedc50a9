//! What a guest says about its memory (virtio 1.2, 5.5.6.3). The driver posts one buffer, the
//! device keeps it until it wants fresh figures, and returns it to ask for them.

use std::sync::Arc;

use virtio_queue::Queue;

use crate::fault::{Fault, readable};
use crate::memory::GuestMemory;
use crate::virtqueue;

/// A tag of 2 bytes and a value of 8.
const ENTRY_BYTES: usize = 10;
/// Most entries that are looked at; the specification has ten tags.
const MAX_ENTRIES: usize = 64;

const FREE: u16 = 4;
const TOTAL: u16 = 5;
const AVAILABLE: u16 = 6;

/// The figures of interest, in bytes; a guest may leave out any, and lie about all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Memory that is not used at all.
    pub free_bytes: Option<u64>,
    /// Memory that the guest has. Linux counts what is in the balloon, too, if it may take it back
    /// when it runs out of memory.
    pub total_bytes: Option<u64>,
    /// Memory that new work could have without swapping.
    pub available_bytes: Option<u64>,
}

/// The stats queue: the buffer that is kept, and what was in it.
#[derive(Debug, Default)]
pub struct StatsQueue {
    kept: Option<u16>,
    latest: Stats,
}

impl StatsQueue {
    /// What the guest said last.
    pub fn latest(&self) -> Stats {
        self.latest
    }

    /// Takes the next chain of the queue, if there is one. Returns whether there was.
    ///
    /// # Errors
    /// The driver has broken a rule.
    pub fn serve(&mut self, mem: &Arc<GuestMemory>, queue: &mut Queue) -> Result<bool, Fault> {
        let in_flight = u32::from(self.kept.is_some());
        let Some(chain) = virtqueue::next_chain(mem, queue, in_flight)? else { return Ok(false) };
        let most = MAX_ENTRIES * ENTRY_BYTES;
        let list = virtqueue::buffers(mem, readable(&chain, 0, most as u64)?, 0, most as u64)?;
        let mut bytes = [0; MAX_ENTRIES * ENTRY_BYTES];
        let read = list.copy_to(&mut bytes);
        self.latest = parse(bytes.get(..read).unwrap_or_default());
        // A driver has one buffer; what one with more posts before is returned at once.
        if let Some(earlier) = self.kept.replace(chain.head) {
            virtqueue::add_used(mem, queue, earlier, 0)?;
        }
        Ok(true)
    }

    /// Asks the driver for fresh figures. Returns whether there was a buffer to ask with.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn ask(&mut self, mem: &Arc<GuestMemory>, queue: &mut Queue) -> Result<bool, Fault> {
        let Some(head) = self.kept.take() else { return Ok(false) };
        virtqueue::add_used(mem, queue, head, 0)?;
        Ok(true)
    }
}

fn parse(bytes: &[u8]) -> Stats {
    let mut stats = Stats::default();
    let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
    for [t0, t1, value @ ..] in entries {
        let value = Some(u64::from_le_bytes(*value));
        match u16::from_le_bytes([*t0, *t1]) {
            FREE => stats.free_bytes = value,
            TOTAL => stats.total_bytes = value,
            AVAILABLE => stats.available_bytes = value,
            _ => {}
        }
    }
    stats
}
