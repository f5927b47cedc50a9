//! A request on its way through a volume: its parts, and how many of them are over.
//!
//! A request becomes as many *parts* as there are places that it goes to: one for a raw file, one
//! for each file of a stripe set, one for each extent of an image. Long parts are cut into several
//! (`cut`). Each part is at most one operation of the ring at a time. The owner decides how many
//! parts may begin, because each of them is a request to the disk and has to fit its depth.

use smallvec::SmallVec;

use super::Step;
use super::cut::Cuts;
use super::qcow2::Pass;
use super::range::range_of;
use super::sub_request::{MAX_PARTS, Place, State, SubRequest, part_of};
use crate::blk::{Op, Outcome, Request};

/// A request and how far it has got.
#[derive(Debug)]
pub struct Job {
    /// What was asked for.
    pub request: Request,
    /// `None` until the volume has said where the request goes.
    parts: Option<SmallVec<[SubRequest; 1]>>,
    /// How many parts may be begun.
    allowed: usize,
    /// All parts before this one are over.
    over: usize,
    /// How one of those failed, if one did.
    failed: Option<Outcome>,
    /// How long its parts may be.
    cuts: Cuts,
    /// It had to do with the worker of an image, or waited for other requests of its volume.
    detoured: bool,
    /// Its turn among the requests of an image.
    pub(super) pass: Pass,
}

impl Job {
    /// A request that was not started. All of its parts are begun at once.
    pub fn new(request: Request) -> Self {
        Self { allowed: MAX_PARTS, ..Self::paced(request, Cuts::NONE) }
    }

    /// A request of which one part is begun, and another one after each [`Job::allow`]; no part
    /// that goes to a file is longer than `cuts` says.
    pub fn paced(request: Request, cuts: Cuts) -> Self {
        let (over, failed, pass) = (0, None, Pass::None);
        let detoured = false;
        Self { request, parts: None, allowed: 1, over, failed, cuts, detoured, pass }
    }

    /// One more part may be begun, by the next `submit`.
    pub fn allow(&mut self) {
        self.allowed = self.allowed.saturating_add(1);
    }

    /// Whether there are parts that may not be begun yet.
    pub fn wants_more(&self) -> bool {
        self.next().is_some()
    }

    /// The part that the next [`Job::allow`] is about: what it does, to how many bytes.
    pub fn next(&self) -> Option<(Op, u64)> {
        // Those that may not be begun all wait, or all have been given up.
        let part = self.parts.as_deref()?.get(self.allowed)?;
        let (_, len_bytes) = range_of(part.op, part.buffers.len_bytes());
        (part.state == State::Waiting).then_some((part.op, len_bytes))
    }

    /// Whether the part that was allowed as the `number`th, from zero, has ended, or will never
    /// begin.
    pub fn is_over(&self, number: usize) -> bool {
        let Some(parts) = &self.parts else { return false };
        parts.get(number).is_none_or(|part| matches!(part.state, State::Done(_)))
    }

    /// Whether it did more than operations on files: how long its parts took says little about the
    /// disk.
    pub fn is_detoured(&self) -> bool {
        self.detoured
    }

    /// The device of this job is gone: nothing more of it is begun. With the token of an operation
    /// that came back, that one has ended.
    pub fn orphan(&mut self, token: Option<u64>) -> Step {
        if let Some(token) = token
            && let Some(part) = self.parts.as_mut().and_then(|it| it.get_mut(part_of(token)))
        {
            part.end(Outcome::IoError);
        }
        self.give_up(Outcome::IoError);
        self.standing()
    }

    /// Whether the volume has said where the request goes.
    pub(super) fn is_planned(&self) -> bool {
        self.parts.is_some()
    }

    /// It waits for other requests of its volume.
    pub(super) fn detour(&mut self) {
        self.detoured = true;
    }

    /// The request goes to these places, after all that was done for it is over.
    pub(super) fn plan(&mut self, parts: SmallVec<[SubRequest; 1]>) {
        self.detoured |= parts.iter().any(|part| matches!(part.place, Place::Worker(_)));
        let parts = self.cuts.apply(parts);
        debug_assert!(parts.len() <= MAX_PARTS, "{} parts", parts.len());
        (self.parts, self.over, self.failed) = (Some(parts), 0, None);
    }

    /// The part of this number, and what it is a part of.
    pub(super) fn part(&mut self, number: usize) -> (&Request, Option<&mut SubRequest>) {
        let parts = self.parts.as_deref_mut().unwrap_or_default();
        (&self.request, parts.get_mut(number))
    }

    /// The parts that may be begun now, with their numbers.
    pub(super) fn startable(&mut self) -> impl Iterator<Item = (usize, &mut SubRequest)> {
        let (over, allowed) = (self.over, self.allowed);
        let parts = self.parts.as_deref_mut().unwrap_or_default();
        let parts = parts.iter_mut().enumerate().take(allowed).skip(over);
        parts.filter(|(_, part)| part.state == State::Waiting)
    }

    /// Whether an operation of it is in the ring.
    pub(super) fn is_under_way(&self) -> bool {
        let parts = self.parts.as_deref().unwrap_or_default();
        let begun = parts.iter().take(self.allowed).skip(self.over);
        begun.into_iter().any(|part| part.state == State::InFlight)
    }

    /// No part that was not begun will be.
    pub(super) fn give_up(&mut self, outcome: Outcome) {
        for part in self.parts.get_or_insert_default().iter_mut().skip(self.over) {
            if part.state == State::Waiting {
                part.end(outcome);
            }
        }
    }

    /// Where the whole request stands. It has failed if any part has.
    pub(super) fn standing(&mut self) -> Step {
        let parts = self.parts.as_deref().unwrap_or_default();
        while let Some(SubRequest { state: State::Done(outcome), .. }) = parts.get(self.over) {
            self.over += 1;
            if *outcome != Outcome::Ok {
                self.failed = Some(*outcome);
            }
        }
        if self.over < parts.len() {
            return Step::Pending;
        }
        Step::Done(self.failed.unwrap_or(Outcome::Ok))
    }

    /// How a part failed, if one did.
    pub(super) fn failure(&self) -> Option<Outcome> {
        let parts = self.parts.as_deref().unwrap_or_default();
        let begun = parts.iter().take(self.allowed).skip(self.over);
        let failed = begun.into_iter().find_map(|part| match part.state {
            State::Done(Outcome::Ok) | State::Waiting | State::InFlight => None,
            State::Done(bad) => Some(bad),
        });
        failed.or(self.failed)
    }
}
