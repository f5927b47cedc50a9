//! The driver's side of a split virtqueue, and guest memory, for tests.
//!
//! Everything here writes plain guest memory, so a test can also write what no driver would.

mod guest;
mod images;

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use virtio_bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Address, ByteValued, Bytes, FileOffset, GuestAddress};

pub use guest::{Guest, SLOT_BYTES, SLOTS, Virtqueue};
pub use images::ImageThreads;

use crate::memory::GuestMemory;
use crate::virtqueue::Descriptor;

/// Bytes that a ring takes in guest memory, whatever its size (at most 256).
pub const RING_BYTES: u64 = 0x3000;

/// Guest memory of `len` bytes at address 0.
///
/// # Panics
/// There is no memory.
pub fn memory(len: usize) -> Arc<GuestMemory> {
    Arc::new(GuestMemory::from_ranges(&[(GuestAddress(0), len)]).expect("anonymous memory"))
}

/// Guest memory of `len` bytes at address 0 in a memfd sealed against shrinking, as a tenant
/// process makes it.
///
/// # Panics
/// There is no memory.
pub fn shared_memory(len: usize) -> (Arc<GuestMemory>, File) {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("guest", flags).expect("memfd"));
    file.set_len(len as u64).expect("memory for the guest");
    fcntl_add_seals(&file, SealFlags::SHRINK).expect("seals");
    let again = file.try_clone().expect("descriptor");
    let range = (GuestAddress(0), len, Some(FileOffset::new(again, 0)));
    (Arc::new(GuestMemory::from_ranges_with_files([range]).expect("mapping")), file)
}

/// A readable descriptor.
pub fn readable(addr: u64, len: u32) -> Descriptor {
    Descriptor { addr: GuestAddress(addr), len, writable: false }
}

/// A writable descriptor.
pub fn writable(addr: u64, len: u32) -> Descriptor {
    Descriptor { addr: GuestAddress(addr), len, writable: true }
}

/// A driver of one queue. Descriptor table, available and used ring lie at `base`, `base + 0x1000`
/// and `base + 0x2000`.
#[derive(Debug)]
pub struct Driver {
    mem: Arc<GuestMemory>,
    base: u64,
    size: u16,
    next_descriptor: u16,
    avail_idx: u16,
    used_idx: u16,
}

impl Driver {
    /// A driver whose ring begins at `base`.
    pub fn new(mem: Arc<GuestMemory>, base: u64, size: u16) -> Self {
        Self { mem, base, size, next_descriptor: 0, avail_idx: 0, used_idx: 0 }
    }

    /// Addresses of descriptor table, available ring and used ring.
    pub fn addresses(&self) -> [u64; 3] {
        [self.base, self.base + 0x1000, self.base + 0x2000]
    }

    /// The queue as the device sees it after the driver has set it up.
    ///
    /// # Panics
    /// The size is no power of two.
    pub fn queue(&self) -> Queue {
        let [descriptors, available, used] = self.addresses().map(GuestAddress);
        let mut queue = Queue::new(self.size).expect("queue size");
        queue.try_set_desc_table_address(descriptors).expect("alignment");
        queue.try_set_avail_ring_address(available).expect("alignment");
        queue.try_set_used_ring_address(used).expect("alignment");
        queue.set_ready(true);
        queue
    }

    fn write<T: ByteValued>(&self, addr: u64, value: T) {
        self.mem.write_obj(value, GuestAddress(addr)).expect("address in guest memory");
    }

    fn read<T: ByteValued>(&self, addr: u64) -> T {
        self.mem.read_obj(GuestAddress(addr)).expect("address in guest memory")
    }

    /// Writes one descriptor of a table.
    pub fn write_descriptor(&self, table: u64, index: u16, d: Descriptor, flags: u32, next: u16) {
        let direction = if d.writable { VRING_DESC_F_WRITE } else { 0 };
        let at = table + 16 * u64::from(index);
        self.write(at, d.addr.raw_value());
        self.write(at + 8, d.len);
        self.write(at + 12, u16::try_from(flags | direction).unwrap_or(u16::MAX));
        self.write(at + 14, next);
    }

    /// Puts a head into the available ring.
    pub fn make_available(&mut self, head: u16) {
        let [_, available, _] = self.addresses();
        self.write(available + 4 + 2 * u64::from(self.avail_idx % self.size), head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.write(available + 2, self.avail_idx);
    }

    /// Posts a chain; returns its head.
    pub fn post(&mut self, chain: &[Descriptor]) -> u16 {
        let head = self.next_descriptor;
        for (place, descriptor) in chain.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let flags = if place + 1 < chain.len() { VRING_DESC_F_NEXT } else { 0 };
            self.write_descriptor(self.base, index, *descriptor, flags, self.next_descriptor);
        }
        self.make_available(head);
        head
    }

    /// Posts a chain by an indirect table at `table`; returns its head.
    pub fn post_indirect(&mut self, table: u64, chain: &[Descriptor]) -> u16 {
        for (index, descriptor) in (0..).zip(chain) {
            let last = usize::from(index) + 1 == chain.len();
            let flags = if last { 0 } else { VRING_DESC_F_NEXT };
            self.write_descriptor(table, index, *descriptor, flags, index + 1);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        let len = u32::try_from(16 * chain.len()).unwrap_or(u32::MAX);
        self.write_descriptor(self.base, head, readable(table, len), VRING_DESC_F_INDIRECT, 0);
        self.make_available(head);
        head
    }

    /// The next element of the used ring that was not seen yet: head and length.
    pub fn used(&mut self) -> Option<(u32, u32)> {
        let [_, _, used] = self.addresses();
        if self.read::<u16>(used + 2) == self.used_idx {
            return None;
        }
        let at = used + 4 + 8 * u64::from(self.used_idx % self.size);
        self.used_idx = self.used_idx.wrapping_add(1);
        Some((self.read(at), self.read(at + 4)))
    }

    /// How many elements of the used ring were seen, modulo 2^16.
    pub fn used_index(&self) -> u16 {
        self.used_idx
    }

    /// Without EVENT_IDX: says whether interrupts are wanted.
    pub fn want_interrupts(&self, wanted: bool) {
        let flags = if wanted { 0 } else { VRING_AVAIL_F_NO_INTERRUPT };
        self.write(self.addresses()[1], u16::try_from(flags).unwrap_or(0));
    }

    /// With EVENT_IDX: the used index after which an interrupt is wanted.
    pub fn set_used_event(&self, index: u16) {
        self.write(self.addresses()[1] + 4 + 2 * u64::from(self.size), index);
    }
}
