//! What a virtio-blk device shows: feature bits and configuration space (virtio 1.2, 5.2.3, 5.2.4).

use super::DISK_ID_LEN;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::SECTOR_BYTES;
use crate::vhost::{DEFAULT_MAX_MEMORY_BYTES, DeviceProfile};

/// Most data segments in a request. Linux posts at most this many descriptors beside header and
/// status.
pub const SEG_MAX: u32 = 254;

/// Most bytes that a read, write or write-zeroes may move. A request is one unit of disk time that
/// cannot be interrupted, so it must be a bounded one; Linux asks for no more than this.
pub const MAX_REQUEST_BYTES: u64 = 4 << 20;

/// Most bytes that a discard may cover; it moves none, so it may be longer.
pub const MAX_DISCARD_BYTES: u64 = 64 << 20;

/// What the guest may know of the disk to use it well. Bytes; powers of two where not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// What is written at once; at least the logical block size.
    pub physical_block_bytes: u32,
    /// Length of requests that keeps all of the disk busy; zero: any.
    pub optimal_io_bytes: u32,
    /// What discards had better be multiples of.
    pub discard_align_bytes: u32,
}

/// What a disk is to its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Capacity in units of 512 bytes.
    pub capacity_sectors: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Logical block size in bytes, a power of two from 512 to 4096.
    pub block_size: u32,
    /// What suits it.
    pub topology: Topology,
    /// Whether discard is offered: space can be given back. Never on a read-only disk.
    pub discard: bool,
    /// Whether write-zeroes is offered. Never on a read-only disk.
    pub write_zeroes: bool,
    /// Number of request queues.
    pub queues: u16,
    /// Largest queue size offered, a power of two.
    pub queue_size: u16,
    /// What get-id answers, padded with zeros.
    pub id: [u8; DISK_ID_LEN],
}

impl Disk {
    /// The feature bits that the device offers.
    pub fn features(&self) -> u64 {
        let mut bits = 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_TOPOLOGY
            | 1 << VIRTIO_BLK_F_FLUSH;
        if self.queues > 1 {
            bits |= 1 << VIRTIO_BLK_F_MQ;
        }
        for (offered, bit) in [
            (self.read_only, VIRTIO_BLK_F_RO),
            (self.discard, VIRTIO_BLK_F_DISCARD),
            (self.write_zeroes, VIRTIO_BLK_F_WRITE_ZEROES),
        ] {
            bits |= u64::from(offered) << bit;
        }
        bits
    }

    /// The configuration space, little-endian, in the order of `struct virtio_blk_config`.
    pub fn config_space(&self) -> Vec<u8> {
        let sectors = |bytes: u64| u32::try_from(bytes / SECTOR_BYTES).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(60);
        bytes.extend(self.capacity_sectors.to_le_bytes());
        bytes.extend(0u32.to_le_bytes()); // size_max: not offered
        // A request has two descriptors more than data segments.
        bytes.extend(SEG_MAX.min(u32::from(self.queue_size).saturating_sub(2)).to_le_bytes());
        bytes.extend([0; 4]); // geometry: not offered
        bytes.extend(self.block_size.to_le_bytes());
        let block = self.block_size.max(1);
        let Topology { physical_block_bytes, optimal_io_bytes, discard_align_bytes } =
            self.topology;
        let exponent = (physical_block_bytes / block).checked_ilog2().unwrap_or(0);
        bytes.push(u8::try_from(exponent).unwrap_or(0)); // physical_block_exp
        bytes.push(0); // alignment_offset
        bytes.extend(1_u16.to_le_bytes()); // min_io_size, in blocks
        bytes.extend((optimal_io_bytes / block).to_le_bytes()); // opt_io_size, in blocks
        bytes.extend([0, 0]); // writeback: not offered; unused
        bytes.extend(self.queues.to_le_bytes());
        bytes.extend(sectors(MAX_DISCARD_BYTES).to_le_bytes()); // max_discard_sectors
        bytes.extend(1_u32.to_le_bytes()); // max_discard_seg
        let discard_sector_alignment = sectors(u64::from(discard_align_bytes.max(block)));
        bytes.extend(discard_sector_alignment.to_le_bytes());
        bytes.extend(sectors(MAX_REQUEST_BYTES).to_le_bytes()); // max_write_zeroes_sectors
        bytes.extend(1_u32.to_le_bytes()); // max_write_zeroes_seg
        bytes.push(u8::from(self.discard)); // write_zeroes_may_unmap
        bytes.extend([0; 3]);
        bytes
    }

    /// The disk as a vhost-user device.
    pub fn profile(&self) -> DeviceProfile {
        DeviceProfile {
            features: self.features(),
            config: self.config_space(),
            queues: self.queues,
            max_queue_size: self.queue_size,
            allow_unsealed_memory: false,
            max_memory_bytes: DEFAULT_MAX_MEMORY_BYTES,
        }
    }
}
