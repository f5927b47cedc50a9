//! What the 64-bit Linux boot protocol wants to find in memory: the zero page (`boot_params`), the
//! command line, identity page tables and a GDT. All of it lies in the [`BOOT_AREA`].

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::bzimage::{HEADER_LIMIT, HEADER_START};
use super::error::ImageError;
use super::memory_map::Kind;
use super::{BOOT_AREA, CMDLINE, MAX_LINE_BYTES};

/// Guest physical address of the GDT that the first vCPU starts with.
pub const GDT: u64 = 0x6000;
/// Limit of that GDT.
pub const GDT_LIMIT: u16 = 4 * 8 - 1;
/// Guest physical address of the zero page.
pub const ZERO_PAGE: u64 = 0x7000;
/// Guest physical address of the root of the page tables.
pub const PAGE_TABLE: u64 = 0xa000;
const PAGE_DIRECTORY_POINTERS: u64 = 0xb000;
const PAGE_DIRECTORIES: u64 = 0xc000;
/// The page tables map the first 4 GiB, which is where kernel, initrd and all of this are.
const DIRECTORIES: u64 = 4;

const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 0x80;
const TABLE_BYTES: u64 = 4096;

/// `type_of_loader`: one without a number of its own.
const UNDEFINED_LOADER: u8 = 0xff;
/// Entries that fit the zero page.
const E820_MAX: usize = 128;

/// What the kernel is to be told.
#[derive(Clone, Debug)]
pub(super) struct Handover<'a> {
    /// The kernel's own setup header.
    pub(super) header: &'a [u8],
    pub(super) cmdline: &'a str,
    pub(super) initrd: Option<Range<u64>>,
    pub(super) map: &'a [(Range<u64>, Kind)],
    /// Address of the ACPI root pointer.
    pub(super) rsdp: u64,
}

/// Writes everything.
///
/// # Errors
/// [`ImageError::StartInfo`] if guest memory is too small for it.
pub(super) fn write(memory: &GuestMemoryMmap, handover: &Handover<'_>) -> Result<(), ImageError> {
    const { assert!(PAGE_DIRECTORIES + DIRECTORIES * TABLE_BYTES <= BOOT_AREA.end) };
    let mut line = handover.cmdline.as_bytes().to_vec();
    line.push(0);
    if line.len() > MAX_LINE_BYTES {
        return Err(ImageError::StartInfo);
    }
    let code = 0x00af_9b00_0000_ffff_u64;
    let data = 0x00cf_9300_0000_ffff_u64;
    let parts = [
        (GDT, le_bytes(&[0, 0, code, data])),
        (ZERO_PAGE, zero_page(handover)?),
        (CMDLINE, line),
        (PAGE_TABLE, page_tables()),
    ];
    for (address, bytes) in parts {
        let written = memory.write_slice(&bytes, GuestAddress(address));
        written.map_err(|_| ImageError::StartInfo)?;
    }
    Ok(())
}

/// The three levels, one after the other.
fn page_tables() -> Vec<u8> {
    let mut tables = vec![PAGE_DIRECTORY_POINTERS | PRESENT_WRITABLE];
    let next_table = |tables: &mut Vec<u64>| tables.resize(tables.len().next_multiple_of(512), 0);
    next_table(&mut tables);
    tables
        .extend((0..DIRECTORIES).map(|n| (PAGE_DIRECTORIES + n * TABLE_BYTES) | PRESENT_WRITABLE));
    next_table(&mut tables);
    tables.extend((0..DIRECTORIES * 512).map(|page| page << 21 | LARGE_PAGE | PRESENT_WRITABLE));
    le_bytes(&tables)
}

fn le_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Offsets are those of `struct boot_params`; the setup header keeps its offsets of the file.
fn zero_page(handover: &Handover<'_>) -> Result<Vec<u8>, ImageError> {
    let mut page = vec![0; 4096];
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(target) = page.get_mut(offset..offset.saturating_add(bytes.len())) {
            target.copy_from_slice(bytes);
        }
    };
    put(
        HEADER_START,
        handover.header.get(..HEADER_LIMIT - HEADER_START).unwrap_or(handover.header),
    );
    put(0x210, &[UNDEFINED_LOADER]);
    put(0x228, &low_half(CMDLINE));
    // setup_data: there is none, whatever the file says.
    put(0x250, &0u64.to_le_bytes());
    put(0x070, &handover.rsdp.to_le_bytes());
    if let Some(initrd) = &handover.initrd {
        let size = initrd.end.saturating_sub(initrd.start);
        put(0x218, &low_half(initrd.start));
        put(0x21c, &low_half(size));
        put(0x0c0, &low_half(initrd.start >> 32));
        put(0x0c4, &low_half(size >> 32));
    } else {
        put(0x218, &[0; 8]);
    }
    let entries = u8::try_from(handover.map.len()).map_err(|_| ImageError::StartInfo)?;
    if usize::from(entries) > E820_MAX {
        return Err(ImageError::StartInfo);
    }
    put(0x1e8, &[entries]);
    for (index, (range, kind)) in handover.map.iter().enumerate() {
        let mut entry = le_bytes(&[range.start, range.end.saturating_sub(range.start)]);
        entry.extend((*kind as u32).to_le_bytes());
        put(0x2d0 + index * entry.len(), &entry);
    }
    Ok(page)
}

fn low_half(value: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = value.to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::{CMDLINE, Handover, Kind, PAGE_TABLE, ZERO_PAGE, write};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    #[test]
    fn the_zero_page_tells_the_kernel_where_everything_is() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        let map = [(0..0x9_fc00, Kind::Ram), (0xe000_0000..0xe010_0000, Kind::Reserved)];
        let handover = Handover {
            header: &[0xee; 0x80],
            cmdline: "console=ttyS0",
            initrd: Some(0xb000_0000..0xb012_3456),
            map: &map,
            rsdp: 0xe_0000,
        };
        write(&memory, &handover).unwrap();
        let at = |offset| GuestAddress(ZERO_PAGE + offset);
        let word = |offset| memory.read_obj::<u32>(at(offset)).unwrap();
        assert_eq!(word(0x1f1), 0xeeee_eeee, "the kernel's own header");
        assert_eq!((word(0x218), word(0x21c)), (0xb000_0000, 0x12_3456));
        assert_eq!((word(0x0c0), word(0x0c4), word(0x0c8)), (0, 0, 0));
        assert_eq!((word(0x070), u64::from(word(0x228))), (0xe_0000, CMDLINE));
        assert_eq!((word(0x250), word(0x254)), (0, 0), "no setup_data");
        assert_eq!(memory.read_obj::<u8>(at(0x1e8)).unwrap(), 2);
        assert_eq!([word(0x2d0), word(0x2d8), word(0x2e0)], [0, 0x9_fc00, 1]);
        assert_eq!([word(0x2e4), word(0x2ec), word(0x2f4)], [0xe000_0000, 0x10_0000, 2]);
        let mut line = [0; 14];
        memory.read_slice(&mut line, GuestAddress(CMDLINE)).unwrap();
        assert_eq!(&line, b"console=ttyS0\0");
    }

    #[test]
    fn the_page_tables_map_four_gibibytes_one_to_one() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        let handover = Handover { header: &[], cmdline: "", initrd: None, map: &[], rsdp: 0 };
        write(&memory, &handover).unwrap();
        let entry = |table: u64, index: u64| -> u64 {
            memory.read_obj(GuestAddress((table & !0xfff) + 8 * index)).unwrap()
        };
        for address in [0, 0x1234_5678_u64, 0xbfff_ffff, 0xffff_ffff] {
            let pointers = entry(PAGE_TABLE, address >> 39);
            let directory = entry(pointers, address >> 30);
            let page = entry(directory, address >> 21 & 511);
            assert_eq!(page, address >> 21 << 21 | 0x83, "{address:#x}");
        }
    }
}
