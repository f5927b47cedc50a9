//! A ring that does what it likes, when it likes. What it says was done was done: operations touch
//! the file when they complete.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use moirai_devices::backend::{Completion, Deallocate, Deferred, Operations, Ring};
use moirai_devices::memory::Buffers;
use moirai_scheduler::{Moment, Span};
use rustix::event::{Timespec, epoll};
use rustix::fs::{FallocateFlags, fallocate};

use super::chance::Chance;
use super::clock::Virtual;

/// How often what goes wrong, in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) no_slot: u64,
    pub(super) no_memory: u64,
    pub(super) error: u64,
    pub(super) again: u64,
    pub(super) short: u64,
    /// A poll ends although nobody cancelled it.
    pub(super) deaf: u64,
    /// Submission fails.
    pub(super) submit: u64,
}

enum Work {
    Read(Arc<File>, Buffers, u64),
    Write(Arc<File>, Buffers, u64),
    Deallocate(Arc<File>, Deallocate, u64, u64),
    /// Waits for nothing but time.
    Nothing,
}

struct Operation {
    token: u64,
    due: Moment,
    work: Work,
}

struct Poll {
    token: u64,
    /// Never that of another one.
    number: u64,
    descriptor: OwnedFd,
}

/// The ring.
pub(super) struct Fickle {
    clock: Virtual,
    chance: Chance,
    pub(super) faults: Faults,
    capacity: usize,
    /// How long an operation takes: something up to this.
    slowest: Span,
    operations: Vec<Operation>,
    polls: Vec<Poll>,
    epoll: OwnedFd,
    next_poll: u64,
    ready: std::collections::VecDeque<Completion>,
    /// When the world acts next: nobody sleeps beyond that.
    pub(super) world_acts_at: Option<Moment>,
    /// The loop sleeps without a time limit, and nothing is under way that would wake it.
    pub(super) sleeps_for_ever: bool,
    pub(super) calls: u64,
    pub(super) faulted: u64,
}

impl Fickle {
    pub(super) fn new(clock: Virtual, mut chance: Chance, faults: Faults, capacity: usize) -> Self {
        let slowest = Span::from_nanos(chance.of(&[20_000, 300_000, 5_000_000]));
        Self {
            clock,
            chance,
            faults,
            capacity,
            slowest,
            operations: Vec::new(),
            polls: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
            next_poll: 0,
            ready: std::collections::VecDeque::new(),
            world_acts_at: None,
            sleeps_for_ever: false,
            calls: 0,
            faulted: 0,
        }
    }

    /// Operations under way, without polls.
    pub(super) fn in_flight(&self) -> usize {
        self.operations.len()
    }

    fn admit(&mut self) -> Result<(), Deferred> {
        self.calls += 1;
        if self.chance.permille(self.faults.no_memory) {
            self.faulted += 1;
            return Err(Deferred::OutOfMemory);
        }
        let full = self.operations.len() + self.polls.len() >= self.capacity;
        if full || self.chance.permille(self.faults.no_slot) {
            self.faulted += 1;
            return Err(Deferred::RingFull);
        }
        Ok(())
    }

    fn begin(&mut self, token: u64, work: Work) -> Result<(), Deferred> {
        self.admit()?;
        let takes = Span::from_nanos(self.chance.between(1_000, self.slowest.as_nanos()));
        // Now and then a disk thinks about itself for a long time.
        let takes = if self.chance.permille(2) { takes * 50 } else { takes };
        self.operations.push(Operation { token, due: self.clock.time() + takes, work });
        Ok(())
    }

    fn finish(&mut self, work: &Work) -> io::Result<u32> {
        let fails = |code| Err(io::Error::from_raw_os_error(code));
        if self.chance.permille(self.faults.error) {
            self.faulted += 1;
            return fails(self.chance.of(&[libc::EIO, libc::ENOSPC, libc::ENODATA]));
        }
        if self.chance.permille(self.faults.again) {
            self.faulted += 1;
            return fails(self.chance.of(&[libc::EINTR, libc::EAGAIN]));
        }
        let bytes = match work {
            Work::Read(file, buffers, offset) => {
                let mut data = vec![0; self.portion(buffers.len_bytes())];
                let read = file.read_at(&mut data, *offset)?;
                buffers.copy_from(&data[..read]);
                read
            }
            Work::Write(file, buffers, offset) => {
                let mut data = vec![0; self.portion(buffers.len_bytes())];
                buffers.copy_to(&mut data);
                file.write_at(&data, *offset)?
            }
            Work::Deallocate(file, how, offset, len) => {
                let how = match how {
                    Deallocate::PunchHole => FallocateFlags::PUNCH_HOLE,
                    Deallocate::ZeroRange => FallocateFlags::ZERO_RANGE,
                };
                fallocate(file, how | FallocateFlags::KEEP_SIZE, *offset, *len)?;
                0
            }
            Work::Nothing => 0,
        };
        Ok(u32::try_from(bytes).unwrap())
    }

    /// How much of a transfer is done in one go.
    fn portion(&mut self, len: u64) -> usize {
        let sectors = len / 512;
        let part = if sectors > 1 && self.chance.permille(self.faults.short) {
            self.faulted += 1;
            self.chance.between(1, sectors - 1) * 512
        } else {
            len
        };
        usize::try_from(part).unwrap()
    }

    /// Moves what has happened by now into the queue of completions.
    fn gather(&mut self) {
        let now = self.clock.time();
        while let Some(place) = self.operations.iter().position(|it| it.due <= now) {
            let Operation { token, work, .. } = self.operations.swap_remove(place);
            let result = self.finish(&work);
            self.ready.push_back(Completion { token, result, more: false });
        }
        self.gather_polls();
    }

    /// The kernel tells of edges; so does this.
    fn gather_polls(&mut self) {
        let mut events = Vec::with_capacity(64);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&at_once))
            .unwrap();
        for event in events {
            let number = event.data.u64();
            let Some(place) = self.polls.iter().position(|poll| poll.number == number) else {
                continue;
            };
            let more = !self.chance.permille(self.faults.deaf);
            let token = self.polls[place].token;
            self.ready.push_back(Completion { token, result: Ok(1), more });
            if !more {
                self.faulted += 1;
                self.forget(place);
            }
        }
    }

    fn forget(&mut self, place: usize) {
        let poll = self.polls.remove(place);
        epoll::delete(&self.epoll, &poll.descriptor).unwrap();
    }
}

impl Operations for Fickle {
    fn readv(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        token: u64,
    ) -> Result<(), Deferred> {
        self.begin(token, Work::Read(Arc::clone(file), buffers, offset))
    }

    fn writev(
        &mut self,
        file: &Arc<File>,
        buffers: Buffers,
        offset: u64,
        _durable: bool,
        token: u64,
    ) -> Result<(), Deferred> {
        self.begin(token, Work::Write(Arc::clone(file), buffers, offset))
    }

    fn fdatasync(&mut self, _file: &Arc<File>, token: u64) -> Result<(), Deferred> {
        self.begin(token, Work::Nothing)
    }

    fn deallocate(
        &mut self,
        file: &Arc<File>,
        how: Deallocate,
        offset: u64,
        len_bytes: u64,
        token: u64,
    ) -> Result<(), Deferred> {
        self.begin(token, Work::Deallocate(Arc::clone(file), how, offset, len_bytes))
    }

    fn nop(&mut self, token: u64) -> Result<(), Deferred> {
        self.begin(token, Work::Nothing)
    }

    fn wait_readable(&mut self, _file: &Arc<File>, _token: u64) -> Result<(), Deferred> {
        unreachable!("only images wait for a worker")
    }
}

impl Ring for Fickle {
    fn set_offload(&mut self, _from_bytes: u64) {}

    fn offloads(&self) -> bool {
        false
    }

    fn poll_readable(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<(), Deferred> {
        self.admit()?;
        let descriptor = fd.as_fd().try_clone_to_owned().unwrap();
        self.next_poll += 1;
        let number = self.next_poll;
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &descriptor, epoll::EventData::new_u64(number), edges).unwrap();
        self.polls.push(Poll { token, number, descriptor });
        Ok(())
    }

    fn cancel(&mut self, token: u64) -> Result<u32, Deferred> {
        self.calls += 1;
        if self.chance.permille(self.faults.no_memory) {
            return Err(Deferred::OutOfMemory);
        }
        let before = self.polls.len();
        while let Some(place) = self.polls.iter().position(|poll| poll.token == token) {
            self.forget(place);
        }
        let found = before - self.polls.len();
        for _ in 0..found {
            let result = Err(io::Error::from_raw_os_error(libc::ECANCELED));
            self.ready.push_back(Completion { token, result, more: false });
        }
        Ok(u32::try_from(found).unwrap())
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Lets time pass until something happens.
    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.sleeps_for_ever = false;
        if self.chance.permille(self.faults.submit) {
            self.faulted += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        self.gather();
        if !self.ready.is_empty() || timeout == Some(Duration::ZERO) {
            return Ok(());
        }
        let now = self.clock.time();
        let limit = timeout.map(|it| now.saturating_add(Span::from_duration(it)));
        let done = self.operations.iter().map(|it| it.due).min();
        let errand = self.clock.next_errand();
        self.sleeps_for_ever = limit.is_none() && done.is_none() && errand.is_none();
        let next = [limit, done, errand, self.world_acts_at].into_iter().flatten().min();
        if let Some(next) = next {
            // A timer is a little late.
            self.clock.pass_until(next + Span::from_nanos(self.chance.below(2_000)));
        }
        self.gather();
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }
}
