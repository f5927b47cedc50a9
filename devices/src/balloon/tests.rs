//! A balloon for a mock driver, honest and hostile.

use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::stats::{Stats, StatsQueue};
use super::{FEATURES, Hole, PAGE_BYTES, Role, Size, role, serve, serve_reports};
use crate::fault::Fault;
use crate::mock::{self, Driver, readable, writable};

const SIZE: u16 = 8;
const MEMORY: usize = 0x40000;

fn hole(first: u64, pages: u64) -> Hole {
    Hole { start: GuestAddress(first * PAGE_BYTES), len_bytes: pages * PAGE_BYTES }
}

/// Posts page numbers; returns the holes that the device makes of them.
fn inflate(numbers: &[u32]) -> Result<Vec<Hole>, Fault> {
    let mem = mock::memory(MEMORY);
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    mem.write_slice(&bytes, GuestAddress(0x5000)).unwrap();
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let head = driver.post(&[readable(0x5000, u32::try_from(bytes.len()).unwrap())]);
    let mut holes = Vec::new();
    assert!(serve(&mem, &mut driver.queue(), |some| holes.extend_from_slice(some))?);
    assert_eq!(driver.used(), Some((head.into(), 0)));
    Ok(holes)
}

#[test]
fn pages_that_touch_become_one_hole_from_below_and_from_above() {
    assert_eq!(inflate(&[8, 9, 10]).unwrap(), [hole(8, 3)]);
    assert_eq!(inflate(&[10, 9, 8]).unwrap(), [hole(8, 3)]);
    assert_eq!(inflate(&[8, 20, 21, 7]).unwrap(), [hole(8, 1), hole(20, 2), hole(7, 1)]);
}

#[test]
fn a_page_outside_of_memory_is_a_fault_and_nothing_is_given_back() {
    assert!(matches!(inflate(&[8, u32::MAX]), Err(Fault::OutsideMemory(_))));
}

#[test]
fn lists_without_a_page_or_with_far_too_many_are_faults() {
    let mem = mock::memory(MEMORY);
    for chain in [readable(0x5000, 3), readable(0x5000, 0x8000), writable(0x5000, 4)] {
        let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
        driver.post(&[chain]);
        assert!(serve(&mem, &mut driver.queue(), |_| panic!("served")).is_err(), "{chain:?}");
    }
}

#[test]
fn of_reported_memory_only_whole_pages_are_given_back() {
    let mem = mock::memory(MEMORY);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let head = driver.post(&[writable(0x8000, 0x2000), writable(0xb800, 0x1800), writable(1, 9)]);
    let mut holes = Vec::new();
    let mut queue = driver.queue();
    assert!(serve_reports(&mem, &mut queue, |some| holes.extend_from_slice(some)).unwrap());
    assert_eq!(holes, [hole(8, 2), hole(12, 1)]);
    assert_eq!(driver.used(), Some((head.into(), 0)));
    driver.post(&[readable(0x8000, 0x1000)]);
    assert!(serve_reports(&mem, &mut queue, |_| panic!("served")).is_err());
}

#[test]
fn stats_are_kept_until_fresh_ones_are_wanted() {
    let mem = mock::memory(MEMORY);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let mut queue = driver.queue();
    let mut stats = StatsQueue::default();
    assert!(!stats.ask(&mem, &mut queue).unwrap());
    let write = |at: u64, tag: u16, value: u64| {
        mem.write_obj(tag, GuestAddress(at)).unwrap();
        mem.write_obj(value, GuestAddress(at + 2)).unwrap();
    };
    write(0x5000, 4, 111);
    write(0x500a, 77, 222);
    write(0x5014, 6, 333);
    let head = driver.post(&[readable(0x5000, 30)]);
    assert!(stats.serve(&mem, &mut queue).unwrap());
    let seen = Stats { free_bytes: Some(111), total_bytes: None, available_bytes: Some(333) };
    assert_eq!((stats.latest(), driver.used()), (seen, None));
    assert!(stats.ask(&mem, &mut queue).unwrap());
    assert_eq!(driver.used(), Some((head.into(), 0)));
    assert!(!stats.ask(&mem, &mut queue).unwrap());
}

#[test]
fn linux_may_number_the_reporting_queue_without_a_gap() {
    let roles: Vec<_> = (0..5).filter_map(|index| role(index, FEATURES)).collect();
    let report = Role::Reporting;
    assert_eq!(roles, [Role::Inflate, Role::Deflate, Role::Stats, report, report]);
    assert_eq!(role(2, 0), None);
}

#[test]
fn the_configuration_space_has_the_target_and_what_the_guest_says() {
    let size = Size::default();
    assert!(size.set_target(10 * PAGE_BYTES + 1));
    assert!(!size.set_target(10 * PAGE_BYTES));
    size.write_config(0, &[9; 4]);
    size.write_config(4, &[3, 0, 0, 0]);
    size.write_config(4, &[9; 8]);
    assert_eq!(size.config_space(), [10, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(size.actual_bytes(), 3 * PAGE_BYTES);
    size.reset();
    assert_eq!(size.config_space(), [10, 0, 0, 0, 0, 0, 0, 0]);
}

proptest! {
    /// All that a guest can write is random; every hole lies in memory, and it ends.
    #[test]
    fn random_rings_make_holes_in_guest_memory_only(
        bytes in proptest::collection::vec(any::<u8>(), 0x3000),
        available in 0_u16..=SIZE,
    ) {
        let mem = mock::memory(0x4000);
        mem.write_slice(&bytes, GuestAddress(0)).unwrap();
        let driver = Driver::new(Arc::clone(&mem), 0, SIZE);
        mem.write_obj(available, GuestAddress(driver.addresses()[1] + 2)).unwrap();
        let check = |holes: &[Hole]| {
            for hole in holes {
                assert!(hole.start.0 % PAGE_BYTES == 0 && hole.len_bytes % PAGE_BYTES == 0);
                assert!(hole.start.0 + hole.len_bytes <= 0x4000);
            }
        };
        let mut queue = driver.queue();
        let done = (0..64).take_while(|_| serve(&mem, &mut queue, check).unwrap_or(false));
        prop_assert!(done.count() < 64);
        let mut queue = driver.queue();
        let done = (0..64).take_while(|_| serve_reports(&mem, &mut queue, check).unwrap_or(false));
        prop_assert!(done.count() < 64);
        let (mut queue, mut stats) = (driver.queue(), StatsQueue::default());
        let done = (0..64).take_while(|_| stats.serve(&mem, &mut queue).unwrap_or(false));
        prop_assert!(done.count() < 64);
    }
}
