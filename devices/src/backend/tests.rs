//! Volumes and rings on the real kernel: from a chain in a guest's ring to its status byte.

mod broken_images;
mod broken_processes;
mod differential;
mod images;
mod links;
mod many;
mod odd_images;
mod offload;
mod reports;
mod sectors;
mod stripes;
mod volumes;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};

use super::uring::Uring;
use super::{Deferred, Operations as _, Ring as _};
use super::{Job, Step, Storage, bounce};
use crate::blk::{Disk, Frontend, Next, Taken};
use crate::memory::GuestMemory;
use crate::mock::{self, Driver, readable, writable};
use crate::virtqueue::Descriptor;

const WAIT: Option<Duration> = Some(Duration::from_secs(20));
const DATA: u64 = 0x10000;

/// A guest with one disk.
struct Guest {
    mem: Arc<GuestMemory>,
    driver: Driver,
    queue: virtio_queue::Queue,
    frontend: Frontend,
    ring: Uring,
    /// Completions that its latest request took.
    turns: u32,
}

impl Guest {
    fn new(disk: Disk) -> Self {
        let mem = mock::memory(8 << 20);
        let driver = Driver::new(Arc::clone(&mem), 0, 256);
        let queue = driver.queue();
        let ring = Uring::new(8).unwrap();
        Self { mem, driver, queue, frontend: Frontend::new(disk), ring, turns: 0 }
    }

    /// Posts a request and serves it; its status byte.
    fn serve(
        &mut self,
        storage: &mut impl Storage,
        kind: u32,
        sector: u64,
        data: &[Descriptor],
    ) -> u8 {
        let (header, status) = (0x4000, 0x4100);
        self.mem.write_obj(kind, GuestAddress(header)).unwrap();
        self.mem.write_obj(sector, GuestAddress(header + 8)).unwrap();
        self.mem.write_obj(0xaa_u8, GuestAddress(status)).unwrap();
        self.driver.post(&[&[readable(header, 16)], data, &[writable(status, 1)]].concat());
        let next = self.frontend.next_request(&self.mem, &mut self.queue).unwrap();
        if let Next::Request(Taken { chain, request }) = next {
            let mut job = Job::new(request);
            let mut step = storage.submit(&mut self.ring, 7, &mut job);
            self.turns = 0;
            let outcome = loop {
                match step {
                    Ok(Step::Done(outcome)) => break outcome,
                    // What comes back begins the rest of a request that did not fit into the ring.
                    Err(why) => assert!(self.ring.in_flight() > 0, "{why:?} with an idle ring"),
                    Ok(Step::Pending) => {}
                }
                let completion = wait(&mut self.ring);
                assert_eq!((completion.token & 0xffff_ffff, completion.more), (7, false));
                let token = completion.token;
                self.turns += 1;
                step = storage.completed(&mut self.ring, token, &mut job, completion.result);
            };
            self.frontend.complete(&self.mem, &mut self.queue, chain, outcome).unwrap();
        }
        assert!(self.driver.used().is_some());
        self.mem.read_obj(GuestAddress(status)).unwrap()
    }

    /// A discard or write-zeroes request.
    fn serve_range(&mut self, storage: &mut impl Storage, kind: u32, range: (u64, u32, u32)) -> u8 {
        let (sector, sectors, flags) = range;
        self.mem.write_obj(sector, GuestAddress(0x4200)).unwrap();
        self.mem.write_obj(sectors, GuestAddress(0x4208)).unwrap();
        self.mem.write_obj(flags, GuestAddress(0x420c)).unwrap();
        self.serve(storage, kind, 0, &[readable(0x4200, 16)])
    }

    fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }
}

fn wait(ring: &mut Uring) -> super::Completion {
    loop {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.submit_and_wait(WAIT).unwrap();
    }
}

#[test]
fn a_full_ring_says_so_and_accepts_again_later() {
    let mut ring = Uring::new(2).unwrap();
    ring.nop(1).unwrap();
    ring.nop(2).unwrap();
    assert_eq!((ring.nop(3), ring.in_flight(), ring.capacity()), (Err(Deferred::RingFull), 2, 2));
    let mut tokens = [wait(&mut ring).token, wait(&mut ring).token];
    tokens.sort_unstable();
    assert_eq!((tokens, ring.in_flight()), ([1, 2], 0));
    ring.nop(3).unwrap();
    assert_eq!(wait(&mut ring).token, 3);
}

#[test]
fn a_poll_reports_every_kick_until_it_is_cancelled() {
    let kick = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
    let mut ring = Uring::new(4).unwrap();
    ring.poll_readable(kick.as_fd(), 5).unwrap();
    ring.submit().unwrap();
    for _ in 0..3 {
        rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
        let completion = wait(&mut ring);
        assert!(completion.more && completion.token == 5 && completion.result.is_ok());
        rustix::io::read(&kick, &mut [0; 8]).unwrap();
    }
    assert_eq!(ring.cancel(5), Ok(1));
    let end = wait(&mut ring);
    assert_eq!((end.more, end.result.unwrap_err().raw_os_error()), (false, Some(libc::ECANCELED)));
    assert_eq!((ring.cancel(5), ring.in_flight()), (Ok(0), 0));
}

#[test]
fn a_poll_of_a_socket_reports_that_its_peer_is_gone_and_does_not_repeat_itself() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut ring = Uring::new(4).unwrap();
    ring.poll_readable(ours.as_fd(), 5).unwrap();
    ring.submit().unwrap();
    drop(theirs);
    let hangup = u32::from(libc::POLLHUP.cast_unsigned());
    assert!(wait(&mut ring).result.unwrap() & hangup != 0);
    for _ in 0..3 {
        ring.submit_and_wait(Some(Duration::from_millis(1))).unwrap();
    }
    assert!(ring.next_completion().is_none());
}

#[test]
fn waiting_with_a_timeout_ends_without_an_error() {
    let mut ring = Uring::new(1).unwrap();
    ring.submit_and_wait(Some(Duration::from_millis(1))).unwrap();
    assert!(ring.next_completion().is_none());
}

#[test]
fn a_ring_that_is_dropped_cancels_what_is_in_flight() {
    let (reader, _writer) = io::pipe().unwrap();
    let reader = Arc::new(std::fs::File::from(std::os::fd::OwnedFd::from(reader)));
    let buffers = bounce::zeroed(4096).unwrap();
    let memory = Arc::downgrade(buffers.memory());
    let mut ring = Uring::new(4).unwrap();
    ring.readv(&reader, buffers, u64::MAX, 1).unwrap();
    ring.submit().unwrap();
    assert!(memory.upgrade().is_some(), "the ring keeps memory alive that the kernel may write");
    drop(ring);
    assert!(memory.upgrade().is_none(), "nothing is in flight any more");
    assert_eq!(Arc::strong_count(&reader), 1);
}
