//! From the first instruction in ring 3 to the application.
//!
//! The application's crate defines `moirai_main` (the `main!` macro of the SDK does); it gets the
//! command line, which lives as long as the machine.
#![allow(unsafe_code, reason = "entry point; reads what the VMM left in memory")]

use crate::args::Args;
use crate::start_info::{MAX_MEMORY_RANGES, MemoryRange, START_INFO_LEN, StartInfo, usable_ranges};
use crate::{clock, console, heap, interrupts, power};
use alloc::string::String;

/// Longest command line that is read.
const COMMAND_LINE_MAX: usize = 4096;

unsafe extern "Rust" {
    safe fn moirai_main(args: Args);
}

/// Called by the shim, in ring 3, with the physical address of the `hvm_start_info`.
#[unsafe(no_mangle)]
extern "C" fn libos_start(start_info: u64) -> ! {
    clock::start();
    console::init();
    let mut command_line = [0; COMMAND_LINE_MAX];
    let mut ranges = [MemoryRange::default(); MAX_MEMORY_RANGES];
    let Some(length) = read_start_info(start_info, &mut command_line, &mut ranges) else {
        panic!("the VMM gave no PVH start information of version 1 in rdi");
    };
    if heap::init(&ranges) == 0 {
        panic!("no usable memory behind the image: give the tenant at least 8 MiB");
    }
    interrupts::init();
    clock::init();
    let words = command_line.get(..length).unwrap_or_default();
    moirai_main(Args::parse(&String::from_utf8_lossy(words)));
    power::off()
}

/// Copies what the start information points to; gives the length of the command line. There is no
/// heap yet, so it all goes to the caller's arrays.
fn read_start_info(
    address: u64,
    command_line: &mut [u8; COMMAND_LINE_MAX],
    ranges: &mut [MemoryRange],
) -> Option<usize> {
    let mut bytes = [0; START_INFO_LEN];
    copy_physical(address, &mut bytes)?;
    let info = StartInfo::parse(&bytes)?;
    let mut map = [0; MAX_MEMORY_RANGES * 24];
    let map = map.get_mut(..info.memory_map_len)?;
    copy_physical(info.memory_map, map)?;
    for (slot, range) in ranges.iter_mut().zip(usable_ranges(map)) {
        *slot = range;
    }
    if info.command_line == 0 {
        return Some(0);
    }
    copy_physical(info.command_line, command_line)?;
    Some(command_line.iter().position(|&byte| byte == 0).unwrap_or(COMMAND_LINE_MAX))
}

/// Copies physical memory; `None` if it is not in the mapped first 4 GiB.
fn copy_physical(address: u64, to: &mut [u8]) -> Option<()> {
    let end = address.checked_add(to.len() as u64)?;
    if address == 0 || end > 1 << 32 {
        return None;
    }
    // SAFETY: the first 4 GiB are mapped one to one. The VMM vouches that RAM is there; if it is
    // not, the read gives zeros or ones, which the parsers refuse. `to` is on our stack, which is
    // inside the image, where the VMM puts nothing.
    unsafe { core::ptr::copy_nonoverlapping(address as *const u8, to.as_mut_ptr(), to.len()) }
    Some(())
}
