//! Descriptor chains: from the available ring to a list of guest ranges.
//!
//! `virtio_queue::Queue` keeps the ring indices. Its chain iterator ends silently at anything that
//! is wrong; this module tells the end of a chain from a broken one. A broken chain means that the
//! driver has lost its ring, so it fails the device; what merely breaks a rule of the device (an
//! order, a length, an address of data) is left to the device's own parser.

use std::sync::Arc;

use smallvec::SmallVec;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;

use crate::memory::GuestMemory;

/// One descriptor, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address of the buffer.
    pub addr: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
    /// Whether the device may write it (it may then not read it).
    pub writable: bool,
}

/// A whole chain, read once; later writes of the guest to its descriptors have no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Index of the first descriptor, which names the chain in the used ring.
    pub head: u16,
    /// The buffers in order; zero-length ones are left out.
    pub descriptors: SmallVec<[Descriptor; 8]>,
}

/// The ring itself is broken: the device has to be reset by its driver.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The ring's own memory or indices are wrong (bad available index, not ready, not in memory).
    #[error("virtqueue is unusable: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// The available ring names a descriptor that does not exist.
    #[error("available ring names descriptor {head} of a table of {size}")]
    HeadOutOfRange {
        /// What the available ring holds.
        head: u16,
        /// Size of the descriptor table.
        size: u16,
    },
    /// A chain loops, leaves its table or memory, nests indirect tables, or exceeds 4 GiB.
    #[error("descriptor chain {head} is broken after {read} descriptors")]
    BrokenChain {
        /// First descriptor of the chain.
        head: u16,
        /// How many were read before it broke.
        read: usize,
    },
}

/// Takes the next chain from the available ring, if there is one.
///
/// # Errors
/// See [`RingError`]; the queue must not be used any more until its driver resets it.
pub fn next_chain(mem: &Arc<GuestMemory>, queue: &mut Queue) -> Result<Option<Chain>, RingError> {
    let mut ready = queue.iter(&**mem)?;
    let Some(mut iter) = ready.next() else { return Ok(None) };
    let head = iter.head_index();
    let mut descriptors = SmallVec::new();
    let mut read = 0;
    let mut ended = false;
    for descriptor in &mut iter {
        read += 1;
        ended = !descriptor.has_next();
        if descriptor.len() > 0 {
            descriptors.push(Descriptor {
                addr: descriptor.addr(),
                len: descriptor.len(),
                writable: descriptor.is_write_only(),
            });
        }
    }
    if head >= queue.size() {
        return Err(RingError::HeadOutOfRange { head, size: queue.size() });
    }
    if !ended {
        return Err(RingError::BrokenChain { head, read });
    }
    Ok(Some(Chain { head, descriptors }))
}
