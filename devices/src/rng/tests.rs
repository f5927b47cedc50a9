//! Entropy for a mock driver, honest and hostile.

use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::{MAX_REQUEST_BYTES, serve};
use crate::fault::Fault;
use crate::mock::{self, Driver, readable, writable};

const SIZE: u16 = 8;

fn sevens(bytes: &mut [u8]) -> usize {
    bytes.fill(7);
    bytes.len()
}

#[test]
fn a_buffer_is_filled_across_its_pieces_and_no_further() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let head = driver.post(&[writable(0x5000, 3), writable(0x6000, 5)]);
    let mut queue = driver.queue();
    assert!(serve(&mem, &mut queue, sevens).unwrap());
    assert!(!serve(&mem, &mut queue, sevens).unwrap());
    assert_eq!(driver.used(), Some((head.into(), 8)));
    let mut seen = [0; 8];
    mem.read_slice(&mut seen[..4], GuestAddress(0x5000)).unwrap();
    mem.read_slice(&mut seen[4..], GuestAddress(0x6002)).unwrap();
    assert_eq!(seen, [7, 7, 7, 0, 7, 7, 7, 0]);
}

#[test]
fn a_request_is_bounded_however_large_its_buffer() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post(&[writable(0x5000, 0x8000)]);
    assert!(serve(&mem, &mut driver.queue(), sevens).unwrap());
    let most = u32::try_from(MAX_REQUEST_BYTES).unwrap();
    assert_eq!(driver.used().map(|(_, len)| len), Some(most));
}

#[test]
fn a_buffer_that_cannot_take_entropy_is_a_fault() {
    let mem = mock::memory(0x10000);
    for (chain, name) in [
        (vec![readable(0x5000, 8)], "readable"),
        (vec![readable(0x5000, 8), writable(0x6000, 8)], "half readable"),
        (vec![writable(0x5000, 0)], "empty"),
        (vec![writable(0x2_0000, 8)], "outside of memory"),
    ] {
        let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
        driver.post(&chain);
        let served = serve(&mem, &mut driver.queue(), sevens);
        assert!(
            matches!(
                served,
                Err(Fault::Direction { .. } | Fault::Length { .. } | Fault::OutsideMemory(_))
            ),
            "{name}"
        );
    }
}

proptest! {
    /// All that a guest can write is random; the device serves or fails, and ends.
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
        let served = (0..64).take_while(|_| serve(&mem, &mut queue, sevens).unwrap_or(false));
        prop_assert!(served.count() < 64);
    }
}
