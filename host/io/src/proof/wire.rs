//! The far end of a link: refuses packets, takes long, comes back.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use moirai_devices::backend::Link;
use moirai_devices::net::tx::TxPacket;
use moirai_scheduler::{Moment, Span};
use rustix::event::{EventfdFlags, eventfd};

use super::chance::Chance;
use super::clock::Virtual;

/// What the world sees of it.
pub(super) struct Inner {
    /// Packets that wait to be received, with their vnet headers.
    pub(super) incoming: VecDeque<Vec<u8>>,
    pub(super) carried: u64,
    pub(super) refused: u64,
    /// It is down, and refuses everything.
    pub(super) down: bool,
    /// What receiving one takes.
    pub(super) takes: Span,
    /// The last bytes of the hardware addresses of those who have declared 10.0 and these.
    pub(super) declared: BTreeSet<[u8; 2]>,
    /// When packets were given to it.
    pub(super) sent_at: Vec<Moment>,
    bell: OwnedFd,
}

impl Inner {
    /// A packet comes in.
    pub(super) fn bring(&mut self, packet: Vec<u8>) {
        self.incoming.push_back(packet);
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).unwrap();
    }
}

impl Inner {
    /// Nobody gets a packet out that says to be from an address which another one has declared.
    fn check_sender(&self, frame: &[u8]) {
        let claimed = match frame.get(12..14) {
            Some([8, 0]) => frame.get(26..30),
            Some([8, 6]) => frame.get(28..32),
            _ => None,
        };
        if let Some(&[10, 0, high, low]) = claimed {
            let theirs = self.declared.contains(&[high, low]);
            assert!(!theirs || frame[10..12] == [high, low], "spoofed: {frame:x?}");
        }
    }
}

/// A link that does what it likes.
pub(super) struct Cable {
    inner: Rc<RefCell<Inner>>,
    bell: OwnedFd,
    clock: Virtual,
    chance: Chance,
    refuses: u64,
}

impl Cable {
    /// A cable that refuses so many packets of a thousand, and what the world holds of it.
    pub(super) fn new(clock: Virtual, chance: Chance, refuses: u64) -> (Self, Rc<RefCell<Inner>>) {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let again = bell.try_clone().unwrap();
        let inner = Inner {
            incoming: VecDeque::new(),
            carried: 0,
            refused: 0,
            down: false,
            takes: Span::from_micros(1),
            declared: BTreeSet::new(),
            sent_at: Vec::new(),
            bell: again,
        };
        let inner = Rc::new(RefCell::new(inner));
        (Self { inner: Rc::clone(&inner), bell, clock, chance, refuses }, inner)
    }
}

impl Link for Cable {
    fn send(&mut self, packet: &TxPacket) -> io::Result<bool> {
        let mut inner = self.inner.borrow_mut();
        inner.sent_at.push(self.clock.time());
        // Most sends are quick; now and then the kernel has something else to do.
        let nanos = if self.chance.permille(5) { 400_000 } else { 900 };
        self.clock.pass(Span::from_nanos(nanos));
        let mut bytes = vec![0; usize::try_from(packet.payload.len_bytes()).unwrap()];
        packet.payload.copy_to(&mut bytes);
        let frame = [packet.head.get(12..).unwrap(), &bytes].concat();
        inner.check_sender(&frame);
        if inner.down || self.chance.permille(self.refuses) {
            inner.refused += 1;
            let code = self.chance.of(&[libc::ENOBUFS, libc::EIO, libc::EINVAL]);
            let full = self.chance.permille(500);
            return if full { Ok(false) } else { Err(io::Error::from_raw_os_error(code)) };
        }
        inner.carried += 1;
        Ok(true)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut inner = self.inner.borrow_mut();
        self.clock.pass(inner.takes);
        let Some(packet) = inner.incoming.pop_front() else {
            let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
            return Ok(None);
        };
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok(Some(packet.len()))
    }

    fn bell(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}
