//! A virtqueue from the device's side: from the available ring to a list of guest ranges, and back
//! by the used ring.
//!
//! `virtio_queue::Queue` keeps the ring indices. Its chain iterator ends silently at anything that
//! is wrong, and only begins at the available ring. So this module walks chains itself, from any
//! head, and tells the end of a chain from a broken one. After a broken chain the driver's ring
//! cannot be trusted, so the device fails. The device's own parser handles what breaks a rule of
//! the device (an order, a length, an address of data).

use std::sync::Arc;

use smallvec::SmallVec;
use virtio_queue::desc::split::Descriptor as RawDescriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress};

use crate::memory::{Buffers, GuestMemory, OutsideMemory};

/// Longest chain that is read. A driver may not post a longer one than its queue has descriptors
/// (virtio 1.2, 2.7.5.3.1), but drivers with small queues and indirect tables do; an indirect table
/// of 65,535 descriptors would keep the device busy for milliseconds.
const MAX_CHAIN: usize = 1026;

/// One element of a descriptor table.
const DESCRIPTOR_BYTES: u64 = 16;
/// Flags and index of the used ring (virtio 1.2, 2.7.8).
const USED_HEADER_BYTES: u64 = 4;
/// One element of the used ring: index of the chain, bytes written.
const USED_ELEMENT_BYTES: usize = 8;

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

impl Chain {
    /// The readable descriptors and the writable ones; `None` if a readable one follows a writable
    /// one (virtio 1.2, 2.7.4.2).
    pub fn split(&self) -> Option<(&[Descriptor], &[Descriptor])> {
        let middle = self.descriptors.iter().take_while(|d| !d.writable).count();
        let (readable, writable) = self.descriptors.split_at_checked(middle)?;
        writable.iter().all(|d| d.writable).then_some((readable, writable))
    }
}

/// Sum of the lengths; less than 4 GiB for the descriptors of one chain.
pub fn len_bytes(descriptors: &[Descriptor]) -> u64 {
    descriptors.iter().map(|d| u64::from(d.len)).sum()
}

/// The host addresses of `len` bytes of the descriptors, from byte `skip` on.
///
/// # Errors
/// A part of that is not guest memory.
pub fn buffers(
    mem: &Arc<GuestMemory>,
    descriptors: &[Descriptor],
    mut skip: u64,
    mut len: u64,
) -> Result<Buffers, OutsideMemory> {
    let mut buffers = Buffers::new(Arc::clone(mem));
    for descriptor in descriptors {
        let whole = u64::from(descriptor.len);
        let cut = skip.min(whole);
        let taken = len.min(whole - cut);
        (skip, len) = (skip - cut, len - taken);
        if taken == 0 {
            continue;
        }
        let outside = OutsideMemory { addr: descriptor.addr.0, len_bytes: whole };
        let start = descriptor.addr.checked_add(cut).ok_or(outside)?;
        buffers.push(start, u32::try_from(taken).map_err(|_| outside)?)?;
    }
    Ok(buffers)
}

/// The ring itself is broken: the device has to be reset by its driver.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
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
    /// More chains are in flight than the table has descriptors.
    #[error("more than {0} chains of this queue are in flight")]
    TooManyInFlight(u16),
    /// A chain loops, leaves its table or memory, nests indirect tables, has more than 1026
    /// descriptors or exceeds 4 GiB.
    #[error("descriptor chain {head} is broken after {read} descriptors")]
    BrokenChain {
        /// First descriptor of the chain.
        head: u16,
        /// How many were read before it broke.
        read: usize,
    },
}

/// Takes the next chain from the available ring, if there is one. `in_flight` chains of this ring
/// were taken and not returned; an honest driver cannot have more of them than descriptors.
///
/// # Errors
/// See [`QueueError`]; the queue must not be used any more until its driver resets it.
pub fn next_chain(
    mem: &Arc<GuestMemory>,
    queue: &mut Queue,
    in_flight: u32,
) -> Result<Option<Chain>, QueueError> {
    let mut available = queue.iter(&**mem)?;
    let Some(chain) = available.next() else { return Ok(None) };
    let head = chain.head_index();
    chain_at(mem, queue, head, in_flight).map(Some)
}

/// Reads the chain that begins at descriptor `head`, whatever the available ring says: one that was
/// taken from it before this process was there. `in_flight` as in [`next_chain`].
///
/// # Errors
/// See [`QueueError`]; the queue must not be used any more until its driver resets it.
pub fn chain_at(
    mem: &Arc<GuestMemory>,
    queue: &Queue,
    head: u16,
    in_flight: u32,
) -> Result<Chain, QueueError> {
    let size = queue.size();
    if head >= size {
        return Err(QueueError::HeadOutOfRange { head, size });
    }
    if in_flight >= u32::from(size) {
        return Err(QueueError::TooManyInFlight(size));
    }
    let mut walk = Walk {
        mem,
        table: GuestAddress(queue.desc_table()),
        left: size,
        size,
        next: head,
        indirect: false,
    };
    let mut descriptors = SmallVec::new();
    let (mut read, mut total) = (0, 0_u32);
    loop {
        let broken = QueueError::BrokenChain { head, read };
        let Some(raw) = walk.step().filter(|_| read < MAX_CHAIN) else { return Err(broken) };
        read += 1;
        let Some(sum) = total.checked_add(raw.len()) else { return Err(broken) };
        total = sum;
        if raw.len() > 0 {
            descriptors.push(Descriptor {
                addr: raw.addr(),
                len: raw.len(),
                writable: raw.is_write_only(),
            });
        }
        if !raw.has_next() {
            return Ok(Chain { head, descriptors });
        }
        walk.next = raw.next();
    }
}

/// A walk along a chain, through at most one indirect table (virtio 1.2, 2.7.5.3).
struct Walk<'a> {
    mem: &'a Arc<GuestMemory>,
    table: GuestAddress,
    size: u16,
    /// Descriptors that a chain in this table can still have.
    left: u16,
    next: u16,
    indirect: bool,
}

impl Walk<'_> {
    /// The descriptor at `next`; `None` if there cannot be one.
    fn step(&mut self) -> Option<RawDescriptor> {
        loop {
            if self.next >= self.size {
                return None;
            }
            self.left = self.left.checked_sub(1)?;
            let place = self.table.checked_add(u64::from(self.next) * DESCRIPTOR_BYTES)?;
            let raw: RawDescriptor = self.mem.read_obj(place).ok()?;
            if !raw.refers_to_indirect_table() {
                return Some(raw);
            }
            let bytes = u64::from(raw.len());
            if self.indirect || !bytes.is_multiple_of(DESCRIPTOR_BYTES) {
                return None;
            }
            self.size = u16::try_from(bytes / DESCRIPTOR_BYTES).ok()?;
            (self.table, self.left, self.next, self.indirect) = (raw.addr(), self.size, 0, true);
        }
    }
}

/// Returns a chain to its driver, of which the device has written the first `len` writable bytes.
///
/// # Errors
/// The ring does not lie in guest memory (any more).
pub fn add_used(
    mem: &Arc<GuestMemory>,
    queue: &mut Queue,
    head: u16,
    len: u32,
) -> Result<(), QueueError> {
    Ok(queue.add_used(&**mem, head, len)?)
}

/// Returns chains that belong together: the driver sees all of them used, or none. Each is a head
/// and the number of bytes written.
///
/// # Errors
/// The ring does not lie in guest memory (any more).
pub fn add_used_together(
    mem: &Arc<GuestMemory>,
    queue: &mut Queue,
    chains: &[(u16, u32)],
) -> Result<(), QueueError> {
    let Some(((head, len), others)) = chains.split_last() else { return Ok(()) };
    for (head, len) in others {
        let mut element = [0; USED_ELEMENT_BYTES];
        element[..4].copy_from_slice(&u32::from(*head).to_le_bytes());
        element[4..].copy_from_slice(&len.to_le_bytes());
        let place = u64::from(queue.next_used() % queue.size());
        let offset = USED_HEADER_BYTES + place * USED_ELEMENT_BYTES as u64;
        let address = queue.used_ring().checked_add(offset);
        let address = address.ok_or(virtio_queue::Error::AddressOverflow)?;
        mem.write_slice(&element, GuestAddress(address))
            .map_err(virtio_queue::Error::GuestMemory)?;
        queue.set_next_used(queue.next_used().wrapping_add(1));
    }
    // Publishes the index, and with it the elements before.
    add_used(mem, queue, *head, *len)
}

/// Gives the last `count` chains that were taken back to the available ring.
pub fn put_back(queue: &mut Queue, count: u16) {
    queue.set_next_avail(queue.next_avail().wrapping_sub(count));
}

#[cfg(test)]
mod tests;
