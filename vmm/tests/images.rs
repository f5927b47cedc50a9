//! Images that cannot be booted, and why: each broken rule is an error of its own.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::fs::File;

use moirai_launch::{Boot, Transport};
use moirai_vmm::boot::elf::{Loaded, load};
use moirai_vmm::boot::file::ReadError;
use moirai_vmm::boot::{self, Entry, Guest, ImageError};
use proptest::prelude::{any, proptest};
use support::file;
use support::image::{BASE, Notes, elf, image};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY_BYTES: usize = 4 << 20;

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap()
}

fn load_bytes(bytes: &[u8]) -> Result<Loaded, ImageError> {
    load(&file(bytes), &memory())
}

/// A guest of this image and nothing else.
fn guest(image: &File, boot: Boot) -> Guest<'_> {
    let (initrd, cmdline, transport) = (None, "word=1", Transport::Mmio);
    Guest { image, initrd, boot, cmdline, vcpus: 1, transport, devices: 0 }
}

/// A good image with `bytes` written over it at `at`.
fn spoiled(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = image(&[0xf4], Notes::Both);
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

/// Offset of a field of the header of the loadable segment (the notes come first).
const fn segment_field(field: usize) -> usize {
    64 + 56 + field
}

#[test]
fn segments_and_notes_of_a_good_image_are_found() {
    let memory = memory();
    let loaded = load(&file(&image(&[0xf4, 0x90], Notes::Both)), &memory).unwrap();
    assert_eq!(loaded.pvh_entry, Some(0x10_9000));
    assert_eq!(loaded.ring3.unwrap().entry, 0x10_9000);
    let code: [u8; 2] = memory.read_obj(GuestAddress(BASE + 0x9000)).unwrap();
    assert_eq!(code, [0xf4, 0x90]);
}

#[test]
fn the_entry_is_chosen_by_the_notes_and_the_launch() {
    let enter = |notes, boot| boot::load(&guest(&file(&image(&[0xf4], notes)), boot), &memory());
    assert!(matches!(enter(Notes::Both, Boot::Auto), Ok(Entry::Ring3(_))));
    assert!(matches!(enter(Notes::Both, Boot::Pvh), Ok(Entry::Pvh(0x10_9000))));
    assert!(matches!(enter(Notes::Pvh, Boot::Auto), Ok(Entry::Pvh(_))));
    assert!(matches!(enter(Notes::Pvh, Boot::Ring3), Err(ImageError::NoRing3Note)));
    assert!(matches!(enter(Notes::Ring3, Boot::Pvh), Err(ImageError::NoPvhNote)));
    assert!(matches!(enter(Notes::Neither, Boot::Auto), Err(ImageError::NoEntry)));
}

#[test]
fn a_file_that_is_no_elf_is_refused() {
    assert!(matches!(load_bytes(&[0; 4096]), Err(ImageError::WrongKind(_))));
}

#[test]
fn a_truncated_image_is_refused_wherever_it_ends() {
    let whole = image(&[0xf4], Notes::Both);
    for len in (0..whole.len()).step_by(37) {
        let error = load_bytes(&whole[..len]).unwrap_err();
        assert!(matches!(error, ImageError::Read(ReadError::Truncated { .. })), "{len}: {error}");
    }
}

#[test]
fn an_executable_for_something_else_is_refused() {
    for (at, value) in [(4, 1), (5, 2), (6, 9), (16, 3), (18, 183)] {
        let error = load_bytes(&spoiled(at, &[value])).unwrap_err();
        assert!(matches!(error, ImageError::WrongKind(_)), "byte {at}: {error}");
    }
}

#[test]
fn an_impossible_table_of_program_headers_is_refused() {
    for (at, value) in [(54, [0, 0]), (54, [57, 0]), (56, [0, 0]), (56, [0xff, 0xff])] {
        let error = load_bytes(&spoiled(at, &value)).unwrap_err();
        assert!(matches!(error, ImageError::BadHeaders { .. }), "{error}");
    }
    let error = load_bytes(&spoiled(32, &u64::MAX.to_le_bytes())).unwrap_err();
    // A file cannot be read there; the kernel says so in its own way.
    assert!(
        matches!(
            error,
            ImageError::Read(ReadError::Truncated { .. }) | ImageError::Read(ReadError::Io { .. })
        ),
        "{error}"
    );
}

#[test]
fn a_segment_outside_memory_is_refused() {
    for address in [MEMORY_BYTES as u64 - 16, 0xd000_0000, 1 << 63] {
        let error = load_bytes(&spoiled(segment_field(24), &address.to_le_bytes())).unwrap_err();
        assert!(matches!(error, ImageError::OutsideMemory { index: 1, .. }), "{error}");
    }
}

#[test]
fn a_segment_with_impossible_sizes_is_refused() {
    let cases = [
        // More in the file than in memory; an end beyond the address space, in memory and in file.
        (40, 16),
        (24, u64::MAX - 4),
        (8, u64::MAX - 4),
    ];
    for (field, value) in cases {
        let error = load_bytes(&spoiled(segment_field(field), &value.to_le_bytes())).unwrap_err();
        assert!(matches!(error, ImageError::BadSegment { index: 1 }), "field {field}: {error}");
    }
}

#[test]
fn segments_that_overlap_each_other_or_the_boot_area_are_refused() {
    let overlapping = elf(&[(BASE, &[0; 64]), (BASE + 63, &[0; 64])], &[]);
    assert!(matches!(load_bytes(&overlapping), Err(ImageError::Overlap { index: 2, .. })));
    let adjacent = elf(&[(BASE, &[0; 64]), (BASE + 64, &[0; 64])], &[]);
    assert!(load_bytes(&adjacent).is_ok());
    let on_start_info = elf(&[(0x5fff, &[0; 64])], &[]);
    assert!(matches!(load_bytes(&on_start_info), Err(ImageError::Overlap { index: 1, .. })));
}

#[test]
fn an_image_without_segments_is_refused() {
    assert!(matches!(load_bytes(&elf(&[], &[])), Err(ImageError::NoSegments)));
}

#[test]
fn endless_notes_are_refused() {
    let notes = vec![0; 128 << 10];
    let error = load_bytes(&elf(&[(BASE, &[0])], &notes)).unwrap_err();
    assert!(matches!(error, ImageError::LongNotes(_)), "{error}");
}

#[test]
fn a_directory_is_no_image() {
    let error = load(&File::open("/").unwrap(), &memory()).unwrap_err();
    assert!(matches!(error, ImageError::Read(ReadError::Io { .. })), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_harm_the_loader(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = load_bytes(&bytes);
    }

    #[test]
    fn no_damage_to_an_image_harms_the_loader(
        damage in proptest::collection::vec((0usize..400, any::<u8>()), 1..12),
    ) {
        let mut bytes = image(&[0xf4], Notes::Both);
        for (at, value) in damage {
            bytes[at] = value;
        }
        let _ = boot::load(&guest(&file(&bytes), Boot::Auto), &memory());
    }
}
