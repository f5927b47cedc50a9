//! What one place has to do for a request: the data that everything which serves a request shares.
//!
//! `cut`, `blocks` and `stripe` say how a request is divided, `way` says which way a part goes,
//! `file` and `qcow2` do it. All of them know this file, and it knows none of them.

use std::sync::Arc;

use crate::blk::{Op, Outcome};
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

/// Who does a part.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// The volume's file of this number.
    File(usize),
    /// The worker of an image; its bell of this number rings when it is done.
    Worker(Option<usize>),
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
pub(super) struct SubRequest {
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
    /// How often nothing was moved.
    pub(super) tries: u8,
    /// The blocks that it changes are nobody else's, as far as that is needed.
    pub(super) claim: Option<Claim>,
}

impl SubRequest {
    pub(super) fn new(place: Place, op: Op, buffers: Buffers) -> Self {
        let (state, way) = (State::Waiting, Way::Direct);
        let (done_bytes, refused, tries) = (0, 0, 0);
        let claim = None;
        Self { place, op, buffers, state, done_bytes, way, refused, tries, claim }
    }

    /// It is over.
    pub(super) fn end(&mut self, outcome: Outcome) {
        self.state = State::Done(outcome);
        self.claim = None;
    }

    /// The buffers that are not done.
    pub(super) fn rest(&self) -> Buffers {
        self.buffers.slice(self.done_bytes, u64::MAX)
    }
}

/// Which way the bytes of the operation in flight go; decides what is counted.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// Device to guest memory or back, nothing in between.
    Direct,
    /// Through memory of ours, because the guest's is misaligned, or because the request begins so
    /// many bytes behind the first block that is read.
    Bounce { memory: Buffers, skip: u64 },
    /// A block is read into memory of ours, changed from there on, and, then, written.
    Modify { memory: Buffers, skip: u64, writing: bool },
    /// Through the page cache.
    PageCache,
}

/// Blocks that are nobody else's. Ends when the part that has it is over or dropped.
#[derive(Debug)]
pub(super) struct Claim(#[expect(dead_code, reason = "counted by its owner")] Arc<()>);

impl Claim {
    /// One that `blocks` counts by this.
    pub(super) fn new(counted: Arc<()>) -> Self {
        Self(counted)
    }
}
