//! The driver's side of a split virtqueue (virtio 1.2, section 2.7).
//!
//! Why not the queue of the `virtio-drivers` crate (0.13), whose transport we use: its event index
//! comparison does not survive the wrap of the 16-bit indices, it has no barrier between publishing
//! a buffer and reading whether the device wants a doorbell, it cannot publish several chains with
//! one doorbell, and with event indices it cannot silence the device. All four matter here.
//!
//! State: the shared rings, and a private shadow of every chain. The device can write the used ring
//! only; what it writes there is checked against the shadow, so a bad device gives a
//! [`VirtqueueError`], never a wrong memory access. No hardware in here: tests play the device.
#![allow(unsafe_code, reason = "memory shared with a device")]

use crate::memory::{Buffer, OutOfMemory};
use alloc::boxed::Box;
use alloc::vec;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use thiserror::Error;

const DESC_LEN: usize = 16;
const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// The device broke a rule of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VirtqueueError {
    /// It returned more chains than it was given.
    #[error("the device's used index {used} is not within the {in_flight} chains behind {seen}")]
    UsedIndex {
        /// The device's index.
        used: u16,
        /// What was consumed so far.
        seen: u16,
        /// Chains the device holds.
        in_flight: u16,
    },
    /// It returned a chain that it does not hold.
    #[error("the device returned chain {id}, which it does not hold")]
    UnknownChain {
        /// The chain's number.
        id: u32,
    },
}

/// The ring has no room for the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the ring is full")]
pub struct VirtqueueFull;

/// One piece of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes it (else it reads it). Writable segments come last.
    pub device_writes: bool,
}

/// A chain that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The chain, as [`Virtqueue::push`] named it.
    pub head: u16,
    /// Bytes the device says it wrote.
    pub written: u32,
}

/// One virtqueue.
#[derive(Debug)]
pub struct Virtqueue {
    memory: Buffer,
    size: u16,
    event_idx: bool,
    /// Shadow of the descriptors' links: free list and chains in flight.
    next: Box<[u16]>,
    /// Descriptors of the chain in flight that starts here; 0: none does.
    chain_len: Box<[u16]>,
    free_head: u16,
    free: u16,
    in_flight: u16,
    /// Where the next chain goes, and how far the device knows.
    avail_idx: u16,
    published: u16,
    last_used: u16,
}

impl Virtqueue {
    /// Allocates a ring of `size` descriptors, a power of two. `event_idx`: VIRTIO_F_EVENT_IDX was
    /// negotiated. It starts [disarmed](Virtqueue::disarm).
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new(size: u16, event_idx: bool) -> Result<Self, OutOfMemory> {
        debug_assert!(size.is_power_of_two(), "virtio rings have a power of two of descriptors");
        let entries = usize::from(size);
        let memory = Buffer::new(used_offset(entries) + 6 + 8 * entries)?;
        let next = (1..=size).collect();
        let ring = Self {
            memory,
            size,
            event_idx,
            next,
            chain_len: vec![0; entries].into_boxed_slice(),
            free_head: 0,
            free: size,
            in_flight: 0,
            avail_idx: 0,
            published: 0,
            last_used: 0,
        };
        ring.disarm();
        Ok(ring)
    }

    /// Number of descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Free descriptors: the longest chain that [`Virtqueue::push`] takes now.
    #[must_use]
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Chains that the device holds.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Physical addresses of descriptor table, available ring and used ring.
    #[must_use]
    pub fn addresses(&self) -> [u64; 3] {
        let entries = usize::from(self.size);
        let base = self.memory.address();
        [base, base + avail_offset(entries) as u64, base + used_offset(entries) as u64]
    }

    /// The name that the next chain will get; `None` if the ring is full.
    #[must_use]
    pub fn next_head(&self) -> Option<u16> {
        (self.free > 0).then_some(self.free_head)
    }

    /// Queues a chain; the device sees it at the next [`Virtqueue::publish`].
    ///
    /// # Errors
    /// [`VirtqueueFull`], nothing is queued then. An empty chain is refused so too.
    ///
    /// # Safety
    /// Until [`Virtqueue::pop`] returns the chain, its segments stay allocated, nobody writes those
    /// the device reads, and nobody has a reference to those the device writes.
    pub unsafe fn push(&mut self, segments: &[Segment]) -> Result<u16, VirtqueueFull> {
        let len = u16::try_from(segments.len()).map_err(|_| VirtqueueFull)?;
        if len == 0 || len > self.free {
            return Err(VirtqueueFull);
        }
        let head = self.free_head;
        let mut at = head;
        for (index, segment) in segments.iter().enumerate() {
            let more = index + 1 < segments.len();
            self.write_descriptor(at, segment, more);
            at = self.shadow_next(at);
        }
        self.free_head = at;
        self.free -= len;
        self.in_flight += 1;
        if let Some(slot) = self.chain_len.get_mut(usize::from(head)) {
            *slot = len;
        }
        self.avail_entry(self.avail_idx).store(head, Ordering::Relaxed);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        Ok(head)
    }

    /// Shows all queued chains to the device. True: it wants a doorbell.
    #[must_use]
    pub fn publish(&mut self) -> bool {
        if self.published == self.avail_idx {
            return false;
        }
        let old = self.published;
        self.published = self.avail_idx;
        self.avail_index().store(self.avail_idx, Ordering::Release);
        // The device's wish is read after the index is visible to it, else both could sleep.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.avail_event().load(Ordering::Relaxed);
            passes_event(event, self.avail_idx, old)
        } else {
            self.used_flags().load(Ordering::Relaxed) & USED_NO_NOTIFY == 0
        }
    }

    /// Has the device finished something that was not popped yet?
    #[must_use]
    pub fn has_used(&self) -> bool {
        self.used_index().load(Ordering::Acquire) != self.last_used
    }

    /// Takes back the next chain that the device is done with.
    ///
    /// # Errors
    /// [`VirtqueueError`] if the device wrote nonsense; the ring is unusable then.
    pub fn pop(&mut self) -> Result<Option<Used>, VirtqueueError> {
        let used = self.used_index().load(Ordering::Acquire);
        let fresh = used.wrapping_sub(self.last_used);
        if fresh == 0 {
            return Ok(None);
        }
        if fresh > self.in_flight {
            let (seen, in_flight) = (self.last_used, self.in_flight);
            return Err(VirtqueueError::UsedIndex { used, seen, in_flight });
        }
        let (id, written) = self.used_entry(self.last_used);
        let head = u16::try_from(id).map_err(|_| VirtqueueError::UnknownChain { id })?;
        self.free_chain(head).ok_or(VirtqueueError::UnknownChain { id })?;
        self.last_used = self.last_used.wrapping_add(1);
        Ok(Some(Used { head, written }))
    }

    /// Asks for an interrupt when the device has finished `chains` more (without event indices: at
    /// the next one). False: there is something to [`pop`](Virtqueue::pop) already.
    #[must_use]
    pub fn arm(&self, chains: u16) -> bool {
        if self.event_idx {
            let event = self.last_used.wrapping_add(chains.max(1) - 1);
            self.used_event().store(event, Ordering::Relaxed);
        } else {
            self.avail_flags().store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        let fresh = self.used_index().load(Ordering::Acquire).wrapping_sub(self.last_used);
        fresh < chains.max(1)
    }

    /// Asks for no interrupts.
    pub fn disarm(&self) {
        if self.event_idx {
            self.used_event().store(self.last_used.wrapping_sub(1), Ordering::Relaxed);
        } else {
            self.avail_flags().store(AVAIL_NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    fn write_descriptor(&mut self, at: u16, segment: &Segment, more: bool) {
        let next = self.shadow_next(at);
        let mut flags = if segment.device_writes { DESC_WRITE } else { 0 };
        if more {
            flags |= DESC_NEXT;
        }
        let second = u64::from(segment.len) | (u64::from(flags) << 32) | (u64::from(next) << 48);
        let offset = usize::from(at & (self.size - 1)) * DESC_LEN;
        self.word64(offset).store(segment.address, Ordering::Relaxed);
        self.word64(offset + 8).store(second, Ordering::Relaxed);
    }

    /// Puts the descriptors of a chain in flight back to the free list.
    fn free_chain(&mut self, head: u16) -> Option<()> {
        let len = core::mem::take(self.chain_len.get_mut(usize::from(head))?);
        if len == 0 {
            return None;
        }
        let mut last = head;
        for _ in 1..len {
            last = self.shadow_next(last);
        }
        *self.next.get_mut(usize::from(last))? = self.free_head;
        self.free_head = head;
        self.free += len;
        self.in_flight -= 1;
        Some(())
    }

    fn shadow_next(&self, at: u16) -> u16 {
        self.next.get(usize::from(at)).copied().unwrap_or(0)
    }

    // The shared rings: offsets from sections 2.7.5 to 2.7.8.

    fn avail_flags(&self) -> &AtomicU16 {
        self.word16(avail_offset(usize::from(self.size)))
    }

    fn avail_index(&self) -> &AtomicU16 {
        self.word16(avail_offset(usize::from(self.size)) + 2)
    }

    fn avail_entry(&self, index: u16) -> &AtomicU16 {
        let slot = usize::from(index & (self.size - 1));
        self.word16(avail_offset(usize::from(self.size)) + 4 + 2 * slot)
    }

    fn used_event(&self) -> &AtomicU16 {
        let entries = usize::from(self.size);
        self.word16(avail_offset(entries) + 4 + 2 * entries)
    }

    fn used_flags(&self) -> &AtomicU16 {
        self.word16(used_offset(usize::from(self.size)))
    }

    fn used_index(&self) -> &AtomicU16 {
        self.word16(used_offset(usize::from(self.size)) + 2)
    }

    /// Chain and written length.
    fn used_entry(&self, index: u16) -> (u32, u32) {
        let slot = usize::from(index & (self.size - 1));
        let offset = used_offset(usize::from(self.size)) + 4 + 8 * slot;
        (
            self.word32(offset).load(Ordering::Relaxed),
            self.word32(offset + 4).load(Ordering::Relaxed),
        )
    }

    fn avail_event(&self) -> &AtomicU16 {
        let entries = usize::from(self.size);
        self.word16(used_offset(entries) + 4 + 8 * entries)
    }

    fn word16(&self, offset: usize) -> &AtomicU16 {
        assert!(offset + 2 <= self.memory.len() && offset.is_multiple_of(2));
        // SAFETY: within the allocation and aligned, by the assertion; all accesses to it, the
        // device's too, are atomic.
        unsafe { AtomicU16::from_ptr(self.memory.as_mut_ptr().add(offset).cast()) }
    }

    fn word32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.memory.len() && offset.is_multiple_of(4));
        // SAFETY: as in `word16`.
        unsafe { AtomicU32::from_ptr(self.memory.as_mut_ptr().add(offset).cast()) }
    }

    fn word64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= self.memory.len() && offset.is_multiple_of(8));
        // SAFETY: as in `word16`.
        unsafe { AtomicU64::from_ptr(self.memory.as_mut_ptr().add(offset).cast()) }
    }
}

fn avail_offset(entries: usize) -> usize {
    DESC_LEN * entries
}

/// The used ring starts on a page of its own: the device writes it, the driver the other two.
fn used_offset(entries: usize) -> usize {
    (avail_offset(entries) + 6 + 2 * entries).next_multiple_of(4096)
}

/// Section 2.7.10: did the index go past `event` on its way from `old` to `new`?
fn passes_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
#[path = "virtqueue_tests.rs"]
mod tests;
