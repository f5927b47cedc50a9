//! A request on its way through a volume: its parts, how far each has got, what it needs meanwhile.
//!
//! A request becomes as many *parts* as there are places that it goes to: one for a raw file, one for
//! each file of a stripe set, one for each extent of an image. Each part is at most one operation of
//! the ring at a time. The owner decides how many parts may be begun, because each of them is a
//! request to the disk and has to fit its depth.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Step;
use super::qcow2::{Bell, Pass};
use crate::blk::{Op, Outcome, Request};
use crate::memory::Buffers;

/// Where the number of a part stands in the token of its operations: bits 32 to 47. Owners of jobs
/// leave these bits zero.
const PART_SHIFT: u32 = 32;
const PART_MASK: u64 = 0xffff;

/// Most parts of a request; their number has to fit its place in the token.
pub(super) const MAX_PARTS: usize = 1 << 16;

/// The token of a part's operations.
pub(super) fn part_token(token: u64, part: usize) -> u64 {
    token & !(PART_MASK << PART_SHIFT) | (part as u64 & PART_MASK) << PART_SHIFT
}

/// Which part an operation with this token belongs to.
pub(super) fn part_of(token: u64) -> usize {
    // Sixteen bits fit.
    usize::try_from(token >> PART_SHIFT & PART_MASK).unwrap_or(usize::MAX)
}

/// Which way the bytes of the operation in flight go; decides what is counted.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// Device to guest memory or back, nothing in between.
    Direct,
    /// Through memory of ours, because the guest's is misaligned.
    Bounce(Buffers),
    /// Through the page cache.
    PageCache,
}

/// Who does a part.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The volume's file of this number.
    File(usize),
    /// The worker of an image; the bell rings when it is done.
    Worker(Option<Arc<Bell>>),
}

/// Where a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    InFlight,
    Done(Outcome),
}

/// What one place has to do for a request.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) place: Place,
    /// In the place's own addresses.
    pub(super) op: Op,
    pub(super) buffers: Buffers,
    pub(super) state: State,
    /// Bytes of it that are done.
    pub(super) done_bytes: u64,
    pub(super) way: Way,
    /// Write-zeroes only: ways to do it that the file system has refused.
    pub(super) refused: u32,
}

impl Part {
    pub(super) fn new(place: Place, op: Op, buffers: Buffers) -> Self {
        let (state, way) = (State::Waiting, Way::Direct);
        Self { place, op, buffers, state, done_bytes: 0, way, refused: 0 }
    }

    /// The buffers that are not done.
    pub(super) fn rest(&self) -> Buffers {
        self.buffers.slice(self.done_bytes, u64::MAX)
    }
}

/// A request and how far it has got.
#[derive(Debug)]
pub struct Job {
    /// The request; take it out to complete it when the job is done.
    pub request: Request,
    /// `None` until the volume has said where the request goes.
    pub(super) parts: Option<SmallVec<[Part; 1]>>,
    /// How many parts may be begun.
    allowed: usize,
    /// Its turn among the requests of an image.
    pub(super) pass: Pass,
}

impl Job {
    /// A request that was not started. All of its parts are begun at once.
    pub fn new(request: Request) -> Self {
        Self { request, parts: None, allowed: MAX_PARTS, pass: Pass::None }
    }

    /// A request of which one part is begun, and another one after each [`Job::allow`].
    pub fn paced(request: Request) -> Self {
        Self { request, parts: None, allowed: 1, pass: Pass::None }
    }

    /// One more part may be begun, by the next `submit`.
    pub fn allow(&mut self) {
        self.allowed = self.allowed.saturating_add(1);
    }

    /// Whether there are parts that may not be begun yet.
    pub fn wants_more(&self) -> bool {
        let parts = self.parts.as_deref().unwrap_or_default();
        parts.iter().skip(self.allowed).any(|part| part.state == State::Waiting)
    }

    /// Parts that were begun and have not ended.
    pub fn in_flight(&self) -> usize {
        let parts = self.parts.as_deref().unwrap_or_default();
        parts.iter().filter(|part| part.state == State::InFlight).count()
    }

    /// The device of this job is gone: nothing more of it is begun. With the token of an operation
    /// that came back, that one has ended.
    pub fn orphan(&mut self, token: Option<u64>) -> Step {
        if let Some(token) = token
            && let Some(part) = self.parts.as_mut().and_then(|it| it.get_mut(part_of(token)))
        {
            part.state = State::Done(Outcome::IoError);
        }
        self.give_up(Outcome::IoError);
        self.standing()
    }

    /// The parts that may be begun now, with their numbers.
    pub(super) fn startable(&mut self) -> impl Iterator<Item = (usize, &mut Part)> {
        let allowed = self.allowed;
        let parts = self.parts.as_deref_mut().unwrap_or_default();
        let parts = parts.iter_mut().enumerate().take(allowed);
        parts.filter(|(_, part)| part.state == State::Waiting)
    }

    /// No part that was not begun will be.
    pub(super) fn give_up(&mut self, outcome: Outcome) {
        for part in self.parts.get_or_insert_default().iter_mut() {
            if part.state == State::Waiting {
                part.state = State::Done(outcome);
            }
        }
    }

    /// Where the whole request stands. It has failed if any part has.
    pub(super) fn standing(&self) -> Step {
        let mut outcome = Outcome::Ok;
        for part in self.parts.as_deref().unwrap_or_default() {
            match part.state {
                State::Waiting | State::InFlight => return Step::Pending,
                State::Done(Outcome::Ok) => {}
                State::Done(bad) => outcome = bad,
            }
        }
        Step::Done(outcome)
    }

    /// How a part failed, if one did.
    pub(super) fn failure(&self) -> Option<Outcome> {
        let parts = self.parts.as_deref().unwrap_or_default();
        parts.iter().find_map(|part| match part.state {
            State::Done(Outcome::Ok) | State::Waiting | State::InFlight => None,
            State::Done(bad) => Some(bad),
        })
    }
}
