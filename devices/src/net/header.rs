//! `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6): the 12 bytes before every packet, on the ring and
//! on the TAP alike.

/// Length of the header in bytes.
pub const VNET_HEADER_LEN: usize = 12;

/// The header, as far as this device uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum has to be completed: it covers the packet from the first offset, and is stored
    /// at the second, counted from the first.
    pub checksum: Option<(u16, u16)>,
    /// The checksum was verified.
    pub data_valid: bool,
}

/// A rule of virtio 1.2, 5.1.6 that a header broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Segmentation was not offered.
    #[error("segmentation type {0} was not negotiated")]
    Segmentation(u8),
}
