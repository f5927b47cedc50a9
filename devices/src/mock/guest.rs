//! A tenant as the domain sees it: guest memory, a vhost-user frontend, and the drivers of its
//! queues.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]
#![allow(clippy::missing_panics_doc, reason = "see above")]

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vhost::vhost_user::Frontend;
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Driver, shared_memory};
use crate::memory::GuestMemory;
use crate::virtqueue::Descriptor;

/// Descriptors of a queue, and how many of them each slot has.
const QUEUE_SIZE: u16 = 64;
const PER_SLOT: u16 = 4;
/// Requests that a queue has under way at most.
pub const SLOTS: u16 = 8;
/// Bytes of memory that a queue takes: its ring, then a page for headers, then the slots' data.
const QUEUE_BYTES: u64 = 0x4000 + SLOTS as u64 * SLOT_BYTES;
/// Data of one slot.
pub const SLOT_BYTES: u64 = 128 << 10;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

/// One queue and its driver.
pub struct Virtqueue {
    /// Its rings.
    pub driver: Driver,
    base: u64,
    kick: EventFd,
    call: EventFd,
    /// Chains that were made available so far.
    available: u16,
    /// Slots that are the device's now.
    pub lent: [bool; SLOTS as usize],
    /// Its driver waits for the answer to GET_VRING_BASE.
    pub stopping: bool,
}

/// A guest with as many queues as its device has.
pub struct Guest {
    /// What its device may touch.
    pub memory: Arc<GuestMemory>,
    frontend: Frontend,
    socket: UnixStream,
    /// Its queues, all set up.
    pub queues: Vec<Virtqueue>,
    event_idx: bool,
}

impl Guest {
    /// A guest at this end of a vhost-user connection that has set up its first `queues` queues.
    pub fn boot(socket: UnixStream, queues: u16, features: u64, event_idx: bool) -> Self {
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
            Virtqueue {
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
    pub fn start(&mut self, number: usize, base: u16) {
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
    pub fn stop(&mut self, number: usize) {
        const GET_VRING_BASE: u32 = 11;
        self.queues[number].stopping = true;
        let number = u32::try_from(number).unwrap();
        self.say(&[GET_VRING_BASE, 1, 8, number, 0].map(u32::to_ne_bytes).concat());
    }

    /// The answer to that, if it is there: which queue, and where it stopped.
    pub fn stopped(&mut self) -> Option<(usize, u16)> {
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
    pub fn restart(&mut self, number: usize, base: u16) {
        let queue = &self.queues[number];
        let lent = queue.lent.iter().filter(|lent| **lent).count();
        let left = usize::from(queue.available.wrapping_sub(base));
        assert_eq!(lent, left, "queue {number} has ended with requests under way");
        self.start(number, base);
    }

    /// Says something, whatever it is. The device may have hung up.
    pub fn say(&mut self, bytes: &[u8]) {
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        let _ = rustix::net::send(&self.socket, bytes, flags);
    }

    /// Makes a chain of a slot's descriptors available, and kicks if the device wants that.
    pub fn post(&mut self, number: usize, slot: u16, chain: &[Descriptor]) {
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

    /// Tells the device that there is something.
    pub fn kick(&mut self, number: usize) {
        let _ = self.queues[number].kick.write(1);
    }

    /// Whether the device has to be told about the chain of this number (virtio 1.2, 2.7.10).
    fn wants_kick(&self, number: usize, chain: u16) -> bool {
        // The device must see the chain if it has not said yet that it wants to be told.
        fence(Ordering::SeqCst);
        let [_, _, used] = self.queues[number].driver.addresses();
        let word = |at| self.memory.read_obj::<u16>(GuestAddress(at)).unwrap();
        if self.event_idx {
            return word(used + 4 + 8 * u64::from(QUEUE_SIZE)) == chain;
        }
        word(used) & 1 == 0
    }

    /// Whether the device has said that something came back. Take all of it, then call
    /// [`Guest::await_interrupt`].
    pub fn interrupted(&mut self, number: usize) -> bool {
        self.queues[number].call.read().is_ok()
    }

    /// Whether something came back that was not taken yet.
    pub fn has_news(&self, number: usize) -> bool {
        let driver = &self.queues[number].driver;
        let [_, _, used] = driver.addresses();
        self.memory.read_obj::<u16>(GuestAddress(used + 2)).unwrap() != driver.used_index()
    }

    /// Wants to be told of the next chain that comes back.
    pub fn await_interrupt(&mut self, number: usize) {
        if self.event_idx {
            let driver = &self.queues[number].driver;
            driver.set_used_event(driver.used_index());
        }
    }

    /// The next slot that came back, and how many bytes the device says it wrote.
    pub fn returned(&mut self, number: usize) -> Option<(u16, u32)> {
        let queue = &mut self.queues[number];
        let (head, len) = queue.driver.used()?;
        let slot = u16::try_from(head).unwrap() / PER_SLOT;
        let lent = queue.lent.get_mut(usize::from(slot)).expect("a head that was never there");
        assert!(std::mem::take(lent), "chain {head} of queue {number} came back twice");
        Some((slot, len))
    }

    /// Where its rings stand, for who looks for a fault.
    pub fn describe(&self) -> String {
        let queues = self.queues.iter().map(|queue| {
            let [_, available, used] = queue.driver.addresses();
            let word = |at| self.memory.read_obj::<u16>(GuestAddress(at)).unwrap();
            let lent = queue.lent.iter().filter(|lent| **lent).count();
            let (posted, back) = (word(available + 2), word(used + 2));
            let (flags, event) = (word(used), word(used + 4 + 8 * u64::from(QUEUE_SIZE)));
            format!("{lent} lent of {posted}, {back} used, flags {flags}, kick at {event}")
        });
        let queues: Vec<_> = queues.collect();
        format!("event index {}, {queues:?}", self.event_idx)
    }

    /// A slot that is the driver's.
    pub fn free_slot(&self, number: usize) -> Option<u16> {
        let place = self.queues[number].lent.iter().position(|lent| !lent)?;
        u16::try_from(place).ok()
    }

    /// Whether nothing of it is the device's.
    pub fn has_all(&self) -> bool {
        self.queues.iter().all(|queue| queue.lent.iter().all(|lent| !lent))
    }

    /// Where a slot has its headers.
    pub fn header(&self, number: usize, slot: u16) -> u64 {
        self.queues[number].base + 0x3000 + u64::from(slot) * 64
    }

    /// Where it has its data.
    pub fn data(&self, number: usize, slot: u16) -> u64 {
        self.queues[number].base + 0x4000 + u64::from(slot) * SLOT_BYTES
    }
}
