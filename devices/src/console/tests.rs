//! A console between a mock driver and a socket pair.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::{Console, MAX_PENDING_BYTES};
use crate::fault::Fault;
use crate::mock::{self, Driver, readable, writable};
use crate::stream::Stream;

const SIZE: u16 = 8;

fn console() -> (Console, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Console::new(Stream::new(ours.into())), theirs)
}

#[test]
fn output_reaches_the_socket_in_order() {
    let mem = mock::memory(0x10000);
    mem.write_slice(b"hello world", GuestAddress(0x5000)).unwrap();
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let head = driver.post(&[readable(0x5000, 6), readable(0x5006, 5)]);
    let (mut console, mut reader) = console();
    assert!(console.transmit(&mem, &mut driver.queue()).unwrap());
    console.emergency_write(b'!');
    let mut seen = [0; 32];
    let read = reader.read(&mut seen).unwrap();
    assert_eq!(&seen[..read], b"hello world!");
    assert_eq!(driver.used(), Some((head.into(), 0)));
}

#[test]
fn a_reader_that_sleeps_costs_output_but_no_memory() {
    let mem = mock::memory(0x20000);
    let (mut console, mut reader) = console();
    for _ in 0..64 {
        let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
        driver.post(&[readable(0x4000, 0x10000)]);
        assert!(console.transmit(&mem, &mut driver.queue()).unwrap());
        console.flush();
        assert!(console.pending.len() <= MAX_PENDING_BYTES);
    }
    assert!(console.dropped_bytes() > 0);
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    while let Ok(read @ 1..) = reader.read(&mut buffer) {
        total += read;
        console.socket_changed();
    }
    assert_eq!(total as u64 + console.dropped_bytes(), 64 * 0x10000);
}

#[test]
fn a_reader_that_is_gone_stops_nobody() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post(&[readable(0x5000, 100)]);
    let (mut console, reader) = console();
    drop(reader);
    assert!(console.transmit(&mem, &mut driver.queue()).unwrap());
    console.flush();
    assert_eq!(console.dropped_bytes(), 100);
    driver.post(&[writable(0x5000, 100)]);
    assert!(!console.receive(&mem, &mut driver.queue()).unwrap_or(false));
}

#[test]
fn input_waits_for_a_buffer_and_a_buffer_for_input() {
    let mem = mock::memory(0x10000);
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    let mut queue = driver.queue();
    let (mut console, mut writer) = console();
    writer.write_all(b"abcdef").unwrap();
    console.socket_changed();
    assert!(!console.receive(&mem, &mut queue).unwrap());
    let first = driver.post(&[writable(0x5000, 4)]);
    let second = driver.post(&[writable(0x6000, 4)]);
    let third = driver.post(&[writable(0x7000, 4)]);
    while console.receive(&mem, &mut queue).unwrap() {}
    assert_eq!(driver.used(), Some((first.into(), 4)));
    assert_eq!(driver.used(), Some((second.into(), 2)));
    assert_eq!(driver.used(), None);
    writer.write_all(b"g").unwrap();
    assert!(!console.receive(&mem, &mut queue).unwrap(), "nobody has said that there is more");
    console.socket_changed();
    assert!(console.receive(&mem, &mut queue).unwrap());
    assert_eq!(driver.used(), Some((third.into(), 1)));
}

#[test]
fn buffers_of_the_wrong_direction_are_a_fault() {
    let mem = mock::memory(0x10000);
    let (mut console, mut writer) = console();
    writer.write_all(b"x").unwrap();
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post(&[writable(0x5000, 8)]);
    let sent = console.transmit(&mem, &mut driver.queue());
    assert!(matches!(sent, Err(Fault::Direction { .. })));
    let mut driver = Driver::new(Arc::clone(&mem), 0, SIZE);
    driver.post(&[readable(0x5000, 8)]);
    let received = console.receive(&mem, &mut driver.queue());
    assert!(matches!(received, Err(Fault::Direction { .. })));
}

proptest! {
    /// All that a guest can write is random; both directions serve or fail, and end.
    #[test]
    fn random_rings_never_panic_nor_loop(
        bytes in proptest::collection::vec(any::<u8>(), 0x3000),
        available in 0_u16..=SIZE,
    ) {
        let mem = mock::memory(0x4000);
        mem.write_slice(&bytes, GuestAddress(0)).unwrap();
        let driver = Driver::new(Arc::clone(&mem), 0, SIZE);
        mem.write_obj(available, GuestAddress(driver.addresses()[1] + 2)).unwrap();
        let (mut console, mut writer) = console();
        writer.write_all(&[b'i'; 1000]).unwrap();
        let mut queue = driver.queue();
        let sent = (0..64).take_while(|_| console.transmit(&mem, &mut queue).unwrap_or(false));
        prop_assert!(sent.count() < 64);
        let mut queue = driver.queue();
        let got = (0..64).take_while(|_| console.receive(&mem, &mut queue).unwrap_or(false));
        prop_assert!(got.count() < 64);
        prop_assert!(console.pending.len() <= MAX_PENDING_BYTES);
    }
}
