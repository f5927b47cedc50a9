//! What a virtio-net device shows: feature bits and configuration space (virtio 1.2, 5.1.3, 5.1.4).

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
    VIRTIO_NET_S_LINK_UP,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::offload::Offload;
use crate::vhost::{DEFAULT_MAX_MEMORY_BYTES, DeviceProfile};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Whether it is a group address (broadcast included).
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl std::fmt::Display for MacAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a network card is to its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The guest's address. Packets with another source address are not sent.
    pub mac: MacAddr,
    /// Largest payload of a frame in bytes.
    pub mtu: u16,
    /// Largest queue size offered, a power of two.
    pub queue_size: u16,
    /// Pairs of a receive and a transmit queue, 1 to [`MAX_PAIRS`](super::MAX_PAIRS).
    pub pairs: u16,
    /// What the link does for its guests.
    pub offload: Offload,
}

impl Nic {
    /// The feature bits that the device offers. Its address cannot be changed: what does not come
    /// from this one is not sent.
    pub fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_NET_F_MAC
            | 1 << VIRTIO_NET_F_STATUS
            | 1 << VIRTIO_NET_F_MTU
            | 1 << VIRTIO_NET_F_MRG_RXBUF
            | 1 << VIRTIO_NET_F_CTRL_VQ
            | 1 << VIRTIO_NET_F_CTRL_RX
            | 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS
            | u64::from(self.pairs > 1) << VIRTIO_NET_F_MQ
            | self.offload.features()
    }

    /// Number of queues: the pairs and the control queue.
    pub fn queues(&self) -> u16 {
        self.pairs.saturating_mul(2).saturating_add(1)
    }

    /// The configuration space, little-endian: mac, status, max_virtqueue_pairs, mtu.
    pub fn config_space(&self) -> Vec<u8> {
        let link_up = u16::try_from(VIRTIO_NET_S_LINK_UP).unwrap_or(1);
        let mut bytes = Vec::with_capacity(12);
        bytes.extend(self.mac.0);
        bytes.extend(link_up.to_le_bytes());
        bytes.extend(self.pairs.to_le_bytes());
        bytes.extend(self.mtu.to_le_bytes());
        bytes
    }

    /// The card as a vhost-user device.
    pub fn profile(&self) -> DeviceProfile {
        DeviceProfile {
            features: self.features(),
            config: self.config_space(),
            queues: self.queues(),
            max_queue_size: self.queue_size,
            allow_unsealed_memory: false,
            max_memory_bytes: DEFAULT_MAX_MEMORY_BYTES,
        }
    }
}
