//! Requests in flight, noted in memory that outlives this process
//! (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD).
//!
//! The peer keeps the memory and hands it back after it has connected again. The session then
//! serves once more what was taken from a ring and not returned. The ring alone does not tell which
//! requests these are, because they complete out of order. The layout for split rings is that of
//! the specification. This file adds how a batch that was cut short is found: chains are returned
//! one by one, and the used ring says which.
//!
//! The peer can write there at any time, so the size of the ring bounds everything that is read. A
//! peer that lies has its own requests served twice or not at all.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress};

use super::memory::{Limits, Mapping, MemoryError, map_file};
use crate::memory::GuestMemory;

/// Header of a queue's part: features (u64), version, desc_num, last_batch_head, used_idx.
const HEADER_BYTES: usize = 16;
const VERSION_OFFSET: usize = 8;
const DESC_NUM_OFFSET: usize = 10;
const USED_IDX_OFFSET: usize = 14;
const VERSION: u16 = 1;
/// State of a descriptor: inflight (u8), padding, next (u16), counter (u64).
const STATE_BYTES: usize = 16;
const COUNTER_OFFSET: usize = 8;
/// Every queue's part begins at such a multiple.
const PART_ALIGN: usize = 64;

/// What GET_INFLIGHT_FD and SET_INFLIGHT_FD carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) mmap_size: u64,
    pub(super) mmap_offset: u64,
    pub(super) num_queues: u16,
    pub(super) queue_size: u16,
}

impl Description {
    /// Reads a payload. It has 20 bytes in the specification and 24 in compilers that pad it.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() != 20 && payload.len() != 24 {
            return None;
        }
        let (size, rest) = payload.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (queues, rest) = rest.split_first_chunk()?;
        let (queue_size, _) = rest.split_first_chunk()?;
        Some(Self {
            mmap_size: u64::from_ne_bytes(*size),
            mmap_offset: u64::from_ne_bytes(*offset),
            num_queues: u16::from_ne_bytes(*queues),
            queue_size: u16::from_ne_bytes(*queue_size),
        })
    }

    /// The payload in `len` bytes.
    pub(super) fn to_bytes(self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        bytes.extend(self.mmap_size.to_ne_bytes());
        bytes.extend(self.mmap_offset.to_ne_bytes());
        bytes.extend(self.num_queues.to_ne_bytes());
        bytes.extend(self.queue_size.to_ne_bytes());
        bytes.resize(len, 0);
        bytes
    }

    /// Bytes that all queues need.
    fn needed(&self) -> usize {
        part_bytes(self.queue_size) * usize::from(self.num_queues)
    }
}

fn part_bytes(queue_size: u16) -> usize {
    (HEADER_BYTES + STATE_BYTES * usize::from(queue_size)).next_multiple_of(PART_ALIGN)
}

/// Makes zeroed memory for so many queues; nobody can shrink it.
pub(super) fn create(num_queues: u16, queue_size: u16) -> io::Result<(Description, OwnedFd)> {
    let mut made = Description { mmap_size: 0, mmap_offset: 0, num_queues, queue_size };
    made.mmap_size = made.needed() as u64;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("inflight", flags)?);
    file.set_len(made.mmap_size)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok((made, file.into()))
}

/// Maps what the peer hands back and gives each queue its part.
pub(super) fn map(
    description: &Description,
    file: OwnedFd,
    limits: Limits,
) -> Result<Vec<Log>, MemoryError> {
    let needed = description.needed();
    let file = FileOffset::new(file.into(), description.mmap_offset);
    let area = Arc::new(map_file(0, file, needed as u64, limits)?);
    let part = part_bytes(description.queue_size);
    let logs = (0..usize::from(description.num_queues)).map(|queue| Log {
        area: Arc::clone(&area),
        start: queue * part,
        size: description.queue_size,
        counter: 0,
    });
    Ok(logs.collect())
}

/// The part of one queue.
#[derive(Debug)]
pub(super) struct Log {
    area: Arc<Mapping>,
    start: usize,
    /// Descriptors that it has room for.
    pub(super) size: u16,
    /// Number of the latest chain that was taken.
    counter: u64,
}

impl Log {
    /// Whether the memory that it is in was lost.
    pub(super) fn is_lost(&self) -> bool {
        self.area.is_lost()
    }

    /// The chain at `head` was taken.
    pub(super) fn taken(&mut self, head: u16) {
        if head >= self.size {
            return;
        }
        self.counter = self.counter.wrapping_add(1);
        self.store_u64(self.state(head) + COUNTER_OFFSET, self.counter);
        self.store_flag(head, true);
    }

    /// The chain at `head` is in the used ring, whose index is `used` now.
    pub(super) fn returned(&mut self, head: Option<u16>, used: u16) {
        if let Some(head) = head.filter(|head| *head < self.size) {
            self.store_flag(head, false);
        }
        self.store_u16(USED_IDX_OFFSET, used);
    }

    /// What was taken and not returned, oldest first, when the used ring's index is `used`.
    pub(super) fn recover(&mut self, mem: &GuestMemory, queue: &Queue, used: u16) -> Vec<u16> {
        let size = self.size.min(queue.size());
        if self.load_u16(VERSION_OFFSET) != VERSION {
            (0..self.size).for_each(|head| self.store_flag(head, false));
            self.store_u16(DESC_NUM_OFFSET, self.size);
            self.store_u16(USED_IDX_OFFSET, used);
            self.store_u16(VERSION_OFFSET, VERSION);
        }
        // Returned to the driver, but not noted any more.
        let noted = self.load_u16(USED_IDX_OFFSET);
        let unnoted = used.wrapping_sub(noted).min(size);
        for back in 1..=unnoted {
            let head = used_head(mem, queue, used.wrapping_sub(back));
            if let Some(head) = head.filter(|head| *head < self.size) {
                self.store_flag(head, false);
            }
        }
        self.store_u16(USED_IDX_OFFSET, used);
        let mut found: Vec<(u64, u16)> = (0..size)
            .filter(|head| self.load_flag(*head))
            .map(|head| (self.load_u64(self.state(head) + COUNTER_OFFSET), head))
            .collect();
        found.sort_unstable();
        self.counter = found.last().map_or(0, |(counter, _)| *counter);
        found.into_iter().map(|(_, head)| head).collect()
    }

    fn state(&self, head: u16) -> usize {
        HEADER_BYTES + STATE_BYTES * usize::from(head)
    }

    fn load_flag(&self, head: u16) -> bool {
        let at = self.start + self.state(head);
        self.area.bytes().load::<u8>(at, Ordering::Acquire).is_ok_and(|flag| flag != 0)
    }

    fn load_u16(&self, offset: usize) -> u16 {
        // `map` made room for all that is read and written here.
        self.area.bytes().load(self.start + offset, Ordering::Acquire).unwrap_or(0)
    }

    fn load_u64(&self, offset: usize) -> u64 {
        self.area.bytes().load(self.start + offset, Ordering::Acquire).unwrap_or(0)
    }

    // Each store is visible to whoever takes over before the next one is: `Release`.

    fn store_flag(&self, head: u16, flag: bool) {
        let at = self.start + self.state(head);
        let _ = self.area.bytes().store(u8::from(flag), at, Ordering::Release);
    }

    fn store_u16(&self, offset: usize, value: u16) {
        let _ = self.area.bytes().store(value, self.start + offset, Ordering::Release);
    }

    fn store_u64(&self, offset: usize, value: u64) {
        let _ = self.area.bytes().store(value, self.start + offset, Ordering::Release);
    }
}

/// The chain that was returned as number `index`.
fn used_head(mem: &GuestMemory, queue: &Queue, index: u16) -> Option<u16> {
    let place = u64::from(index.checked_rem(queue.size())?);
    // virtio 1.2, 2.7.8: flags and index, then elements of id and length.
    let address = queue.used_ring().checked_add(4 + 8 * place)?;
    let id: u32 = mem.read_obj(GuestAddress(address)).ok()?;
    u16::try_from(u32::from_le(id)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Driver, memory, readable, shared_memory, writable};

    const SIZE: u16 = 16;
    const LIMITS: Limits = Limits { max_bytes: 1 << 20, allow_unsealed: false };

    /// A ring with `posted` chains, and memory that two processes share one after the other.
    fn world(posted: usize) -> (Arc<GuestMemory>, Driver, Description, OwnedFd) {
        let mem = memory(0x10000);
        let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
        for _ in 0..posted {
            driver.post(&[readable(0x5000, 16), writable(0x6000, 1)]);
        }
        let (description, file) = create(1, SIZE).unwrap();
        (mem, driver, description, file)
    }

    fn log(description: &Description, file: &OwnedFd) -> Log {
        map(description, file.try_clone().unwrap(), LIMITS).unwrap().remove(0)
    }

    #[test]
    fn what_was_not_returned_is_found_in_the_order_it_was_taken() {
        let (mem, driver, description, file) = world(3);
        let mut queue = driver.queue();
        let mut first = log(&description, &file);
        assert!(first.recover(&mem, &queue, 0).is_empty(), "fresh memory has nothing");
        for head in [4, 0, 2] {
            first.taken(head);
        }
        queue.add_used(&*mem, 0, 1).unwrap();
        first.returned(Some(0), 1);
        drop(first);
        assert_eq!(log(&description, &file).recover(&mem, &queue, 1), [4, 2]);
    }

    #[test]
    fn a_chain_returned_in_the_last_moment_is_not_served_again() {
        let (mem, driver, description, file) = world(2);
        let mut queue = driver.queue();
        let mut first = log(&description, &file);
        let _ = first.recover(&mem, &queue, 0);
        first.taken(0);
        first.taken(2);
        // The process dies between the used ring and its note.
        queue.add_used(&*mem, 2, 1).unwrap();
        let mut second = log(&description, &file);
        assert_eq!(second.recover(&mem, &queue, 1), [0]);
        second.taken(5);
        assert_eq!(log(&description, &file).recover(&mem, &queue, 1), [0, 5], "it counts on");
    }

    #[test]
    fn memory_that_lies_does_no_harm() {
        let (mem, driver, mut description, file) = world(1);
        let mut queue = driver.queue();
        let mut first = log(&description, &file);
        let _ = first.recover(&mem, &queue, 0);
        first.taken(SIZE);
        first.returned(Some(u16::MAX), 77);
        (0..SIZE).for_each(|head| first.store_flag(head, true));
        queue.add_used(&*mem, 0, 1).unwrap();
        assert_eq!(first.recover(&mem, &queue, 1).len(), usize::from(SIZE) - 1);
        description.num_queues = 100;
        assert!(map(&description, file, LIMITS).is_err(), "longer than the file");
        let (_, unsealed) = shared_memory(0x1000);
        let offset = Description { mmap_offset: 1, num_queues: 1, ..description };
        assert!(map(&offset, unsealed.into(), LIMITS).is_err(), "not at a page");
    }
}
