//! Whole conversations over a socketpair: by the frontend of the `vhost` crate, which our tenant
//! process uses, by hand, and by chance.

mod frontend;
mod hostile;
mod inflight;
mod lost;
mod random;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::vhost_user::message::FrontendReq;

use super::*;
use crate::mock;

const QUEUE_SIZE: u16 = 64;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const PROTOCOL_FEATURES: u64 = 1 << 30;

fn profile() -> DeviceProfile {
    DeviceProfile {
        features: VERSION_1 | EVENT_IDX,
        config: (0..60).collect(),
        queues: 2,
        max_queue_size: QUEUE_SIZE,
        allow_unsealed_memory: false,
        max_memory_bytes: 1 << 30,
    }
}

/// A session and the other end of its socket, driven by hand.
struct Peer {
    session: Session,
    socket: UnixStream,
}

impl Peer {
    fn new(profile: DeviceProfile) -> Self {
        let (ours, socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { session: Session::new(ours, profile).unwrap(), socket }
    }

    fn send_raw(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let sent = sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
        assert_eq!(sent.unwrap(), bytes.len());
    }

    fn send(&self, request: FrontendReq, payload: &[u8], files: &[BorrowedFd<'_>]) {
        self.send_raw(&message(request.into(), 0x1, payload), files);
    }

    /// Sends a message and lets the session handle it.
    fn tell(
        &mut self,
        request: FrontendReq,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Vec<Event>, SessionError> {
        self.send(request, payload, files);
        self.session.ready().map(|ready| ready.events)
    }

    /// The reply to a request: its payload.
    fn ask(&mut self, request: FrontendReq, payload: &[u8]) -> Vec<u8> {
        self.tell(request, payload, &[]).unwrap();
        let (code, flags, payload) = self.reply().expect("a reply");
        assert_eq!((code, flags), (u32::from(request), 0x5));
        payload
    }

    /// A reply that was already sent: request, flags, payload.
    fn reply(&self) -> Option<(u32, u32, Vec<u8>)> {
        let mut bytes = [0; 4096];
        let len = rustix::io::read(&self.socket, &mut bytes).ok().filter(|len| *len >= 12)?;
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(word(8) as usize + 12, len);
        Some((word(0), word(4), bytes[12..len].to_vec()))
    }

    /// Negotiates features and gives the session memory.
    fn introduce(&mut self, memory: BorrowedFd<'_>, len: u64) {
        self.tell(FrontendReq::SET_OWNER, &[], &[]).unwrap();
        self.tell(FrontendReq::SET_FEATURES, &u64s(&[VERSION_1 | PROTOCOL_FEATURES]), &[]).unwrap();
        let events = self.tell(FrontendReq::SET_MEM_TABLE, &table(&[(0, len, USER, 0)]), &[memory]);
        assert!(matches!(events.unwrap()[..], [Event::Memory(_)]));
    }

    /// Sets up queue `index` with its ring at guest address `base`; all events of that.
    fn start(&mut self, index: u32, base: u64, eventfd: BorrowedFd<'_>) -> Vec<Event> {
        let number = u64s(&[index.into()]);
        [
            self.tell(FrontendReq::SET_VRING_NUM, &u32s(&[index, 16]), &[]),
            self.tell(FrontendReq::SET_VRING_BASE, &u32s(&[index, 0]), &[]),
            self.tell(FrontendReq::SET_VRING_ADDR, &ring_at(index, USER + base), &[]),
            self.tell(FrontendReq::SET_VRING_CALL, &number, &[eventfd]),
            self.tell(FrontendReq::SET_VRING_KICK, &number, &[eventfd]),
            self.tell(FrontendReq::SET_VRING_ENABLE, &u32s(&[index, 1]), &[]),
        ]
        .into_iter()
        .flat_map(Result::unwrap)
        .collect()
    }
}

/// Where the peer has mapped the guest's memory.
const USER: u64 = 0x7000_0000_0000;

fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [u32s(&[request, flags, len]), payload.to_vec()].concat()
}

fn u32s(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn u64s(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A memory table of (guest address, length, user address, offset in the file).
fn table(regions: &[(u64, u64, u64, u64)]) -> Vec<u8> {
    let count = u32::try_from(regions.len()).unwrap();
    let regions = regions.iter().flat_map(|&(guest, len, user, at)| u64s(&[guest, len, user, at]));
    u32s(&[count, 0]).into_iter().chain(regions).collect()
}

fn ring_at(index: u32, base: u64) -> Vec<u8> {
    [u32s(&[index, 0]), u64s(&[base, base.wrapping_add(0x2000), base.wrapping_add(0x1000), 0])]
        .concat()
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).unwrap()
}

fn count(eventfd: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    rustix::io::read(eventfd, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}
