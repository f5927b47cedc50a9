//! Memory comes back to the host: measured on the memfd.

use std::os::unix::fs::MetadataExt;

use moirai_devices::balloon::PAGE_BYTES;
use moirai_devices::balloon::stats::Stats;
use moirai_devices::memory::GuestMemory;
use moirai_devices::mock::{readable, writable};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::{BUFFER, Guest, wait};
use moirai_launch::OwnDevice;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATS: usize = 2;
/// Where Linux has it.
const REPORTING: usize = 3;
/// Memory to play with.
const START: u64 = 0x40_0000;
const PAGES: u64 = 64;

/// Bytes of guest memory that the kernel has allocated.
fn allocated(mem: &GuestMemory) -> u64 {
    let region = mem.iter().next().unwrap();
    region.file_offset().unwrap().file().metadata().unwrap().blocks() * 512
}

fn fill(mem: &GuestMemory) {
    let bytes = vec![7; usize::try_from(PAGES * PAGE_BYTES).unwrap()];
    mem.write_slice(&bytes, GuestAddress(START)).unwrap();
}

fn byte(mem: &GuestMemory, page: u64) -> u8 {
    mem.read_obj(GuestAddress(START + page * PAGE_BYTES)).unwrap()
}

/// Posts the numbers of every second page to a queue and waits for them to be taken.
fn post_pages(guest: &mut Guest, queue: usize) {
    let first = u32::try_from(START / PAGE_BYTES).unwrap();
    let numbers = (0..u32::try_from(PAGES).unwrap()).step_by(2).map(|page| first + page);
    let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    guest.mem.write_slice(&bytes, GuestAddress(BUFFER)).unwrap();
    let len = u32::try_from(bytes.len()).unwrap();
    guest.drivers[queue].post(&[readable(BUFFER, len)]);
    guest.kick(queue);
    guest.used(queue);
}

#[test]
fn an_inflated_balloon_gives_memory_back_and_a_page_used_again_is_zero() {
    let (mut guest, _own) = Guest::new(OwnDevice::Balloon, Vec::new());
    fill(&guest.mem);
    guest.mem.write_slice(&[0; 4096], GuestAddress(BUFFER)).unwrap();
    let before = allocated(&guest.mem);
    post_pages(&mut guest, INFLATE);
    let given_back = PAGES / 2 * PAGE_BYTES;
    assert_eq!(allocated(&guest.mem), before - given_back);
    post_pages(&mut guest, DEFLATE);
    assert_eq!(allocated(&guest.mem), before - given_back, "nothing comes before it is used");
    assert_eq!((byte(&guest.mem, 0), byte(&guest.mem, 1)), (0, 7));
    guest.mem.write_obj(1_u8, GuestAddress(START)).unwrap();
    assert!(allocated(&guest.mem) > before - given_back);
}

#[test]
fn reported_pages_are_given_back() {
    let (mut guest, _own) = Guest::new(OwnDevice::Balloon, Vec::new());
    fill(&guest.mem);
    let before = allocated(&guest.mem);
    let free = u32::try_from(PAGES / 2 * PAGE_BYTES).unwrap();
    guest.drivers[REPORTING].post(&[writable(START, free)]);
    guest.kick(REPORTING);
    guest.used(REPORTING);
    assert_eq!(allocated(&guest.mem), before - u64::from(free));
    assert_eq!((byte(&guest.mem, 0), byte(&guest.mem, PAGES - 1)), (0, 7));
}

#[test]
fn the_host_sets_a_target_and_hears_what_became_of_it() {
    let (mut guest, own) = Guest::new(OwnDevice::Balloon, Vec::new());
    let balloon = own.balloon.unwrap();
    balloon.set_target(10 * PAGE_BYTES);
    wait(guest.part.events.interrupts().last().unwrap());
    let mut config = [0; 8];
    guest.part.backend.read_config(0, &mut config);
    assert_eq!(config, [10, 0, 0, 0, 0, 0, 0, 0]);
    guest.part.backend.write_config(4, &7_u32.to_le_bytes());
    assert_eq!(balloon.actual_bytes(), 7 * PAGE_BYTES);

    guest.mem.write_obj(4_u16, GuestAddress(BUFFER)).unwrap();
    guest.mem.write_obj(1234_u64, GuestAddress(BUFFER + 2)).unwrap();
    guest.drivers[STATS].post(&[readable(BUFFER, 10)]);
    guest.kick(STATS);
    // Asking returns the buffer, once the device has it.
    while guest.drivers[STATS].used().is_none() {
        let _ = balloon.stats();
        std::thread::yield_now();
    }
    let expected = Stats { free_bytes: Some(1234), ..Stats::default() };
    assert_eq!(balloon.stats(), expected);
    guest.part.backend.stop().unwrap();
    assert_eq!(balloon.actual_bytes(), 0);
}
