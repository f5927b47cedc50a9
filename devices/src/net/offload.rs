//! What may be left undone in the packets of a link, and which feature bits that is.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO,
};

use super::header::{Protocol, Segmentation};

/// What packets of guests, and packets for them, may leave to the link. Each includes those above
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offload {
    /// Nothing: packets are complete.
    #[default]
    None,
    /// Checksums.
    Checksum,
    /// Cutting TCP data into segments.
    Tcp,
    /// Cutting UDP data into datagrams.
    TcpAndUdp,
}

/// What a driver agrees to find undone in packets that it receives, as features and as the value of
/// the control command GUEST_OFFLOADS_SET.
pub(super) const GUEST_OFFLOADS: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_ECN
    | 1 << VIRTIO_NET_F_GUEST_USO4
    | 1 << VIRTIO_NET_F_GUEST_USO6;

impl Offload {
    /// Whether packets may be cut by the link.
    pub fn segments(self) -> bool {
        self >= Self::Tcp
    }

    /// The feature bits, for both directions.
    pub fn features(self) -> u64 {
        let bits: [(Self, &[u32]); 3] = [
            (Self::Checksum, &[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM]),
            (
                Self::Tcp,
                &[
                    VIRTIO_NET_F_HOST_TSO4,
                    VIRTIO_NET_F_HOST_TSO6,
                    VIRTIO_NET_F_HOST_ECN,
                    VIRTIO_NET_F_GUEST_TSO4,
                    VIRTIO_NET_F_GUEST_TSO6,
                    VIRTIO_NET_F_GUEST_ECN,
                ],
            ),
            (
                Self::TcpAndUdp,
                &[VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6],
            ),
        ];
        let included = bits.iter().filter(|(level, _)| *level <= self);
        included.flat_map(|(_, bits)| *bits).fold(0, |features, bit| features | 1 << bit)
    }
}

impl Segmentation {
    /// Whether a driver with these features may send such a packet.
    pub(super) fn may_be_sent(&self, features: u64) -> bool {
        let bit = match self.protocol {
            Protocol::Tcp4 => VIRTIO_NET_F_HOST_TSO4,
            Protocol::Tcp6 => VIRTIO_NET_F_HOST_TSO6,
            Protocol::Udp => VIRTIO_NET_F_HOST_USO,
        };
        features >> bit & 1 == 1 && (!self.ecn || features >> VIRTIO_NET_F_HOST_ECN & 1 == 1)
    }

    /// Whether a driver with these features takes such a packet uncut.
    pub(super) fn may_be_received(&self, version_6: bool, features: u64) -> bool {
        let bit = match self.protocol {
            Protocol::Tcp4 => VIRTIO_NET_F_GUEST_TSO4,
            Protocol::Tcp6 => VIRTIO_NET_F_GUEST_TSO6,
            Protocol::Udp if version_6 => VIRTIO_NET_F_GUEST_USO6,
            Protocol::Udp => VIRTIO_NET_F_GUEST_USO4,
        };
        let has = |bit: u32| features >> bit & 1 == 1;
        has(VIRTIO_NET_F_GUEST_CSUM) && has(bit) && (!self.ecn || has(VIRTIO_NET_F_GUEST_ECN))
    }
}
