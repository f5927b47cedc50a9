//! The devices behind their backends, driven by mock drivers and served by their real thread under
//! its real system call filter: a call that is missing there kills the test.

mod balloon;
mod vsock;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use moirai_devices::memory::GuestMemory;
use moirai_devices::mock::{self, Driver, RING_BYTES, readable, writable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{Own, Part, start};
use crate::event;
use crate::sandbox::confine_own;
use crate::virtio::queue::Ring;
use moirai_launch::OwnDevice;

const SIZE: u16 = 16;
/// Where the tests put their buffers, behind the rings.
const BUFFER: u64 = 0x10_0000;
const MEMORY: usize = 8 << 20;

/// A device with a driver.
struct Guest {
    mem: Arc<GuestMemory>,
    part: Part,
    drivers: Vec<Driver>,
}

impl Guest {
    /// A started device of `kind`; its memory is a memfd.
    fn new(kind: OwnDevice, fds: Vec<OwnedFd>) -> (Self, Own) {
        let (mem, _) = mock::shared_memory(MEMORY);
        let mut own = start(&[kind], fds, &mem, confine_own).unwrap();
        let part = own.parts.remove(0);
        let mut guest = Self { mem, part, drivers: Vec::new() };
        guest.start();
        (guest, own)
    }

    fn start(&mut self) {
        let base = |queue: u16| u64::from(queue) * RING_BYTES;
        let driver = |queue| Driver::new(Arc::clone(&self.mem), base(queue), SIZE);
        self.drivers = (0..self.part.spec.queues).map(driver).collect();
        self.mem.write_slice(&[0; 0x10_000], GuestAddress(0)).unwrap();
        let ring = |driver: &Driver| {
            let [descriptors, driver, device] = driver.addresses();
            Some(Ring { size: SIZE, descriptors, driver, device })
        };
        let rings: Vec<_> = self.drivers.iter().map(ring).collect();
        let features = self.part.backend.features();
        self.part.backend.start(features, &rings).unwrap();
    }

    fn kick(&self, queue: usize) {
        self.part.events.kicks[queue].write(1).unwrap();
    }

    /// Waits for a chain of `queue` to come back: its head and length.
    fn used(&mut self, queue: usize) -> (u32, u32) {
        loop {
            if let Some(used) = self.drivers[queue].used() {
                // As a driver does with EVENT_IDX: the next one interrupts, too.
                let seen = self.drivers[queue].used_index();
                self.drivers[queue].set_used_event(seen);
                return used;
            }
            wait(&self.part.events.calls[queue]);
        }
    }
}

/// Waits for an eventfd and empties it.
fn wait(event: &EventFd) {
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(event::borrow(event), PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&limit)), Ok(1), "nothing has happened");
    event.read().unwrap();
}

#[test]
fn entropy_arrives_and_differs() {
    let (mut guest, _own) = Guest::new(OwnDevice::Rng, Vec::new());
    let mut seen = [[0_u8; 32]; 2];
    for bytes in &mut seen {
        guest.drivers[0].post(&[writable(BUFFER, 32)]);
        guest.kick(0);
        assert_eq!(guest.used(0).1, 32);
        guest.mem.read_slice(bytes, GuestAddress(BUFFER)).unwrap();
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn a_console_carries_both_directions_and_emergencies() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (mut guest, _own) = Guest::new(OwnDevice::Console, vec![ours.into()]);
    guest.mem.write_slice(b"out", GuestAddress(BUFFER)).unwrap();
    guest.drivers[1].post(&[readable(BUFFER, 3)]);
    guest.kick(1);
    guest.used(1);
    guest.part.backend.write_config(8, &u32::from(b'!').to_le_bytes());
    let mut output = [0; 4];
    theirs.read_exact(&mut output).unwrap();
    assert_eq!(&output, b"out!");
    for text in [b"first", b"later"] {
        theirs.write_all(text).unwrap();
        guest.drivers[0].post(&[writable(BUFFER, 64)]);
        guest.kick(0);
        assert_eq!(guest.used(0).1, 5);
        let mut input = [0; 5];
        guest.mem.read_slice(&mut input, GuestAddress(BUFFER)).unwrap();
        assert_eq!(&input, text);
    }
}

#[test]
fn a_broken_ring_stops_one_device_until_its_reset() {
    let (mem, _) = mock::shared_memory(MEMORY);
    let mut own = start(&[OwnDevice::Rng, OwnDevice::Rng], Vec::new(), &mem, confine_own).unwrap();
    let mut guests: Vec<_> = own
        .parts
        .drain(..)
        .map(|part| Guest { mem: mock::shared_memory(MEMORY).0, part, drivers: Vec::new() })
        .collect();
    // Both share the memory that the devices serve.
    for guest in &mut guests {
        guest.mem = Arc::clone(&mem);
    }
    let [broken, well] = guests.as_mut_slice() else { panic!("two devices") };
    broken.start();
    broken.drivers[0].make_available(SIZE + 1);
    broken.kick(0);
    wait(&broken.part.events.error);
    broken.drivers[0].post(&[writable(BUFFER, 32)]);
    broken.kick(0);
    broken.part.backend.stop().unwrap();
    assert!(broken.drivers[0].used().is_none());
    well.start();
    well.drivers[0].post(&[writable(BUFFER, 32)]);
    well.kick(0);
    well.used(0);
    well.part.backend.stop().unwrap();
    broken.start();
    broken.drivers[0].post(&[writable(BUFFER, 32)]);
    broken.kick(0);
    broken.used(0);
}

#[test]
fn a_device_that_is_stopped_leaves_its_ring_alone() {
    let (mut guest, _own) = Guest::new(OwnDevice::Rng, Vec::new());
    guest.part.backend.stop().unwrap();
    guest.drivers[0].post(&[writable(BUFFER, 32)]);
    guest.kick(0);
    // Commands are obeyed in order, so the kick has been looked at when this returns.
    guest.part.backend.stop().unwrap();
    assert!(guest.drivers[0].used().is_none());
}

#[test]
fn a_launch_that_lacks_a_descriptor_is_refused() {
    let (mem, _) = mock::shared_memory(MEMORY);
    assert!(start(&[OwnDevice::Console], Vec::new(), &mem, confine_own).is_err());
    assert!(start(&[], Vec::new(), &mem, confine_own).unwrap().parts.is_empty());
}
