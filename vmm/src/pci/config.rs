//! The configuration space of a function: 256 bytes, each with a mask of the bits that software may
//! write (PCI Local Bus 3.0, chapter 6).

use moirai_abi::machine::{PCI_WINDOW_BASE, PCI_WINDOW_SIZE};

/// Size of a configuration space.
const BYTES: usize = 256;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// Where capabilities begin.
const FIRST_CAPABILITY: usize = 0x40;

const COMMAND_MEMORY: u8 = 1 << 1;
const COMMAND_MASTER: u8 = 1 << 2;
/// INTx Disable, in the upper byte.
const COMMAND_NO_INTX: u8 = 1 << 2;
const STATUS_CAPABILITIES: u8 = 1 << 4;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class and subclass.
    pub class: u16,
    /// Subsystem id; the subsystem's vendor is `vendor`.
    pub subsystem: u16,
}

/// A configuration space with a header of type 0 and at most one BAR, for 32-bit memory.
#[derive(Debug)]
pub struct ConfigSpace {
    bytes: [u8; BYTES],
    writable: [u8; BYTES],
    bar_bytes: u32,
    next_capability: usize,
    /// Where the offset of the next capability goes.
    link: usize,
}

impl ConfigSpace {
    /// A function without BAR and capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; BYTES],
            writable: [0; BYTES],
            bar_bytes: 0,
            next_capability: FIRST_CAPABILITY,
            link: CAPABILITIES,
        };
        space.put(0x00, &identity.vendor.to_le_bytes());
        space.put(0x02, &identity.device.to_le_bytes());
        space.put(0x08, &[identity.revision]);
        space.put(0x0a, &identity.class.to_le_bytes());
        space.put(0x2c, &identity.vendor.to_le_bytes());
        space.put(0x2e, &identity.subsystem.to_le_bytes());
        space.permit(COMMAND, &[COMMAND_MEMORY | COMMAND_MASTER, COMMAND_NO_INTX]);
        space.permit(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Adds BAR 0 of `size` bytes, a power of two, at `base`. It decodes when software says so.
    pub fn set_bar(&mut self, base: u32, size: u32) {
        self.bar_bytes = size;
        self.put(BAR0, &base.to_le_bytes());
        // Software finds the size by writing ones: the low bits stay zero.
        self.permit(BAR0, &size.wrapping_neg().to_le_bytes());
    }

    /// Adds a capability; `body` follows its id and link. Returns its offset.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let at = self.next_capability;
        self.put(self.link, &[at.to_le_bytes()[0]]);
        self.put(STATUS, &[STATUS_CAPABILITIES]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.link = at + 1;
        self.next_capability = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// Lets software write the bits of `mask` from `offset` on.
    pub fn permit(&mut self, offset: usize, mask: &[u8]) {
        for (bits, value) in self.writable.iter_mut().skip(offset).zip(mask) {
            *bits = *value;
        }
    }

    fn put(&mut self, offset: usize, data: &[u8]) {
        for (byte, value) in self.bytes.iter_mut().skip(offset).zip(data) {
            *byte = *value;
        }
    }

    /// Software reads from `register`. Beyond the end all bits are one.
    pub fn read(&self, register: usize, data: &mut [u8]) {
        data.fill(0xff);
        for (value, byte) in data.iter_mut().zip(self.bytes.iter().skip(register)) {
            *value = *byte;
        }
    }

    /// Software writes to `register`. What it may not write keeps its value.
    pub fn write(&mut self, register: usize, data: &[u8]) {
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(register);
        for ((byte, mask), value) in bytes.zip(data) {
            *byte = *byte & !mask | value & mask;
        }
    }

    /// The 32-bit word at `offset`.
    #[must_use]
    pub fn dword(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    /// Where the BAR decodes: nowhere unless software has enabled it and it lies in the window that
    /// the host bridge forwards. So it never hides RAM, an APIC or the configuration space.
    #[must_use]
    pub fn bar(&self) -> Option<u64> {
        let base = u64::from(self.dword(BAR0));
        let end = base + u64::from(self.bar_bytes);
        let enabled = self.bytes[COMMAND] & COMMAND_MEMORY != 0 && self.bar_bytes != 0;
        let window = PCI_WINDOW_BASE..=PCI_WINDOW_BASE + PCI_WINDOW_SIZE;
        (enabled && window.contains(&base) && window.contains(&end)).then_some(base)
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigSpace, Identity};

    fn function() -> ConfigSpace {
        let identity =
            Identity { vendor: 0x1af4, device: 0x1042, revision: 1, class: 0x180, subsystem: 0x40 };
        let mut space = ConfigSpace::new(identity);
        space.set_bar(0xc000_4000, 0x4000);
        space
    }

    fn set(space: &mut ConfigSpace, register: usize, value: u32) {
        space.write(register, &value.to_le_bytes());
    }

    #[test]
    fn a_bar_is_sized_as_software_does_it() {
        let mut space = function();
        assert_eq!(space.dword(0x10), 0xc000_4000);
        set(&mut space, 0x10, u32::MAX);
        assert_eq!(space.dword(0x10), 0xffff_c000);
        set(&mut space, 0x10, 0xc000_4000);
        for absent in [0x14, 0x18, 0x1c, 0x20, 0x24, 0x30] {
            set(&mut space, absent, u32::MAX);
            assert_eq!(space.dword(absent), 0);
        }
        assert_eq!(space.bar(), None, "not enabled yet");
        set(&mut space, 4, 2);
        assert_eq!(space.bar(), Some(0xc000_4000));
    }

    #[test]
    fn a_bar_outside_the_window_decodes_nothing() {
        let mut space = function();
        set(&mut space, 4, 2);
        for (base, decodes) in [
            (0, false),
            (0xbfff_c000, false),
            (0xc000_0000, true),
            (0xcfff_c000, true),
            (0xd000_0000, false),
            (0xe000_0000, false),
            (0xfee0_0000, false),
            (0xffff_c000, false),
        ] {
            set(&mut space, 0x10, base);
            assert_eq!(space.bar(), decodes.then_some(base.into()), "{base:#x}");
        }
    }

    #[test]
    fn what_a_function_is_cannot_be_overwritten() {
        let mut space = function();
        let at = space.add_capability(9, &[16, 1]);
        let before: Vec<u32> = (0..64).map(|word| space.dword(4 * word)).collect();
        for register in (0..256).step_by(4).filter(|&at| at != 4 && at != 0x10 && at != 0x3c) {
            set(&mut space, register, u32::MAX);
            set(&mut space, register, 0);
        }
        let after: Vec<u32> = (0..64).map(|word| space.dword(4 * word)).collect();
        assert_eq!(before, after);
        assert_eq!((space.dword(0x34), space.dword(at) & 0xffff), (0x40, 9));
    }
}
