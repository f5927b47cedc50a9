//! How a library OS image tells the VMM that it can be entered straight in ring 3.
//!
//! The image is an ELF64 executable with a PVH note, so that any VMM can boot it: its ring-0 shim
//! builds the state below in a few dozen instructions. A VMM that also finds the *ring-3 note* sets
//! that state itself and skips the shim. Both ways the entry point gets the physical address of the
//! same `hvm_start_info` (the PVH boot protocol: memory map, command line) in `rdi`.

/// ELF note name (with its terminating zero: 7 bytes).
pub const NOTE_NAME: &[u8; 7] = b"Moirai\0";
/// ELF note type of [`Ring3Note`].
pub const NOTE_TYPE_RING3: u32 = 1;
/// Version of [`Ring3Note`].
pub const RING3_VERSION: u64 = 1;

/// GDT selector of 64-bit ring-3 code.
pub const USER_CODE_SELECTOR: u16 = 0x33;
/// GDT selector of ring-3 data and stack.
pub const USER_DATA_SELECTOR: u16 = 0x2b;
/// GDT selector of 64-bit ring-0 code.
pub const KERNEL_CODE_SELECTOR: u16 = 0x10;
/// GDT selector of ring-0 data.
pub const KERNEL_DATA_SELECTOR: u16 = 0x18;
/// GDT selector of the 64-bit TSS.
pub const TSS_SELECTOR: u16 = 0x40;

/// Descriptor of the ring-3 note: nine little-endian `u64`, all addresses physical (the image maps
/// memory one to one). CR0, CR4 and EFER are fixed: long mode, paging, SSE state enabled, NX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring3Note {
    /// Ring-3 entry point (`rip`).
    pub entry: u64,
    /// Initial `rsp`.
    pub stack_top: u64,
    /// CR3.
    pub page_table: u64,
    /// Base of the GDT.
    pub gdt_base: u64,
    /// Limit of the GDT.
    pub gdt_limit: u64,
    /// Base of the IDT (256 entries).
    pub idt_base: u64,
    /// Base of the TSS.
    pub tss_base: u64,
    /// Limit of the TSS (it includes the I/O permission bitmap).
    pub tss_limit: u64,
}

impl Ring3Note {
    /// Length of the encoded descriptor, the version included.
    pub const LEN_BYTES: usize = 72;

    /// Decodes a note descriptor; `None` if it is too short or of another version.
    #[must_use]
    pub fn decode(desc: &[u8]) -> Option<Self> {
        let mut words = [0u64; 9];
        if desc.len() < Self::LEN_BYTES {
            return None;
        }
        for (word, bytes) in words.iter_mut().zip(desc.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let [
            version,
            entry,
            stack_top,
            page_table,
            gdt_base,
            gdt_limit,
            idt_base,
            tss_base,
            tss_limit,
        ] = words;
        (version == RING3_VERSION).then_some(Self {
            entry,
            stack_top,
            page_table,
            gdt_base,
            gdt_limit,
            idt_base,
            tss_base,
            tss_limit,
        })
    }
}
