//! A volume or link that fails on purpose, for tests of what lies above it.
//!
//! Which request fails how is a function of its number, so a test says exactly what goes wrong.

use std::io;
use std::os::fd::BorrowedFd;

use super::ring::{Deferred, Operations};
use super::{Job, Link, Step, Storage};
use crate::blk::Disk;
use crate::counters::Counters;
use crate::net::Offload;
use crate::net::tx::TxPacket;

/// What goes wrong with one request or packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Its first operation is done, but reported as failed with this error number.
    Error(i32),
    /// It takes so many more turns through the ring.
    Delay(u32),
    /// A read or write moves half of its bytes at a time, in whole sectors.
    Short,
    /// The link's queue is full.
    Full,
}

/// Wraps a volume or a link; `plan` maps the number of a request (from 0) to its fault.
#[derive(Debug)]
pub struct Faulty<T, P> {
    inner: T,
    plan: P,
    count: u64,
    /// Requests in the ring by token: their fault and the turns that are left.
    delayed: Vec<(u64, Fault)>,
}

impl<T, P: FnMut(u64) -> Fault> Faulty<T, P> {
    /// Wraps `inner`.
    pub fn new(inner: T, plan: P) -> Self {
        Self { inner, plan, count: 0, delayed: Vec::new() }
    }

    /// What is wrapped.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn next_fault(&mut self) -> Fault {
        let fault = (self.plan)(self.count);
        self.count += 1;
        fault
    }

    fn take(&mut self, token: u64) -> Option<Fault> {
        let place = self.delayed.iter().position(|(other, _)| *other == token)?;
        Some(self.delayed.swap_remove(place).1)
    }
}

impl<T: Storage, P: FnMut(u64) -> Fault> Storage for Faulty<T, P> {
    fn submit(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
    ) -> Result<Step, Deferred> {
        let fault = self.next_fault();
        let step = match fault {
            Fault::Delay(1..) => {
                ring.nop(token)?;
                Step::Pending
            }
            Fault::None | Fault::Error(_) | Fault::Delay(0) | Fault::Short | Fault::Full => {
                self.inner.submit(ring, token, job)?
            }
        };
        if step == Step::Pending && fault != Fault::None {
            self.delayed.push((token, fault));
        }
        Ok(step)
    }

    fn completed(
        &mut self,
        ring: &mut dyn Operations,
        token: u64,
        job: &mut Job,
        result: io::Result<u32>,
    ) -> Result<Step, Deferred> {
        match self.take(token) {
            // The volume decides what the error means, as it does for real ones.
            Some(Fault::Error(code)) => {
                self.inner.completed(ring, token, job, Err(io::Error::from_raw_os_error(code)))
            }
            Some(Fault::Delay(turns @ 2..)) => {
                ring.nop(token)?;
                self.delayed.push((token, Fault::Delay(turns - 1)));
                Ok(Step::Pending)
            }
            Some(Fault::Delay(1)) => self.inner.submit(ring, token, job),
            Some(Fault::Short) => {
                let half = result.map(|bytes| if bytes > 512 { bytes / 1024 * 512 } else { bytes });
                let step = self.inner.completed(ring, token, job, half)?;
                if step == Step::Pending {
                    self.delayed.push((token, Fault::Short));
                }
                Ok(step)
            }
            _ => self.inner.completed(ring, token, job, result),
        }
    }

    fn abandon(&mut self, job: &mut Job) -> Step {
        self.inner.abandon(job)
    }

    fn disk(&self, queues: u16, queue_size: u16) -> Disk {
        self.inner.disk(queues, queue_size)
    }

    fn is_busy(&self) -> bool {
        self.inner.is_busy()
    }

    fn is_plain(&self) -> bool {
        self.inner.is_plain()
    }

    fn is_direct(&self) -> bool {
        self.inner.is_direct()
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

impl<T: Link, P: FnMut(u64) -> Fault> Link for Faulty<T, P> {
    fn send(&mut self, packet: &TxPacket) -> io::Result<bool> {
        match self.next_fault() {
            Fault::Error(code) => Err(io::Error::from_raw_os_error(code)),
            Fault::Full => Ok(false),
            Fault::None | Fault::Delay(_) | Fault::Short => self.inner.send(packet),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.inner.receive(buffer)
    }

    fn offload(&self) -> Offload {
        self.inner.offload()
    }

    fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.inner.bell()
    }
}
