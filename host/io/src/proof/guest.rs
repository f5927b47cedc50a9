//! A tenant as the domain sees it: guest memory, a vhost-user frontend, and the drivers of its queues.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use moirai_devices::memory::GuestMemory;
use moirai_devices::mock::{Driver, shared_memory};
use moirai_devices::virtqueue::Descriptor;
use vhost::vhost_user::Frontend;
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Descriptors of a queue, and how many of them each slot has.
const QUEUE_SIZE: u16 = 64;
const PER_SLOT: u16 = 4;
/// Requests that a queue has under way at most.
pub(super) const SLOTS: u16 = 8;
/// Bytes of memory that a queue takes: its ring, then a page for headers, then the slots' data.
const QUEUE_BYTES: u64 = 0x4000 + SLOTS as u64 * SLOT_BYTES;
/// Data of one slot.
pub(super) const SLOT_BYTES: u64 = 128 << 10;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

/// One queue and its driver.
pub(super) struct Queue {
    pub(super) driver: Driver,
    base: u64,
    kick: EventFd,
    call: EventFd,
    /// Chains that were made available so far.
    available: u16,
    /// Slots that are the device's now.
    pub(super) lent: [bool; SLOTS as usize],
    /// Its driver waits for the answer to GET_VRING_BASE.
    pub(super) stopping: bool,
}

/// A guest with as many queues as its device has.
pub(super) struct Guest {
    pub(super) memory: Arc<GuestMemory>,
    frontend: Frontend,
    socket: UnixStream,
    pub(super) queues: Vec<Queue>,
    event_idx: bool,
}

impl Guest {
    /// A guest at this end of a vhost-user connection that has set up its first `queues` queues.
    pub(super) fn boot(socket: UnixStream, queues: u16, features: u64, event_idx: bool) -> Self {
        let bytes = usize::try_from(u64::from(queues) * QUEUE_BYTES).unwrap();
        let (memory, file) = shared_memory(bytes);
        let again = socket.try_clone().unwrap();
        let frontend = Frontend::from_stream(socket, u64::from(queues));
        let event = if event_idx { EVENT_IDX } else { 0 };
        frontend.set_features(VERSION_1 | event | features).unwrap();
        let host = memory.get_host_address(GuestAddress(0)).unwrap() as u64;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: bytes as u64,
            userspace_addr: host,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        frontend.set_mem_table(&[region]).unwrap();
        let queue = |number: u16| {
            let base = u64::from(number) * QUEUE_BYTES;
            let event = || EventFd::new(EFD_NONBLOCK).unwrap();
            Queue {
                driver: Driver::new(Arc::clone(&memory), base, QUEUE_SIZE),
                base,
                kick: event(),
                call: event(),
                available: 0,
                lent: [false; SLOTS as usize],
                stopping: false,
            }
        };
        let queues = (0..queues).map(queue).collect();
        let mut guest = Self { memory, frontend, socket: again, queues, event_idx };
        (0..guest.queues.len()).for_each(|number| guest.start(number, 0));
        guest
    }

    /// Sets a queue up: from the chain of this number on.
    pub(super) fn start(&mut self, number: usize, base: u16) {
        let host = self.memory.get_host_address(GuestAddress(0)).unwrap() as u64;
        let queue = &mut self.queues[number];
        let [descriptors, available, used] = queue.driver.addresses().map(|it| host + it);
        let addresses = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: descriptors,
            used_ring_addr: used,
            avail_ring_addr: available,
            log_addr: None,
        };
        queue.stopping = false;
        self.frontend.set_vring_num(number, QUEUE_SIZE).unwrap();
        self.frontend.set_vring_base(number, base).unwrap();
        self.frontend.set_vring_addr(number, &addresses).unwrap();
        self.frontend.set_vring_call(number, &queue.call).unwrap();
        self.frontend.set_vring_kick(number, &queue.kick).unwrap();
    }

    /// Asks for the end of a queue: what is under way is answered before that is.
    pub(super) fn stop(&mut self, number: usize) {
        const GET_VRING_BASE: u32 = 11;
        self.queues[number].stopping = true;
        let number = u32::try_from(number).unwrap();
        self.say(&[GET_VRING_BASE, 1, 8, number, 0].map(u32::to_ne_bytes).concat());
    }

    /// The answer to that, if it is there: which queue, and where it stopped.
    pub(super) fn stopped(&mut self) -> Option<(usize, u16)> {
        if !self.queues.iter().any(|queue| queue.stopping) {
            return None;
        }
        let mut reply = [0; 20];
        let flags = rustix::net::RecvFlags::DONTWAIT;
        let (got, _) = rustix::net::recv(&self.socket, &mut reply, flags).ok()?;
        assert_eq!(got, 20, "half an answer");
        let word = |at: usize| u32::from_ne_bytes(reply[at..at + 4].try_into().unwrap());
        let number = usize::try_from(word(12)).unwrap();
        Some((number, u16::try_from(word(16)).unwrap()))
    }

    /// Begins again where a queue has stopped. Nothing that the device had taken may be under way.
    pub(super) fn restart(&mut self, number: usize, base: u16) {
        let queue = &self.queues[number];
        let lent = queue.lent.iter().filter(|lent| **lent).count();
        let left = usize::from(queue.available.wrapping_sub(base));
        assert_eq!(lent, left, "queue {number} has ended with requests under way");
        self.start(number, base);
    }

    /// Says something, whatever it is. The device may have hung up.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        let _ = rustix::net::send(&self.socket, bytes, flags);
    }

    /// Makes a chain of a slot's descriptors available, and kicks if the device wants that.
    pub(super) fn post(&mut self, number: usize, slot: u16, chain: &[Descriptor]) {
        const NEXT: u32 = 1;
        let queue = &mut self.queues[number];
        let (first, last) = (slot * PER_SLOT, chain.len() - 1);
        for (place, descriptor) in (0..).zip(chain) {
            let flags = if usize::from(place) == last { 0 } else { NEXT };
            let index = first + place;
            queue.driver.write_descriptor(queue.base, index, *descriptor, flags, index + 1);
        }
        queue.lent[usize::from(slot)] = true;
        queue.driver.make_available(first);
        let before = queue.available;
        queue.available = before.wrapping_add(1);
        if self.wants_kick(number, before) {
            self.kick(number);
        }
    }

    pub(super) fn kick(&mut self, number: usize) {
        let _ = self.queues[number].kick.write(1);
    }

    /// Whether the device has to be told about the chain of this number (virtio 1.2, 2.7.10).
    fn wants_kick(&self, number: usize, chain: u16) -> bool {
        let [_, _, used] = self.queues[number].driver.addresses();
        let word = |at| self.memory.read_obj::<u16>(GuestAddress(at)).unwrap();
        if self.event_idx {
            return word(used + 4 + 8 * u64::from(QUEUE_SIZE)) == chain;
        }
        word(used) & 1 == 0
    }

    /// The next slot that came back, and how many bytes the device says it wrote.
    pub(super) fn returned(&mut self, number: usize) -> Option<(u16, u32)> {
        let queue = &mut self.queues[number];
        let (head, len) = queue.driver.used()?;
        let slot = u16::try_from(head).unwrap() / PER_SLOT;
        let lent = queue.lent.get_mut(usize::from(slot)).expect("a head that was never there");
        assert!(std::mem::take(lent), "chain {head} of queue {number} came back twice");
        let _ = queue.call.read();
        Some((slot, len))
    }

    /// A slot that is the driver's.
    pub(super) fn free_slot(&self, number: usize) -> Option<u16> {
        let place = self.queues[number].lent.iter().position(|lent| !lent)?;
        u16::try_from(place).ok()
    }

    /// Whether nothing of it is the device's.
    pub(super) fn has_all(&self) -> bool {
        self.queues.iter().all(|queue| queue.lent.iter().all(|lent| !lent))
    }

    /// Where a slot has its headers and its data.
    pub(super) fn header(&self, number: usize, slot: u16) -> u64 {
        self.queues[number].base + 0x3000 + u64::from(slot) * 64
    }

    pub(super) fn data(&self, number: usize, slot: u16) -> u64 {
        self.queues[number].base + 0x4000 + u64::from(slot) * SLOT_BYTES
    }
}
