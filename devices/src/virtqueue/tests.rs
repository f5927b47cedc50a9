//! Chains that drivers post, and chains that no driver would.

use proptest::prelude::*;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT};
use virtio_queue::QueueT;

use super::*;
use crate::mock::{self, Driver, readable, writable};

const SIZE: u16 = 16;

#[test]
fn a_chain_is_read_in_order_and_split_by_direction() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let posted = [readable(0x5000, 16), readable(0x6000, 100), writable(0x7000, 1)];
    let head = driver.post(&posted);
    let mut queue = driver.queue();

    let chain = next_chain(&mem, &mut queue, 0).unwrap().unwrap();
    assert_eq!((chain.head, chain.descriptors.as_slice()), (head, &posted[..]));
    let (readable, writable) = chain.split().unwrap();
    assert_eq!((len_bytes(readable), len_bytes(writable)), (116, 1));
    assert!(next_chain(&mem, &mut queue, 1).unwrap().is_none());
}

#[test]
fn an_indirect_chain_is_read_like_a_direct_one() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let posted = [readable(0x5000, 16), writable(0x7000, 512), writable(0x8000, 1)];
    driver.post_indirect(0x4000, &posted);
    let chain = next_chain(&mem, &mut driver.queue(), 0).unwrap().unwrap();
    assert_eq!(chain.descriptors.as_slice(), &posted[..]);
}

#[test]
fn zero_length_descriptors_are_left_out() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post(&[readable(0x5000, 0), readable(0x5000, 4), writable(0, 0)]);
    let chain = next_chain(&mem, &mut driver.queue(), 0).unwrap().unwrap();
    assert_eq!(chain.descriptors.as_slice(), &[readable(0x5000, 4)]);
}

#[test]
fn a_readable_descriptor_after_a_writable_one_has_no_split() {
    let chain = Chain {
        head: 0,
        descriptors: [readable(0, 1), writable(0, 1), readable(0, 1)].into_iter().collect(),
    };
    assert!(chain.split().is_none());
}

/// Takes the only chain of a ring whose descriptor 0 is the given one.
fn take(
    descriptor: Descriptor,
    flags: u32,
    next: u16,
    head: u16,
) -> Result<Option<Chain>, QueueError> {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.write_descriptor(0, 0, descriptor, flags, next);
    driver.make_available(head);
    next_chain(&mem, &mut driver.queue(), 0)
}

#[test]
fn a_loop_breaks_the_ring() {
    let taken = take(readable(0x5000, 4), VRING_DESC_F_NEXT, 0, 0);
    assert!(matches!(taken, Err(QueueError::BrokenChain { head: 0, read: 16 })));
}

#[test]
fn a_link_out_of_the_table_breaks_the_ring() {
    let taken = take(readable(0x5000, 4), VRING_DESC_F_NEXT, SIZE, 0);
    assert!(matches!(taken, Err(QueueError::BrokenChain { head: 0, read: 1 })));
}

#[test]
fn a_head_out_of_the_table_breaks_the_ring() {
    let taken = take(readable(0x5000, 4), 0, 0, SIZE);
    assert!(matches!(taken, Err(QueueError::HeadOutOfRange { head: SIZE, size: SIZE })));
}

#[test]
fn an_indirect_table_outside_memory_or_of_odd_length_breaks_the_ring() {
    for table in [readable(0x1000_0000, 32), readable(0x5000, 17), readable(0x5000, 0)] {
        let taken = take(table, VRING_DESC_F_INDIRECT, 0, 0);
        assert!(matches!(taken, Err(QueueError::BrokenChain { .. })), "{table:?}: {taken:?}");
    }
}

#[test]
fn an_indirect_table_in_an_indirect_table_breaks_the_ring() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.write_descriptor(0x5000, 0, readable(0x5000, 16), VRING_DESC_F_INDIRECT, 0);
    driver.write_descriptor(0, 0, readable(0x5000, 16), VRING_DESC_F_INDIRECT, 0);
    driver.make_available(0);
    let taken = next_chain(&mem, &mut driver.queue(), 0);
    assert!(matches!(taken, Err(QueueError::BrokenChain { .. })));
}

#[test]
fn an_indirect_table_of_thousands_breaks_the_ring_before_it_is_read() {
    let mem = mock::memory(0x20000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post_indirect(0x4000, &[readable(0x5000, 1); 1026]);
    driver.post_indirect(0x4000, &[readable(0x5000, 1); 4000]);
    let mut queue = driver.queue();
    let broken = next_chain(&mem, &mut queue, 0);
    assert!(matches!(broken, Err(QueueError::BrokenChain { read: 1026, .. })), "{broken:?}");
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post_indirect(0x4000, &[readable(0x5000, 1); 1026]);
    let chain = next_chain(&mem, &mut driver.queue(), 0).unwrap().unwrap();
    assert_eq!(chain.descriptors.len(), 1026);
}

#[test]
fn more_than_four_gigabytes_in_a_chain_break_the_ring() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post(&[readable(0, u32::MAX), readable(0, u32::MAX)]);
    assert!(matches!(
        next_chain(&mem, &mut driver.queue(), 0),
        Err(QueueError::BrokenChain { .. })
    ));
}

#[test]
fn an_available_index_far_ahead_breaks_the_ring() {
    let mem = mock::memory(0x10000);
    let driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    mem.write_obj(SIZE + 1, GuestAddress(driver.addresses()[1] + 2)).unwrap();
    assert!(matches!(next_chain(&mem, &mut driver.queue(), 0), Err(QueueError::Queue(_))));
}

#[test]
fn a_driver_that_reposts_chains_in_flight_breaks_the_ring() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post(&[readable(0x5000, 4)]);
    let taken = next_chain(&mem, &mut driver.queue(), u32::from(SIZE));
    assert!(matches!(taken, Err(QueueError::TooManyInFlight(SIZE))));
}

#[test]
fn a_ring_that_was_never_set_up_is_an_error() {
    let mem = mock::memory(0x10000);
    let mut queue = Queue::new(SIZE).unwrap();
    assert!(matches!(next_chain(&mem, &mut queue, 0), Err(QueueError::Queue(_))));
}

#[test]
fn chains_returned_together_are_seen_together() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, 4);
    let mut queue = driver.queue();
    for turn in 0..3_u32 {
        add_used_together(&mem, &mut queue, &[(1, turn), (2, 20), (3, 30)]).unwrap();
        let seen: Vec<_> = std::iter::from_fn(|| driver.used()).collect();
        assert_eq!(seen, [(1, turn), (2, 20), (3, 30)]);
    }
    add_used_together(&mem, &mut queue, &[]).unwrap();
    assert!(driver.used().is_none());
}

#[test]
fn chains_that_are_put_back_come_again() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let (first, _) = (driver.post(&[readable(0x5000, 1)]), driver.post(&[readable(0x5000, 2)]));
    let mut queue = driver.queue();
    for _ in 0..2 {
        next_chain(&mem, &mut queue, 0).unwrap().unwrap();
    }
    put_back(&mut queue, 2);
    assert_eq!(next_chain(&mem, &mut queue, 0).unwrap().unwrap().head, first);
}

#[test]
fn ranges_are_cut_at_byte_offsets_wherever_descriptors_end() {
    let mem = mock::memory(0x10000);
    let descriptors = [readable(0x5000, 10), readable(0x6000, 10), readable(0x7000, 10)];
    let cut = buffers(&mem, &descriptors, 5, 20).unwrap();
    let lens: Vec<usize> = cut.segments().iter().map(|segment| segment.len).collect();
    assert_eq!((lens.as_slice(), cut.len_bytes()), (&[5, 10, 5][..], 20));
    assert!(buffers(&mem, &[readable(u64::MAX, 10)], 5, 5).is_err());
    assert!(buffers(&mem, &[readable(0xfff8, 16)], 0, 16).is_err());
    assert!(buffers(&mem, &[readable(0xfff8, 16)], 0, 8).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// All that a guest can write is random; nothing panics, loops, or leaves the memory.
    #[test]
    fn random_rings_never_panic_nor_loop(
        bytes in proptest::collection::vec(any::<u8>(), 0x3000),
        available in 0_u16..=SIZE,
    ) {
        let mem = mock::memory(0x4000);
        mem.write_slice(&bytes, GuestAddress(0)).unwrap();
        let driver = Driver::new(Arc::clone(&mem), 0, SIZE);
        mem.write_obj(available, GuestAddress(driver.addresses()[1] + 2)).unwrap();
        let mut queue = driver.queue();
        for taken in 0..=u32::from(SIZE) {
            let Ok(Some(chain)) = next_chain(&mem, &mut queue, taken) else { break };
            prop_assert!(chain.descriptors.len() <= usize::from(u16::MAX));
            let _ = buffers(&mem, &chain.descriptors, 0, u64::MAX);
            add_used(&mem, &mut queue, chain.head, 0).unwrap();
        }
    }
}
