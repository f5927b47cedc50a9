//! A request on its way through a volume: how far it has got and what it needs meanwhile.

use crate::blk::Request;
use crate::memory::Buffers;

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

/// A request and how far it has got.
#[derive(Debug)]
pub struct Job {
    /// The request; take it out to complete it when the job is done.
    pub request: Request,
    /// Bytes of it that are done.
    pub(super) done_bytes: u64,
    pub(super) way: Way,
    /// Write-zeroes only: ways to do it that the file system has refused.
    pub(super) refused: u32,
}

impl Job {
    /// A request that was not started.
    pub fn new(request: Request) -> Self {
        Self { request, done_bytes: 0, way: Way::Direct, refused: 0 }
    }

    /// The buffers that are not done.
    pub(super) fn rest(&self) -> Buffers {
        self.request.buffers.slice(self.done_bytes, u64::MAX)
    }
}
