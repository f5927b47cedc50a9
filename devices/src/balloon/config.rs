//! What a balloon shows: feature bits, and a configuration space of which both sides write a part
//! (virtio 1.2, 5.5.3, 5.5.4).

use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// Virtio device id.
pub const DEVICE_ID: u32 = 5;
/// `inflateq`, `deflateq`, `statsq`, `free_page_vq` (never used), `reporting_vq`.
pub const QUEUES: u16 = 5;
/// The unit in which the balloon counts, whatever the guest's page size (5.5.6).
pub const PAGE_BYTES: u64 = 4096;
/// Offset of `actual` in the configuration space.
pub const ACTUAL: u64 = 4;

/// The guest tells how much of its memory it uses (5.5.3).
pub(super) const VIRTIO_BALLOON_F_STATS_VQ: u32 = 1;
/// The guest takes memory back when it runs out of it.
const VIRTIO_BALLOON_F_DEFLATE_ON_OOM: u32 = 2;
/// The guest tells which pages are free.
pub(super) const VIRTIO_BALLOON_F_PAGE_REPORTING: u32 = 5;

/// The feature bits that the device offers.
pub const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_BALLOON_F_STATS_VQ
    | 1 << VIRTIO_BALLOON_F_DEFLATE_ON_OOM
    | 1 << VIRTIO_BALLOON_F_PAGE_REPORTING;

/// The size of the balloon as both sides want and have it; shared by whoever sets the target, reads
/// it and serves the queues.
#[derive(Debug, Default)]
pub struct Size {
    target_pages: AtomicU32,
    actual_pages: AtomicU32,
}

impl Size {
    /// Wants the guest to give `bytes` back, rounded down to whole pages. Returns whether that is
    /// news to it.
    pub fn set_target(&self, bytes: u64) -> bool {
        let pages = u32::try_from(bytes / PAGE_BYTES).unwrap_or(u32::MAX);
        self.target_pages.swap(pages, Ordering::Relaxed) != pages
    }

    /// What the guest says that it has given back, in bytes. A guest can say anything.
    pub fn actual_bytes(&self) -> u64 {
        u64::from(self.actual_pages.load(Ordering::Relaxed)) * PAGE_BYTES
    }

    /// The configuration space: `num_pages`, `actual`.
    pub fn config_space(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        let (target, actual) = bytes.split_at_mut(4);
        target.copy_from_slice(&self.target_pages.load(Ordering::Relaxed).to_le_bytes());
        actual.copy_from_slice(&self.actual_pages.load(Ordering::Relaxed).to_le_bytes());
        bytes
    }

    /// The driver writes the configuration space: only `actual`, as a whole, means something.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        if let (ACTUAL, Ok(actual)) = (offset, data.try_into()) {
            self.actual_pages.store(u32::from_le_bytes(actual), Ordering::Relaxed);
        }
    }

    /// The device was reset: the guest has all of its memory.
    pub fn reset(&self) {
        self.actual_pages.store(0, Ordering::Relaxed);
    }
}
