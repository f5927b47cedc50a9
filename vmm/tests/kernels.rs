//! Linux kernels and what comes with them: bzImages that cannot be booted, initrds that do not fit,
//! command lines that are too long. Each broken rule is an error of its own.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::fs::File;

use moirai_abi::machine::VIRTIO_MMIO_MAX;
use moirai_launch::{Boot, LaunchSpec, Sandbox, Stage, ToHost, Transport};
use moirai_vmm::acpi;
use moirai_vmm::boot::bzimage::{BzImageError, Header};
use moirai_vmm::boot::file::ReadError;
use moirai_vmm::boot::start_info::START_INFO;
use moirai_vmm::boot::zero_page::ZERO_PAGE;
use moirai_vmm::boot::{Entry, Guest, ImageError, load};
use proptest::prelude::{any, proptest};
use support::image::{Notes, image};
use support::{Tenant, file, spec};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY_BYTES: usize = 8 << 20;
const START: u64 = 0x20_0000;
const INIT_SIZE: u32 = 0x10_0000;
const SETUP_SECTORS: u8 = 2;
const KERNEL_OFFSET: usize = (SETUP_SECTORS as usize + 1) * 512;
const KERNEL_BYTES: u32 = 64 << 10;

/// A bzImage without a kernel in it that could run.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; KERNEL_OFFSET + KERNEL_BYTES as usize];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[SETUP_SECTORS]);
    put(0x1f4, &(KERNEL_BYTES / 16).to_le_bytes());
    put(0x1fe, &0xaa55u16.to_le_bytes());
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &START.to_le_bytes());
    put(0x260, &INIT_SIZE.to_le_bytes());
    put(KERNEL_OFFSET, b"the kernel");
    file
}

/// A good bzImage with `bytes` written over it at `at`.
fn spoiled(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = bzimage();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap()
}

fn guest(image: &File) -> Guest<'_> {
    Guest {
        image,
        initrd: None,
        boot: Boot::Auto,
        cmdline: "console=ttyS0",
        vcpus: 1,
        transport: Transport::Mmio,
        devices: 0,
    }
}

fn load_bytes(bytes: &[u8]) -> Result<Entry, ImageError> {
    load(&guest(&file(bytes)), &memory())
}

fn text_at(memory: &GuestMemoryMmap, address: u64) -> String {
    let mut text = [0; 2048];
    memory.read_slice(&mut text, GuestAddress(address)).unwrap();
    let end = text.iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8_lossy(&text[..end]).into_owned()
}

#[test]
fn a_bzimage_is_entered_in_long_mode_where_it_wants_to_be() {
    let (memory, image) = (memory(), file(&bzimage()));
    let initrd = file(&[0x55; 5000]);
    let guest = Guest { initrd: Some(&initrd), ..guest(&image) };
    assert_eq!(load(&guest, &memory).unwrap(), Entry::Linux64(START + 0x200));
    assert_eq!(text_at(&memory, START), "the kernel");
    let word = |at| u64::from(memory.read_obj::<u32>(GuestAddress(ZERO_PAGE + at)).unwrap());
    assert_eq!(text_at(&memory, word(0x228)), "console=ttyS0", "no words for devices");
    assert_eq!(word(0x070), acpi::RSDP);
    assert_eq!(
        text_at(&memory, acpi::RSDP),
        "RSD PTR ".to_owned() + &text_at(&memory, acpi::RSDP + 8)
    );
    let (start, size) = (word(0x218), word(0x21c));
    assert_eq!((start, size), (MEMORY_BYTES as u64 - 8192, 5000), "as high as it fits");
    assert_eq!(memory.read_obj::<u8>(GuestAddress(start + size - 1)).unwrap(), 0x55);
}

#[test]
fn a_bzimage_that_cannot_be_entered_is_refused() {
    let cases = [
        (0x206, &[0x0b, 2][..], BzImageError::OldProtocol(0x20b)),
        (0x201, &[0x10], BzImageError::ShortHeader(0x212)),
        (0x211, &[0], BzImageError::NotHigh),
        (0x258, &[0; 8], BzImageError::NotHigh),
        (0x236, &[0, 0], BzImageError::No64BitEntry),
        (0x1f4, &[0; 4], BzImageError::Empty),
    ];
    for (at, bytes, expected) in cases {
        match load_bytes(&spoiled(at, bytes)).unwrap_err() {
            ImageError::BzImage(error) => assert_eq!(error, expected),
            error => panic!("{expected:?} expected: {error}"),
        }
    }
    for at in [0x1fe, 0x202] {
        let error = load_bytes(&spoiled(at, &[0])).unwrap_err();
        assert!(matches!(error, ImageError::NotAKernel(_)), "byte {at:#x}: {error}");
    }
}

#[test]
fn a_bzimage_that_says_it_is_longer_than_its_file_is_truncated() {
    // 256 sectors of setup code; a kernel of 64 GiB; and a file cut short.
    let short = bzimage()[..KERNEL_OFFSET + KERNEL_BYTES as usize - 1].to_vec();
    for bytes in [spoiled(0x1f1, &[0xff]), short] {
        let error = load_bytes(&bytes).unwrap_err();
        assert!(matches!(error, ImageError::Read(ReadError::Truncated { .. })), "{error}");
    }
    let error = load_bytes(&spoiled(0x1f4, &[0xff; 4])).unwrap_err();
    assert!(matches!(error, ImageError::KernelOutsideMemory { .. }), "{error}");
    for len in [4, 0x1f0, 0x28f] {
        let error = load_bytes(&bzimage()[..len]).unwrap_err();
        assert!(matches!(error, ImageError::NotAKernel(_)), "{len}: {error}");
    }
}

#[test]
fn a_kernel_that_needs_more_memory_than_there_is_says_how_much() {
    for (at, bytes) in [
        (0x260, 0x80_0000u32.to_le_bytes().to_vec()),
        (0x258, 0xd000_0000u64.to_le_bytes().to_vec()),
        (0x258, u64::MAX.to_le_bytes().to_vec()),
    ] {
        let error = load_bytes(&spoiled(at, &bytes)).unwrap_err();
        assert!(matches!(error, ImageError::KernelOutsideMemory { .. }), "{error}");
        assert!(error.hint().contains("more memory"));
    }
}

#[test]
fn an_initrd_that_does_not_fit_is_refused_with_the_room_there_is() {
    let images = [bzimage(), image(&[0xf4], Notes::Pvh), image(&[0xf4], Notes::Ring3)];
    for bytes in images {
        let (image, initrd) = (file(&bytes), file(&vec![1; MEMORY_BYTES]));
        let error = load(&Guest { initrd: Some(&initrd), ..guest(&image) }, &memory()).unwrap_err();
        match error {
            ImageError::InitrdTooBig { size_bytes, room_bytes } => {
                assert_eq!(size_bytes, MEMORY_BYTES as u64);
                assert!((1..MEMORY_BYTES as u64).contains(&room_bytes));
            }
            error => panic!("{error}"),
        }
    }
}

#[test]
fn an_initrd_lies_below_what_the_kernel_can_reach() {
    let image = file(&spoiled(0x22c, &0x3f_ffffu32.to_le_bytes()));
    let (memory, initrd) = (memory(), file(&[1; 4096]));
    load(&Guest { initrd: Some(&initrd), ..guest(&image) }, &memory).unwrap();
    let start: u32 = memory.read_obj(GuestAddress(ZERO_PAGE + 0x218)).unwrap();
    assert_eq!(start, 0x3f_f000);
}

#[test]
fn an_initrd_that_cannot_be_read_is_told_from_a_bad_image() {
    let (image, folder) = (file(&bzimage()), File::open("/").unwrap());
    let error = load(&Guest { initrd: Some(&folder), ..guest(&image) }, &memory()).unwrap_err();
    assert!(matches!(error, ImageError::InitrdRead(ReadError::Io { .. })), "{error}");
    assert!(error.to_string().starts_with("the initrd "), "{error}");
}

#[test]
fn a_command_line_is_as_long_as_the_kernel_takes() {
    let image = file(&spoiled(0x238, &100u32.to_le_bytes()));
    let (longest, longer) = ("x".repeat(100), "x".repeat(101));
    load(&Guest { cmdline: &longest, ..guest(&image) }, &memory()).unwrap();
    let error = load(&Guest { cmdline: &longer, ..guest(&image) }, &memory()).unwrap_err();
    assert!(matches!(error, ImageError::CmdlineTooLong { len: 101, max: 100 }), "{error}");
}

#[test]
fn a_kernel_that_cannot_say_how_long_its_command_line_may_be_gets_no_more_than_linux_takes() {
    let line = "x".repeat(2048 - " virtio_mmio.device=4K@0xd0000000:5".len());
    let enter = |notes, devices| {
        let image = file(&image(&[0xf4], notes));
        load(&Guest { cmdline: &line, devices, ..guest(&image) }, &memory())
    };
    assert!(enter(Notes::Pvh, 0).is_ok());
    let error = enter(Notes::Pvh, 1).unwrap_err();
    assert!(matches!(error, ImageError::CmdlineTooLong { len: 2048, max: 2047 }), "{error}");
    assert!(enter(Notes::Ring3, 1).is_ok());
}

#[test]
fn a_bzimage_has_only_its_own_way_to_be_entered() {
    let image = file(&bzimage());
    let enter = |boot| load(&Guest { boot, ..guest(&image) }, &memory());
    assert!(matches!(enter(Boot::Pvh), Err(ImageError::NoPvhNote)));
    assert!(matches!(enter(Boot::Ring3), Err(ImageError::NoRing3Note)));
}

#[test]
fn devices_are_named_on_the_command_line_where_nothing_else_names_them() {
    let words = |bytes: &[u8], initrd: bool, transport| {
        let (memory, image, content) = (memory(), file(bytes), file(b"initrd"));
        let initrd = initrd.then_some(&content);
        let guest = Guest { initrd, transport, devices: VIRTIO_MMIO_MAX, ..guest(&image) };
        load(&guest, &memory).map(|_| {
            let line: u64 = memory.read_obj(GuestAddress(START_INFO + 24)).unwrap();
            text_at(&memory, line).matches("virtio_mmio.device=").count()
        })
    };
    let (pvh, ring3) = (image(&[0xf4], Notes::Pvh), image(&[0xf4], Notes::Ring3));
    assert_eq!(words(&pvh, false, Transport::Mmio).unwrap(), VIRTIO_MMIO_MAX);
    assert_eq!(words(&ring3, false, Transport::Mmio).unwrap(), VIRTIO_MMIO_MAX);
    assert_eq!(words(&pvh, true, Transport::Mmio).unwrap(), 0, "a distribution's kernel");
    assert_eq!(words(&pvh, false, Transport::Pci).unwrap(), 0);
    assert!(matches!(words(&ring3, false, Transport::Pci), Err(ImageError::Ring3OnPci)));
}

#[test]
fn a_library_os_sees_no_acpi() {
    let rsdp = |notes| {
        let (memory, image) = (memory(), file(&image(&[0xf4], notes)));
        load(&guest(&image), &memory).unwrap();
        let told: u64 = memory.read_obj(GuestAddress(START_INFO + 32)).unwrap();
        (told, memory.read_obj::<u64>(GuestAddress(acpi::RSDP)).unwrap())
    };
    assert_eq!(rsdp(Notes::Ring3), (0, 0));
    assert_eq!(rsdp(Notes::Pvh), (acpi::RSDP, u64::from_le_bytes(*b"RSD PTR ")));
}

#[test]
fn a_kernel_that_does_not_fit_is_reported_with_what_to_do() {
    let sandbox = Sandbox::default();
    let small = LaunchSpec { memory_bytes: 2 << 20, sandbox, ..spec() };
    let tenant = Tenant::launch(&small, file(&bzimage()));
    match tenant.message() {
        ToHost::Failed { stage: Stage::Image, error, hint } => {
            assert!(error.contains("0x200000..0x300000"), "{error}");
            assert!(hint.contains("more memory"), "{hint}");
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn no_bytes_harm_the_parser_of_setup_headers(
        bytes in proptest::collection::vec(any::<u8>(), 0..0x300),
    ) {
        let _ = Header::parse(&bytes);
        let _ = load_bytes(&bytes);
    }

    #[test]
    fn no_damage_to_a_setup_header_harms_the_loader(
        damage in proptest::collection::vec((0x1f1usize..0x268, any::<u8>()), 1..12),
    ) {
        let mut bytes = bzimage();
        for (at, value) in damage {
            bytes[at] = value;
        }
        let _ = load_bytes(&bytes);
    }
}
