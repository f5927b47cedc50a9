//! virtio-rng, virtio 1.2 section 5.4: one queue of buffers that the device fills with entropy.
//!
//! A request gets at most [`MAX_REQUEST_BYTES`], however large its buffer. A driver that wants more
//! asks again.

use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;

use crate::fault::{Fault, writable};
use crate::memory::GuestMemory;
use crate::virtqueue;

/// Virtio device id.
pub const DEVICE_ID: u32 = 4;
/// `requestq`.
pub const QUEUES: u16 = 1;
/// The feature bits that the device offers; it has no configuration space.
pub const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// Most bytes that one request gets.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// Fills the next buffer from `source`, which returns how many bytes it has written. Returns
/// whether there was one.
///
/// # Errors
/// The driver has broken a rule.
pub fn serve(
    mem: &Arc<GuestMemory>,
    queue: &mut Queue,
    source: impl FnOnce(&mut [u8]) -> usize,
) -> Result<bool, Fault> {
    let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else { return Ok(false) };
    let wanted = virtqueue::buffers(mem, writable(&chain, 1)?, 0, MAX_REQUEST_BYTES as u64)?;
    let mut entropy = [0; MAX_REQUEST_BYTES];
    let len = usize::try_from(wanted.len_bytes()).unwrap_or(MAX_REQUEST_BYTES);
    let filled = entropy.get_mut(..len).map_or(0, source);
    let written = wanted.copy_from(entropy.get(..filled).unwrap_or_default());
    let written = u32::try_from(written).unwrap_or(u32::MAX);
    virtqueue::add_used(mem, queue, chain.head, written)?;
    Ok(true)
}

#[cfg(test)]
mod tests;
