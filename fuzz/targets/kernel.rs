//! Kernels: ELF and bzImage.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use libfuzzer_sys::fuzz_target;
use moirai_launch::{Boot, Transport};
use moirai_vmm::boot::{Guest, load};
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{GuestAddress, GuestMemoryMmap};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let image = File::from(memfd_create("image", MemfdFlags::CLOEXEC).expect("memfd"));
    image.write_all_at(bytes, 0).expect("written");
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 4 << 20)]);
    let memory = memory.expect("memory");
    let boot = [Boot::Auto, Boot::Pvh, Boot::Ring3][usize::from(choice % 3)];
    let transport = if choice & 4 == 0 { Transport::Mmio } else { Transport::Pci };
    let initrd = (choice & 8 != 0).then_some(&image);
    let cmdline = "word=1";
    let guest = Guest { image: &image, initrd, boot, cmdline, vcpus: 2, transport, devices: 3 };
    let _ = load(&guest, &memory);
});
