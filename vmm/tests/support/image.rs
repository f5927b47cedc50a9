//! Guest images made of a few bytes, so that the tests need no guest toolchain.

use moirai_abi::boot::{NOTE_NAME, NOTE_TYPE_RING3, RING3_VERSION};
use moirai_abi::machine::{DEVICE_FIRST_VECTOR, DEVICE_VECTORS};

/// Where the single segment of an image goes.
pub const BASE: u64 = 0x10_0000;
const PAGE_DIRECTORY: usize = 0x2000;
const GDT: usize = 0x4000;
const TSS: usize = 0x5000;
const HANDLER: usize = 0x7800;
const IDT: usize = 0x8000;
const CODE: usize = 0x9000;
const STACK_TOP: u64 = BASE + 0xf000;

/// How an image says it can be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notes {
    Pvh,
    Ring3,
    Both,
    Neither,
}

/// An ELF64 executable that runs `code`: in 32-bit ring 0 if entered by PVH, in 64-bit ring 3 if
/// entered by the ring-3 note. Its page tables map the first GiB and the device hole.
pub fn image(code: &[u8], notes: Notes) -> Vec<u8> {
    image_with(code, notes, &[])
}

/// The same with more segments (physical address, content).
pub fn image_with(code: &[u8], notes: Notes, more: &[(u64, &[u8])]) -> Vec<u8> {
    let mut notes_bytes = Vec::new();
    if matches!(notes, Notes::Pvh | Notes::Both) {
        let entry = (BASE as u32 + CODE as u32).to_le_bytes();
        notes_bytes.extend(note(b"Xen\0", 18, &entry));
    }
    if matches!(notes, Notes::Ring3 | Notes::Both) {
        let at = |offset: usize| BASE + offset as u64;
        let words =
            [RING3_VERSION, at(CODE), STACK_TOP, BASE, at(GDT), 0x4f, at(IDT), at(TSS), 0x2068];
        let desc: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        notes_bytes.extend(note(NOTE_NAME, NOTE_TYPE_RING3, &desc));
    }
    let memory = memory_image(code);
    elf(&[&[(BASE, memory.as_slice())], more].concat(), &notes_bytes)
}

/// An ELF64 executable with these segments (physical address, content) and notes.
pub fn elf(segments: &[(u64, &[u8])], notes: &[u8]) -> Vec<u8> {
    let count = segments.len() + 1;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [0, 0, 64, 56, count as u16, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = 64 + 56 * count as u64;
    let all = std::iter::once((4u32, 0, notes)).chain(segments.iter().map(|s| (1, s.0, s.1)));
    for (kind, address, content) in all.clone() {
        file.extend(kind.to_le_bytes());
        file.extend(7u32.to_le_bytes());
        let len = content.len() as u64;
        for word in [offset, address, address, len, len, 4] {
            file.extend(word.to_le_bytes());
        }
        offset += len;
    }
    all.for_each(|(_, _, content)| file.extend(content));
    file
}

fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [name.len() as u32, desc.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    note.extend(name);
    note.resize(note.len().next_multiple_of(4), 0);
    note.extend(desc);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// Page tables, GDT, TSS, an IDT that takes device interrupts and nothing else (every exception is
/// a triple fault), and the code.
fn memory_image(code: &[u8]) -> Vec<u8> {
    let mut memory = vec![0; CODE];
    let mut put = |offset: usize, value: u64| {
        memory[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    };
    let table = |offset: usize| BASE + offset as u64 + 7;
    put(0, table(0x1000));
    put(0x1000, table(PAGE_DIRECTORY));
    put(0x1018, table(PAGE_DIRECTORY + 0x1000));
    for page in 0..512 {
        let present_writable_user_large = 0x87;
        let address = (page as u64) << 21;
        put(PAGE_DIRECTORY + 8 * page, address + present_writable_user_large);
        put(
            PAGE_DIRECTORY + 0x1000 + 8 * page,
            0xc000_0000 + address + present_writable_user_large,
        );
    }
    let tss = BASE + TSS as u64;
    let descriptors = [
        (0x10, 0x00af_9b00_0000_ffff),
        (0x18, 0x00cf_9300_0000_ffff),
        (0x28, 0x00cf_f300_0000_ffff),
        (0x30, 0x00af_fb00_0000_ffff),
        (0x40, 0x8b00_0000_2068 | (tss & 0xff_ffff) << 16 | (tss >> 24 & 0xff) << 56),
    ];
    descriptors.into_iter().for_each(|(selector, value)| put(GDT + selector, value));
    const IRETQ: u64 = 0xcf48;
    put(HANDLER, IRETQ);
    let handler = BASE + HANDLER as u64;
    let present_gate = 0xee00 << 32 | 0x10 << 16;
    let gate = handler & 0xffff | present_gate | (handler >> 16 & 0xffff) << 48;
    let vectors = (DEVICE_FIRST_VECTOR as usize..).take(DEVICE_VECTORS as usize);
    vectors.for_each(|vector| put(IDT + 16 * vector, gate));
    put(TSS + 4, STACK_TOP - 0x1000);
    put(TSS + 0x66, 0x68);
    memory.extend(code);
    memory
}

/// Machine code, the same bytes in 32-bit and 64-bit mode.
#[derive(Clone, Debug, Default)]
pub struct Code(pub Vec<u8>);

impl Code {
    /// Writes `text` to `port`, one byte an instruction.
    pub fn print(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            self = self.out(0x3f8, byte);
        }
        self
    }

    /// Writes `text` to the serial port in one string instruction.
    pub fn print_string(mut self, text: &str) -> Self {
        // The text lies behind a jump: mov esi, text; mov ecx, len; mov edx, port; rep outsb.
        let len = u8::try_from(text.len()).unwrap();
        self.0.extend([0xeb, len]);
        let address = BASE as u32 + (CODE + self.0.len()) as u32;
        self.0.extend(text.bytes());
        self.0.push(0xbe);
        self.0.extend(address.to_le_bytes());
        self.0.push(0xb9);
        self.0.extend(u32::from(len).to_le_bytes());
        self.0.extend([0xba, 0xf8, 3, 0, 0, 0xf3, 0x6e]);
        self
    }

    /// mov edx, port; mov al, byte; out dx, al.
    pub fn out(mut self, port: u16, byte: u8) -> Self {
        self.0.push(0xba);
        self.0.extend(u32::from(port).to_le_bytes());
        self.0.extend([0xb0, byte, 0xee]);
        self
    }

    /// mov edi, address; mov dword [rdi], value.
    pub fn store(mut self, address: u32, value: u32) -> Self {
        self.0.push(0xbf);
        self.0.extend(address.to_le_bytes());
        self.0.extend([0xc7, 0x07]);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Reads `address` until one of `bits` is set: mov edi, address; 1: mov eax, [rdi]; test al,
    /// bits; jz 1b.
    pub fn wait_for_bit(mut self, address: u32, bits: u8) -> Self {
        self.0.push(0xbf);
        self.0.extend(address.to_le_bytes());
        self.0.extend([0x8b, 0x07, 0xa8, bits, 0x74, 0xfa]);
        self
    }

    /// Appends bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Powers the machine off.
    pub fn power_off(self) -> Self {
        self.out(0x600, 0x34).spin()
    }

    /// Jumps to itself for ever.
    pub fn spin(self) -> Self {
        self.raw(&[0xeb, 0xfe])
    }
}
