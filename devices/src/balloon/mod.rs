//! virtio-balloon, virtio 1.2 section 5.5: memory that a guest gives back.
//!
//! The device tells its owner which pages of the guest hold nothing any more ([`serve`],
//! [`serve_reports`]); the owner punches holes there. A page that the guest uses again is a page of
//! zeros. So nothing has to be done when the balloon deflates, and MUST_TELL_HOST is not offered.
//! If somebody still works on such a page, a disk request in flight perhaps, that is the guest's
//! own affair: it has declared the content void.

pub mod config;
pub mod stats;

use std::sync::Arc;

use smallvec::SmallVec;
use virtio_queue::Queue;
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

pub use config::{DEVICE_ID, FEATURES, PAGE_BYTES, QUEUES, Size};
use config::{VIRTIO_BALLOON_F_PAGE_REPORTING, VIRTIO_BALLOON_F_STATS_VQ};

use crate::fault::{Fault, readable, writable};
use crate::memory::{GuestMemory, OutsideMemory};
use crate::virtqueue;

/// Most page numbers in one chain; drivers send 256 or 1024.
const MAX_PAGES: usize = 4096;
const PAGE_NUMBER_BYTES: usize = 4;

/// Guest physical memory that holds nothing: whole pages, all of them inside the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First byte.
    pub start: GuestAddress,
    /// Length.
    pub len_bytes: u64,
}

/// Holes of one chain.
pub type Holes = SmallVec<[Hole; 32]>;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pages for the balloon.
    Inflate,
    /// Pages out of the balloon.
    Deflate,
    /// Figures about the guest's memory.
    Stats,
    /// Pages that are free for the time being.
    Reporting,
}

/// What queue `index` is for when these features were negotiated. `reporting_vq` is queue 4, but
/// there are drivers (Linux) that do not count the queues of features that they have not got, and
/// use queue 3.
pub fn role(index: usize, features: u64) -> Option<Role> {
    let has = |bit: u32| features >> bit & 1 == 1;
    match index {
        0 => Some(Role::Inflate),
        1 => Some(Role::Deflate),
        2 if has(VIRTIO_BALLOON_F_STATS_VQ) => Some(Role::Stats),
        2..=4 if has(VIRTIO_BALLOON_F_PAGE_REPORTING) => Some(Role::Reporting),
        _ => None,
    }
}

/// Takes the next chain of the inflate or the deflate queue and returns it to the driver after
/// `apply` has seen its pages. Returns whether there was one.
///
/// # Errors
/// The driver has broken a rule.
pub fn serve(
    mem: &Arc<GuestMemory>,
    queue: &mut Queue,
    apply: impl FnOnce(&[Hole]),
) -> Result<bool, Fault> {
    let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else { return Ok(false) };
    let most = MAX_PAGES * PAGE_NUMBER_BYTES;
    let descriptors = readable(&chain, PAGE_NUMBER_BYTES as u64, most as u64)?;
    let list = virtqueue::buffers(mem, descriptors, 0, most as u64)?;
    let mut bytes = vec![0; usize::try_from(list.len_bytes()).unwrap_or(0).min(most)];
    list.copy_to(&mut bytes);
    let (numbers, _) = bytes.as_chunks::<PAGE_NUMBER_BYTES>();
    let mut holes = Holes::new();
    for number in numbers {
        let start = u64::from(u32::from_le_bytes(*number)) * PAGE_BYTES;
        add(mem, &mut holes, start, PAGE_BYTES)?;
    }
    apply(&holes);
    virtqueue::add_used(mem, queue, chain.head, 0)?;
    Ok(true)
}

/// Takes the next chain of the reporting queue: its buffers themselves are free memory (5.5.6.6).
/// `apply` sees their whole pages before the chain is returned; the guest has them back then.
///
/// # Errors
/// The driver has broken a rule.
pub fn serve_reports(
    mem: &Arc<GuestMemory>,
    queue: &mut Queue,
    apply: impl FnOnce(&[Hole]),
) -> Result<bool, Fault> {
    let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else { return Ok(false) };
    let mut holes = Holes::new();
    for free in writable(&chain, 1)? {
        let outside = OutsideMemory { addr: free.addr.0, len_bytes: u64::from(free.len) };
        let end = free.addr.0.checked_add(u64::from(free.len)).ok_or(outside)?;
        let start = free.addr.0.checked_next_multiple_of(PAGE_BYTES).ok_or(outside)?;
        if let Some(len) = (end - end % PAGE_BYTES).checked_sub(start).filter(|len| *len > 0) {
            add(mem, &mut holes, start, len)?;
        }
    }
    apply(&holes);
    virtqueue::add_used(mem, queue, chain.head, 0)?;
    Ok(true)
}

/// Adds pages to the list, as a part of the last hole if they touch it. Linux takes pages from
/// above as often as from below.
fn add(mem: &GuestMemory, holes: &mut Holes, start: u64, len_bytes: u64) -> Result<(), Fault> {
    let outside = OutsideMemory { addr: start, len_bytes };
    let len = usize::try_from(len_bytes).map_err(|_| outside)?;
    if !mem.check_range(GuestAddress(start), len, Permissions::ReadWrite) {
        return Err(outside.into());
    }
    if let Some(last) = holes.last_mut() {
        if last.start.0 + last.len_bytes == start {
            last.len_bytes += len_bytes;
            return Ok(());
        }
        if start + len_bytes == last.start.0 {
            last.start = GuestAddress(start);
            last.len_bytes += len_bytes;
            return Ok(());
        }
    }
    holes.push(Hole { start: GuestAddress(start), len_bytes });
    Ok(())
}

#[cfg(test)]
mod tests;
