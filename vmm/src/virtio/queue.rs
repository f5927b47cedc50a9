//! The registers of one virtqueue (virtio 1.2, section 4.2.2) and the ring they describe.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// A split virtqueue in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAreas {
    /// Number of descriptors, a power of two.
    pub size: u16,
    /// Guest physical address of the descriptor area.
    pub descriptors: u64,
    /// Guest physical address of the driver area (available ring).
    pub driver: u64,
    /// Guest physical address of the device area (used ring).
    pub device: u64,
}

/// What the driver has written about a queue; garbage until [`QueueRegisters::ring`] says
/// otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueRegisters {
    /// `QueueNum`.
    pub size: u32,
    /// `QueueReady`.
    pub ready: bool,
    /// `QueueDescLow` and `QueueDescHigh`.
    pub descriptors: u64,
    /// `QueueDriverLow` and `QueueDriverHigh`.
    pub driver: u64,
    /// `QueueDeviceLow` and `QueueDeviceHigh`.
    pub device: u64,
}

impl QueueRegisters {
    /// The ring, if its size is legal and its three areas are aligned and in guest memory
    /// (section 2.7: 16 bytes a descriptor, 2 an available entry, 8 a used entry, 6 around the
    /// latter two).
    #[must_use]
    pub fn ring(&self, max_size: u16, memory: &GuestMemoryMmap) -> Option<QueueAreas> {
        let size = u16::try_from(self.size).ok()?;
        if !size.is_power_of_two() || size > max_size {
            return None;
        }
        let entries = usize::from(size);
        let areas = [
            (self.descriptors, 16, 16 * entries),
            (self.driver, 2, 6 + 2 * entries),
            (self.device, 4, 6 + 8 * entries),
        ];
        let fits = |&(address, align, len): &(u64, u64, usize)| {
            address.is_multiple_of(align) && memory.check_range(GuestAddress(address), len)
        };
        let Self { descriptors, driver, device, .. } = *self;
        areas.iter().all(fits).then_some(QueueAreas { size, descriptors, driver, device })
    }
}

/// Replaces the low half of a 64-bit register.
pub fn set_low(register: &mut u64, value: u32) {
    *register = *register >> 32 << 32 | u64::from(value);
}

/// Replaces the high half of a 64-bit register.
pub fn set_high(register: &mut u64, value: u32) {
    *register = *register & u64::from(u32::MAX) | u64::from(value) << 32;
}

#[cfg(test)]
mod tests {
    use super::QueueRegisters;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    #[test]
    fn a_ring_must_be_aligned_and_inside_memory() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let good = QueueRegisters {
            size: 256,
            ready: true,
            descriptors: 0x1000,
            driver: 0x3000,
            device: 0x4000,
        };
        let ok = |registers: QueueRegisters| registers.ring(256, &memory).is_some();
        assert!(ok(good));
        assert!(!ok(QueueRegisters { size: 0, ..good }));
        assert!(!ok(QueueRegisters { size: 100, ..good }));
        assert!(!ok(QueueRegisters { size: 512, ..good }));
        assert!(!ok(QueueRegisters { size: 1 << 16, ..good }));
        assert!(!ok(QueueRegisters { descriptors: 0x1008, ..good }));
        assert!(!ok(QueueRegisters { driver: 0x3001, ..good }));
        assert!(!ok(QueueRegisters { device: 0x4002, ..good }));
        assert!(!ok(QueueRegisters { descriptors: (1 << 20) - 16, ..good }));
        assert!(!ok(QueueRegisters { device: u64::MAX - 3, ..good }));
    }
}
