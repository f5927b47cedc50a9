//! Guest memory as host addresses.
//!
//! [`Buffers`] is the one form in which guest memory leaves this crate's parsers: host addresses,
//! checked once against the guest's memory map, together with a reference that keeps the mapping
//! alive. Nobody makes a Rust slice of it: the guest may write there at any time. The kernel reads
//! and writes it (`readv`, `writev`), and [`Buffers::copy_to`] and [`Buffers::copy_from`] copy it
//! through volatile accesses.
#![allow(
    unsafe_code,
    reason = "volatile accesses at addresses that were checked when they were kept"
)]

mod guest;
pub(crate) mod watch;

use std::sync::Arc;

use smallvec::SmallVec;
use vm_memory::{GuestAddress, GuestMemory as _, Permissions, VolatileSlice};

pub use guest::GuestMemory;
pub use watch::faults;

/// A run of bytes at a host address, laid out as the kernel's `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Host address of the first byte.
    pub addr: usize,
    /// Length in bytes.
    pub len: usize,
}

/// A list of segments; most requests have no more than four.
pub type Segments = SmallVec<[Segment; 4]>;

/// The data part of a request: segments of one guest's memory, and the mapping they lie in.
///
/// Every segment was inside `memory` when this was built, and stays valid memory as long as this
/// (or a clone) lives.
#[derive(Clone, Debug)]
pub struct Buffers {
    memory: Arc<GuestMemory>,
    segments: Segments,
    len_bytes: u64,
}

/// A range that is not guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len_bytes} bytes at guest address {addr:#x} are not guest memory")]
pub struct OutsideMemory {
    /// Guest physical address of the range.
    pub addr: u64,
    /// Its length.
    pub len_bytes: u64,
}

impl Buffers {
    /// An empty list of buffers in `memory`.
    pub fn new(memory: Arc<GuestMemory>) -> Self {
        Self { memory, segments: Segments::new(), len_bytes: 0 }
    }

    /// Appends the guest physical range; one that crosses regions becomes several segments.
    ///
    /// # Errors
    /// [`OutsideMemory`] if any byte of it is not guest memory; nothing is appended then.
    pub fn push(&mut self, addr: GuestAddress, len: u32) -> Result<(), OutsideMemory> {
        let outside = OutsideMemory { addr: addr.0, len_bytes: u64::from(len) };
        let before = self.segments.len();
        let slices = self
            .memory
            .get_slices(addr, len as usize, Permissions::ReadWrite)
            .map_err(|_| outside)?;
        for slice in slices {
            let Ok(slice) = slice else {
                self.segments.truncate(before);
                return Err(outside);
            };
            let addr = slice.ptr_guard_mut().as_ptr() as usize;
            self.segments.push(Segment { addr, len: slice.len() });
        }
        self.len_bytes += u64::from(len);
        Ok(())
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Sum of the segments' lengths.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// Whether every segment begins and ends at a multiple of `align` bytes, as O_DIRECT wants it.
    /// `align` is a power of two.
    pub fn aligned_to(&self, align: usize) -> bool {
        let mask = align.saturating_sub(1);
        self.segments.iter().all(|s| (s.addr | s.len) & mask == 0)
    }

    /// The memory that the segments lie in.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The `len` bytes that follow the first `skip` bytes, or as many as there are.
    #[must_use]
    pub fn slice(&self, skip: u64, len: u64) -> Self {
        let mut skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        let mut segments = Segments::new();
        let mut len_bytes = 0;
        for segment in &self.segments {
            let cut = skip.min(segment.len);
            let taken = left.min(segment.len - cut);
            (skip, left) = (skip - cut, left - taken);
            if taken > 0 {
                segments.push(Segment { addr: segment.addr + cut, len: taken });
                len_bytes += taken as u64;
            }
        }
        Self { memory: Arc::clone(&self.memory), segments, len_bytes }
    }

    /// Deals the bytes out like cards: for each `(hand, len_bytes)` the next bytes go to that hand,
    /// until there are none left. Returns the hands, `hands` in number.
    #[must_use]
    pub fn deal(&self, hands: usize, shares: impl IntoIterator<Item = (usize, u64)>) -> Vec<Self> {
        let mut dealt = vec![Self::new(Arc::clone(&self.memory)); hands];
        let mut segments = self.segments.iter().copied();
        let mut next = Segment { addr: 0, len: 0 };
        for (hand, len_bytes) in shares {
            let Some(hand) = dealt.get_mut(hand) else { continue };
            let mut left = usize::try_from(len_bytes).unwrap_or(usize::MAX);
            while left > 0 {
                if next.len == 0 {
                    let Some(segment) = segments.next() else { return dealt };
                    next = segment;
                }
                let taken = left.min(next.len);
                hand.segments.push(Segment { addr: next.addr, len: taken });
                hand.len_bytes += taken as u64;
                next = Segment { addr: next.addr + taken, len: next.len - taken };
                left -= taken;
            }
        }
        dealt
    }

    /// Copies from the guest until either side ends; returns the number of bytes.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in self.volatile() {
            done += slice.copy_to(bytes.get_mut(done..).unwrap_or_default());
        }
        done
    }

    /// Copies to the guest until either side ends; returns the number of bytes.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for slice in self.volatile() {
            let rest = bytes.get(done..).unwrap_or_default();
            slice.copy_from(rest);
            done += slice.len().min(rest.len());
        }
        done
    }

    /// Fills all of it with zeros.
    pub fn fill_zero(&self) {
        const ZEROS: [u8; 4096] = [0; 4096];
        for slice in self.volatile() {
            for at in (0..slice.len()).step_by(ZEROS.len()) {
                let Ok(piece) = slice.subslice(at, ZEROS.len().min(slice.len() - at)) else {
                    break;
                };
                piece.copy_from(&ZEROS);
            }
        }
    }

    /// Copies from other buffers until either side ends; returns the number of bytes.
    pub fn copy_from_buffers(&self, from: &Self) -> u64 {
        let mut done = 0;
        for source in from.volatile() {
            let target = self.slice(done, source.len() as u64);
            let mut skip = 0;
            for piece in target.volatile() {
                let Ok(part) = source.subslice(skip, piece.len()) else { break };
                part.copy_to_volatile_slice(piece);
                skip += piece.len();
            }
            done += skip as u64;
        }
        done
    }

    fn volatile(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        self.segments.iter().map(|segment| {
            // SAFETY: `VolatileSlice::new` wants memory that stays valid for its lifetime and that
            // nobody accesses but volatilely. `push` took each segment from `self.memory`, which
            // `self` keeps mapped; the other users are the guest and the kernel, no Rust reference.
            unsafe { VolatileSlice::new(segment.addr as *mut u8, segment.len) }
        })
    }
}
