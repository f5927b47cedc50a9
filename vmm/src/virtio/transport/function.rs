//! What a virtio function says of itself in its configuration space, and where its registers lie
//! behind its one BAR (virtio 1.2, sections 4.1.2 and 4.1.4).

use crate::pci::BAR_BYTES;
use crate::pci::config::{ConfigSpace, Identity};
use crate::pci::msix::{self, CONTROL_ENABLE, CONTROL_MASK};

const VENDOR: u16 = 0x1af4;
/// Device ids of the specification begin here.
const FIRST_DEVICE: u16 = 0x1040;
/// From here on subsystem ids belong to devices without a legacy interface.
const SUBSYSTEM: u16 = 0x40;

/// Capability id "vendor specific".
const VENDOR_CAPABILITY: u8 = 0x09;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_ACCESS: u8 = 5;

/// Bytes of the access capability before its data, and so the offset of these in it.
pub const ACCESS_HEAD: usize = 16;
/// See [`ACCESS_HEAD`].
pub const ACCESS_DATA: usize = ACCESS_HEAD;
/// Bytes from one doorbell to the next.
pub const NOTIFY_STRIDE: u64 = 4;

/// The parts of the BAR. Table and pending bits have pages of their own, as PCI wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Common configuration.
    Common,
    /// Interrupt status.
    Isr,
    /// Device configuration.
    Device,
    /// Doorbells, one per queue.
    Notify,
    /// MSI-X table.
    Table,
    /// MSI-X pending bits.
    Pending,
}

/// Regions in ascending order of their offsets, with their lengths.
const REGIONS: [(Region, u32, u32); 6] = [
    (Region::Common, 0x0000, 0x3c),
    (Region::Isr, 0x0400, 1),
    (Region::Device, 0x0800, 0x400),
    (Region::Notify, 0x1000, 0x1000),
    (Region::Table, 0x2000, 0x1000),
    (Region::Pending, 0x3000, 0x1000),
];

impl Region {
    /// Which region `offset` of the BAR is in, and where in it.
    pub fn at(offset: u64) -> Option<(Self, u64)> {
        REGIONS.iter().find_map(|&(region, start, len)| {
            let at = offset.checked_sub(start.into())?;
            (at < len.into()).then_some((region, at))
        })
    }

    /// Its offset in the BAR.
    pub fn offset(self) -> u64 {
        self.place().0.into()
    }

    fn place(self) -> (u32, u32) {
        let found = REGIONS.iter().find(|&&(region, ..)| region == self);
        found.map_or((0, 0), |&(_, start, len)| (start, len))
    }
}

/// Where in the configuration space the capabilities are that do something.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The one through which the BAR can be reached.
    pub access: usize,
    /// MSI-X.
    pub msix: usize,
}

/// The configuration space of a device of this type with this many MSI-X vectors.
pub fn describe(device_id: u32, vectors: u16, bar: u32) -> (ConfigSpace, Layout) {
    let number = u16::try_from(device_id).unwrap_or(u16::MAX);
    let identity = Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE.saturating_add(number),
        revision: 1,
        class: class(device_id),
        subsystem: SUBSYSTEM.saturating_add(number),
    };
    let mut space = ConfigSpace::new(identity);
    space.set_bar(bar, BAR_BYTES);
    for (kind, region) in [
        (CFG_COMMON, Region::Common),
        (CFG_ISR, Region::Isr),
        (CFG_DEVICE, Region::Device),
        (CFG_NOTIFY, Region::Notify),
    ] {
        let (offset, len) = region.place();
        let stride = u32::try_from(NOTIFY_STRIDE).unwrap_or(0).to_le_bytes();
        let extra: &[u8] = if kind == CFG_NOTIFY { &stride } else { &[] };
        space.add_capability(VENDOR_CAPABILITY, &virtio_capability(kind, offset, len, extra));
    }
    let access = virtio_capability(CFG_ACCESS, 0, 0, &[0; 4]);
    let access = space.add_capability(VENDOR_CAPABILITY, &access);
    // Software writes the BAR's number, offset, length, and data.
    space.permit(access + 4, &[0xff]);
    space.permit(access + 8, &[0xff; 12]);
    // BAR 0 in the low bits of both offsets.
    let mut body = vectors.saturating_sub(1).to_le_bytes().to_vec();
    body.extend(Region::Table.place().0.to_le_bytes());
    body.extend(Region::Pending.place().0.to_le_bytes());
    let msix = space.add_capability(msix::CAPABILITY, &body);
    space.permit(msix + 3, &[CONTROL_ENABLE | CONTROL_MASK]);
    (space, Layout { access, msix })
}

/// A `virtio_pci_cap` for BAR 0, from its length on.
fn virtio_capability(kind: u8, offset: u32, len: u32, extra: &[u8]) -> Vec<u8> {
    let bytes = u8::try_from(16 + extra.len()).unwrap_or(u8::MAX);
    let mut body = vec![bytes, kind, 0, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(len.to_le_bytes());
    body.extend(extra);
    body
}

/// Class and subclass that fit a virtio device.
fn class(device_id: u32) -> u16 {
    match device_id {
        // Ethernet controller, SCSI storage controller, other communication controller.
        1 => 0x0200,
        2 => 0x0100,
        3 | 19 => 0x0780,
        _ => 0x00ff,
    }
}

/// What the access capability shows at its data: bytes of the BAR (section 4.1.4.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessWindow {
    /// Offset in the BAR.
    pub offset: u64,
    /// One, two or four bytes.
    pub len: usize,
}

impl AccessWindow {
    /// What software has written there, if it makes sense.
    pub fn new(head: &[u8; ACCESS_HEAD]) -> Option<Self> {
        let &[_, _, _, _, bar, _, _, _, a, b, c, d, e, f, g, h] = head;
        let (offset, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let fits = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len) && offset < BAR_BYTES;
        let window = Self { offset: offset.into(), len: usize::try_from(len).ok()? };
        (bar == 0 && fits).then_some(window)
    }
}
