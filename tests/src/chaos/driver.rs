//! A block driver at an export's socket: several requests under way at a time.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use moirai_devices::mock::{Guest, readable, writable};
use rustix::net::{RecvFlags, recv};
use vm_memory::{Bytes as _, GuestAddress};

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
/// VIRTIO_BLK_F_FLUSH.
const FLUSHES: u64 = 1 << 9;
/// Where the status byte is, behind the header of 16 bytes.
const STATUS: u64 = 32;
/// The status of success.
const OK: u8 = 0;
const HEADER: u32 = 16;
/// A service that does not answer its peer for so long has forgotten it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Read { sector: u64, bytes: u64 },
    Write { sector: u64 },
    Flush,
}

/// A request that came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) job: Job,
    pub(super) ok: bool,
    /// What was read.
    pub(super) data: Vec<u8>,
}

/// A connection with its requests.
pub(super) struct Driver {
    guest: Guest,
    socket: UnixStream,
    under_way: Vec<(u16, Job)>,
    last: Instant,
}

impl Driver {
    /// Connects and sets its queue up.
    ///
    /// # Errors
    /// Nobody listens. A service that ends meanwhile ends this process, as the mock's `unwrap` does.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        let socket = stream.try_clone()?;
        let guest = Guest::boot(stream, 1, FLUSHES, false);
        Ok(Self { guest, socket, under_way: Vec::new(), last: Instant::now() })
    }

    /// Whether the service has hung up.
    pub(super) fn is_gone(&self) -> bool {
        let mut byte = [0; 1];
        let seen = recv(&self.socket, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK);
        match seen {
            Ok((length, _)) => length == 0,
            Err(error) => error != rustix::io::Errno::AGAIN,
        }
    }

    /// Whether the service owes an answer for longer than any fault lasts.
    pub(super) fn is_forgotten(&self) -> bool {
        !self.under_way.is_empty() && self.last.elapsed() > PATIENCE
    }

    /// What is under way.
    pub(super) fn under_way(&self) -> impl Iterator<Item = Job> + '_ {
        self.under_way.iter().map(|(_, job)| *job)
    }

    /// The next answer, waited for.
    ///
    /// # Errors
    /// Nothing is under way, or it does not come.
    pub(super) fn wait(&mut self) -> io::Result<Answer> {
        loop {
            if let Some(answer) = self.answer() {
                return Ok(answer);
            }
            if self.under_way.is_empty() || self.is_gone() || self.is_forgotten() {
                return Err(io::Error::other("the service does not answer"));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Whether a further request can be begun.
    pub(super) fn has_room(&self) -> bool {
        self.guest.free_slot(0).is_some()
    }

    /// Begins a request; `data` is what a write writes. There must be room.
    pub(super) fn begin(&mut self, job: Job, data: &[u8]) {
        let Some(slot) = self.guest.free_slot(0) else { return };
        let (header, place) = (self.guest.header(0, slot), self.guest.data(0, slot));
        let (kind, sector, bytes) = match job {
            Job::Read { sector, bytes } => (READ, sector, bytes),
            Job::Write { sector } => (WRITE, sector, data.len() as u64),
            Job::Flush => (FLUSH, 0, 0),
        };
        let words = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes(), &[0xff]].concat();
        self.put(header, &words[..16]);
        self.put(header + STATUS, &words[16..]);
        self.put(place, data);
        let bytes = u32::try_from(bytes).unwrap_or(0);
        let data = match job {
            Job::Read { .. } => Some(writable(place, bytes)),
            Job::Write { .. } => Some(readable(place, bytes)),
            Job::Flush => None,
        };
        let ends = [Some(readable(header, HEADER)), data, Some(writable(header + STATUS, 1))];
        let chain: Vec<_> = ends.into_iter().flatten().collect();
        if self.under_way.is_empty() {
            self.last = Instant::now();
        }
        self.guest.post(0, slot, &chain);
        self.under_way.push((slot, job));
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let written = self.guest.memory.write_slice(bytes, GuestAddress(at));
        written.unwrap_or_else(|error| panic!("{at:#x} is in our memory: {error}"));
    }

    /// The next request that came back.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let (slot, _) = self.guest.returned(0)?;
        self.last = Instant::now();
        let place = self.under_way.iter().position(|(other, _)| *other == slot)?;
        let (_, job) = self.under_way.swap_remove(place);
        let status: u8 =
            self.guest.memory.read_obj(GuestAddress(self.guest.header(0, slot) + STATUS)).ok()?;
        let mut data = Vec::new();
        if let Job::Read { bytes, .. } = job {
            data.resize(usize::try_from(bytes).ok()?, 0);
            self.guest.memory.read_slice(&mut data, GuestAddress(self.guest.data(0, slot))).ok()?;
        }
        Some(Answer { job, ok: status == OK, data })
    }
}
