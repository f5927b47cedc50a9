//! Tests of the ring; they play the device, a good one and bad ones.
#![allow(clippy::cast_possible_truncation, reason = "tests cut numbers to size on purpose")]

use super::*;

/// The device's side of a ring: reads the available ring, writes the used ring.
struct Device {
    used: u16,
    seen: u16,
}

impl Device {
    fn new() -> Self {
        Self { used: 0, seen: 0 }
    }

    /// Chains that the driver has published since the last call.
    fn take(&mut self, ring: &Virtqueue) -> Vec<u16> {
        let published = ring.avail_index().load(Ordering::Acquire);
        let mut heads = Vec::new();
        while self.seen != published {
            heads.push(ring.avail_entry(self.seen).load(Ordering::Relaxed));
            self.seen = self.seen.wrapping_add(1);
        }
        heads
    }

    fn finish(&mut self, ring: &Virtqueue, id: u32, written: u32) {
        let slot = usize::from(self.used & (ring.size - 1));
        let offset = used_offset(usize::from(ring.size)) + 4 + 8 * slot;
        ring.word32(offset).store(id, Ordering::Relaxed);
        ring.word32(offset + 4).store(written, Ordering::Relaxed);
        self.used = self.used.wrapping_add(1);
        ring.used_index().store(self.used, Ordering::Release);
    }

    /// The chain as the device reads it: address, length, flags.
    fn chain(ring: &Virtqueue, head: u16) -> Vec<(u64, u32, u16)> {
        let (mut at, mut chain) = (head, Vec::new());
        loop {
            let offset = usize::from(at) * DESC_LEN;
            let address = ring.word64(offset).load(Ordering::Relaxed);
            let second = ring.word64(offset + 8).load(Ordering::Relaxed);
            let flags = (second >> 32) as u16;
            chain.push((address, second as u32, flags));
            if flags & DESC_NEXT == 0 {
                return chain;
            }
            at = (second >> 48) as u16;
        }
    }
}

fn ring(size: u16, event_idx: bool) -> Virtqueue {
    Virtqueue::new(size, event_idx).unwrap()
}

fn read(address: u64) -> Segment {
    Segment { address, len: 10, device_writes: false }
}

fn push(ring: &mut Virtqueue, segments: &[Segment]) -> Result<u16, VirtqueueFull> {
    // SAFETY: the test's device looks at descriptors only, never at what they point to.
    unsafe { ring.push(segments) }
}

#[test]
fn chain_reads_as_it_was_pushed() {
    let mut ring = ring(8, false);
    let status = Segment { address: 0x3000, len: 1, device_writes: true };
    let head = push(&mut ring, &[read(0x1000), read(0x2000), status]).unwrap();
    let expected = [(0x1000, 10, DESC_NEXT), (0x2000, 10, DESC_NEXT), (0x3000, 1, DESC_WRITE)];
    assert_eq!(Device::chain(&ring, head), expected);
    assert_eq!((ring.free(), ring.in_flight()), (5, 1));
}

#[test]
fn device_sees_nothing_before_it_is_published() {
    let (mut ring, mut device) = (ring(8, false), Device::new());
    push(&mut ring, &[read(1)]).unwrap();
    push(&mut ring, &[read(2)]).unwrap();
    assert_eq!(device.take(&ring), []);
    assert!(ring.publish());
    assert_eq!(device.take(&ring).len(), 2);
    assert!(!ring.publish(), "nothing new, so no doorbell");
}

#[test]
fn full_ring_refuses_and_takes_again_when_chains_return() {
    let (mut ring, mut device) = (ring(4, false), Device::new());
    for _ in 0..1000 {
        let first = push(&mut ring, &[read(1), read(2)]).unwrap();
        let second = push(&mut ring, &[read(3), read(4)]).unwrap();
        assert_eq!(push(&mut ring, &[read(5)]), Err(VirtqueueFull));
        assert_eq!(ring.next_head(), None);
        let _ = ring.publish();
        assert_eq!(device.take(&ring), [first, second]);
        device.finish(&ring, second.into(), 7); // out of order, as devices may
        device.finish(&ring, first.into(), 0);
        assert_eq!(ring.pop(), Ok(Some(Used { head: second, written: 7 })));
        assert_eq!(ring.pop(), Ok(Some(Used { head: first, written: 0 })));
        assert_eq!(ring.pop(), Ok(None));
        assert_eq!((ring.free(), ring.in_flight()), (4, 0));
    }
}

#[test]
fn random_use_never_loses_or_doubles_a_descriptor() {
    let (mut ring, mut device) = (ring(64, true), Device::new());
    let (mut seed, mut held) = (42u64, Vec::new());
    for _ in 0..200_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let dice = (seed >> 40) as usize;
        if dice.is_multiple_of(2) {
            let len = 1 + dice / 2 % 5;
            if let Ok(head) = push(&mut ring, &vec![read(9); len]) {
                assert_eq!(Device::chain(&ring, head).len(), len);
                held.push((head, len));
            }
            let _ = ring.publish();
            device.take(&ring);
        } else if !held.is_empty() {
            let (head, _) = held.swap_remove(dice % held.len());
            device.finish(&ring, head.into(), 0);
            assert_eq!(ring.pop().unwrap().unwrap().head, head);
        }
        let descriptors: usize = held.iter().map(|(_, len)| len).sum();
        assert_eq!(usize::from(ring.free()) + descriptors, 64);
    }
}

#[test]
fn doorbell_follows_the_flag_of_the_device() {
    let mut ring = ring(8, false);
    ring.used_flags().store(USED_NO_NOTIFY, Ordering::Relaxed);
    push(&mut ring, &[read(1)]).unwrap();
    assert!(!ring.publish());
    ring.used_flags().store(0, Ordering::Relaxed);
    push(&mut ring, &[read(1)]).unwrap();
    assert!(ring.publish());
}

#[test]
fn doorbell_follows_the_event_index_of_the_device() {
    let mut ring = ring(8, true);
    ring.avail_event().store(1, Ordering::Relaxed);
    push(&mut ring, &[read(1)]).unwrap();
    assert!(!ring.publish(), "the device waits for the second chain");
    push(&mut ring, &[read(1)]).unwrap();
    push(&mut ring, &[read(1)]).unwrap();
    assert!(ring.publish());
}

#[test]
fn event_index_works_across_the_wrap() {
    let (mut ring, mut device) = (ring(2, true), Device::new());
    for round in 0..200_000u32 {
        // The device always waits for the next chain, so every one needs a doorbell.
        ring.avail_event().store(round as u16, Ordering::Relaxed);
        let head = push(&mut ring, &[read(1)]).unwrap();
        assert!(ring.publish(), "round {round}");
        device.finish(&ring, head.into(), 0);
        assert!(ring.pop().unwrap().is_some());
    }
}

#[test]
fn armed_ring_asks_for_an_interrupt_at_the_chain_it_was_told() {
    let (mut ring, mut device) = (ring(8, true), Device::new());
    let interrupts_at = |ring: &Virtqueue| ring.used_event().load(Ordering::Relaxed);
    assert_eq!(interrupts_at(&ring), u16::MAX, "silent at first");
    for _ in 0..3 {
        push(&mut ring, &[read(1)]).unwrap();
    }
    assert!(ring.arm(2));
    assert_eq!(interrupts_at(&ring), 1, "when the second is used");
    device.finish(&ring, 0, 0);
    assert!(ring.arm(2), "one is not enough");
    assert!(!ring.arm(1), "but it would be enough for this");
    ring.disarm();
    assert_eq!(interrupts_at(&ring), u16::MAX);
    assert!(ring.pop().unwrap().is_some());
}

#[test]
fn ring_without_event_indices_asks_by_flag() {
    let ring = ring(8, false);
    assert_eq!(ring.avail_flags().load(Ordering::Relaxed), AVAIL_NO_INTERRUPT);
    assert!(ring.arm(5));
    assert_eq!(ring.avail_flags().load(Ordering::Relaxed), 0);
    ring.disarm();
    assert_eq!(ring.avail_flags().load(Ordering::Relaxed), AVAIL_NO_INTERRUPT);
}

#[test]
fn device_that_returns_what_it_does_not_hold_is_found_out() {
    for id in [1, 7, 8, 9, 0xffff, 0x1_0000, u32::MAX] {
        let (mut ring, mut device) = (ring(8, false), Device::new());
        let head = push(&mut ring, &[read(1), read(2)]).unwrap();
        assert_eq!(head, 0);
        device.finish(&ring, id, 0);
        assert_eq!(ring.pop(), Err(VirtqueueError::UnknownChain { id }));
    }
}

#[test]
fn device_that_returns_a_chain_twice_is_found_out() {
    let (mut ring, mut device) = (ring(8, false), Device::new());
    let first = push(&mut ring, &[read(1)]).unwrap();
    push(&mut ring, &[read(2)]).unwrap();
    device.finish(&ring, first.into(), 0);
    device.finish(&ring, first.into(), 0);
    assert!(ring.pop().unwrap().is_some());
    assert_eq!(ring.pop(), Err(VirtqueueError::UnknownChain { id: first.into() }));
}

#[test]
fn used_index_that_runs_away_is_found_out() {
    let mut ring = ring(8, false);
    push(&mut ring, &[read(1)]).unwrap();
    ring.used_index().store(0x8000, Ordering::Relaxed);
    let error = VirtqueueError::UsedIndex { used: 0x8000, seen: 0, in_flight: 1 };
    assert_eq!(ring.pop(), Err(error));
}
