//! The MSI-X table of a function (PCI Local Bus 3.0, section 6.8.2): which message each vector
//! sends, and whether it may now.

use moirai_abi::machine::LAPIC_BASE;

/// Capability id.
pub const CAPABILITY: u8 = 0x11;
/// Size of a table entry.
pub const ENTRY_BYTES: u64 = 16;
/// Bits of the message control register, as its upper byte has them.
pub const CONTROL_ENABLE: u8 = 1 << 7;
/// See [`CONTROL_ENABLE`].
pub const CONTROL_MASK: u8 = 1 << 6;
/// Word of an entry with its mask, and that bit.
const VECTOR_CONTROL: usize = 3;
const MASKED: u32 = 1;
/// Addresses from [`LAPIC_BASE`] on that are messages.
const MESSAGE_BYTES: u32 = 0x10_0000;

/// A write by which a device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to; names the processors.
    pub address: u32,
    /// What; names the vector.
    pub data: u32,
}

/// A table after reset: every vector is masked.
#[derive(Debug)]
pub struct Table {
    entries: Vec<[u32; 4]>,
}

impl Table {
    /// A table of this many vectors.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        Self { entries: vec![[0, 0, 0, MASKED]; vectors.into()] }
    }

    /// The message that `vector` may send now, if the function may send any. An address outside of
    /// the local APICs names no interrupt; its vector sends nothing.
    #[must_use]
    pub fn message(&self, vector: u16) -> Option<Message> {
        let &[address, high, data, control] = self.entries.get(usize::from(vector))?;
        let apics = LAPIC_BASE..LAPIC_BASE + MESSAGE_BYTES;
        let sends = control & MASKED == 0 && high == 0 && apics.contains(&address);
        sends.then_some(Message { address, data })
    }

    /// Software reads from the table. Beyond its end are zeros.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let bytes = self.entries.iter().flatten().flat_map(|word| word.to_le_bytes());
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (value, byte) in data.iter_mut().zip(bytes.skip(skip)) {
            *value = byte;
        }
    }

    /// Software writes one or two aligned words; nothing else is allowed.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let (words, rest) = data.as_chunks::<4>();
        if !offset.is_multiple_of(4) || !rest.is_empty() {
            return;
        }
        let Ok(first) = usize::try_from(offset / 4) else { return };
        let table = self.entries.iter_mut().flat_map(|entry| entry.iter_mut().enumerate());
        for ((index, word), bytes) in table.skip(first).zip(words) {
            let value = u32::from_le_bytes(*bytes);
            *word = if index == VECTOR_CONTROL { value & MASKED } else { value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, Table};

    fn set(table: &mut Table, offset: u64, value: u32) {
        table.write(offset, &value.to_le_bytes());
    }

    #[test]
    fn a_vector_sends_its_message_when_it_is_not_masked() {
        let mut table = Table::new(2);
        table.write(16, &0xfee0_1000u64.to_le_bytes());
        set(&mut table, 24, 0x4123);
        assert_eq!(table.message(1), None, "masked since reset");
        set(&mut table, 28, 0);
        assert_eq!(table.message(1), Some(Message { address: 0xfee0_1000, data: 0x4123 }));
        assert_eq!([table.message(0), table.message(2), table.message(u16::MAX)], [None; 3]);
        let mut entry = [0; 16];
        table.read(16, &mut entry);
        assert_eq!(u128::from_le_bytes(entry), 0x4123_0000_0000_fee0_1000);
    }

    #[test]
    fn an_address_that_is_no_interrupt_sends_nothing() {
        let mut table = Table::new(1);
        set(&mut table, 12, 0);
        for (low, high) in [(0, 0), (0xfed0_0000, 0), (0xfef0_0000, 0), (0xfee0_0000, 1)] {
            set(&mut table, 0, low);
            set(&mut table, 4, high);
            assert_eq!(table.message(0), None);
        }
    }

    #[test]
    fn accesses_beyond_the_table_or_across_words_change_nothing() {
        let mut table = Table::new(1);
        for offset in [1, 2, 13, 16, 20, u64::MAX - 3] {
            table.write(offset, &[0; 4]);
        }
        table.write(12, &[0; 3]);
        table.write(12, &[0; 8]);
        assert_eq!(table.message(0), None);
        let mut beyond = [1; 8];
        table.read(16, &mut beyond);
        assert_eq!(beyond, [0; 8]);
    }
}
