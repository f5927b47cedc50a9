//! Packets in both directions, good and bad.

mod bound;
mod control;
mod hostile;
mod segments;

use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::tx::PacketError;
use super::*;
use crate::memory::GuestMemory;
use crate::mock::{self, Driver, readable, writable};
use crate::virtqueue::{Descriptor, QueueError};

const MEMORY: usize = 1 << 20;
const PACKET: u64 = 0x8000;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const NEEDS_CSUM: u8 = 1;
const GUEST_CSUM: u64 = 1 << 1;
const MRG_RXBUF: u64 = 1 << 15;

fn nic() -> Nic {
    Nic { mac: MAC, mtu: 1500, queue_size: 16, pairs: 1, offload: Offload::TcpAndUdp }
}

struct Guest {
    mem: Arc<GuestMemory>,
    driver: Driver,
    queue: Queue,
    tx: tx::Frontend,
    rx: rx::Frontend,
}

impl Guest {
    fn new(features: u64) -> Self {
        let mem = mock::memory(MEMORY);
        let driver = Driver::new(Arc::clone(&mem), 0, 16);
        let queue = driver.queue();
        let mut tx = tx::Frontend::new(nic());
        tx.set_features(nic().features());
        Self { mem, driver, queue, tx, rx: rx::Frontend::new(features) }
    }

    /// Writes a packet into guest memory: vnet header, Ethernet header, payload.
    fn write(&self, vnet: [u8; 12], source: MacAddr, payload: &[u8]) -> u32 {
        let packet = [&vnet[..], &frame(OTHER, source, payload)].concat();
        self.mem.write_slice(&packet, GuestAddress(PACKET)).unwrap();
        u32::try_from(packet.len()).unwrap()
    }

    fn next(&mut self) -> tx::Next {
        self.tx.next_packet(&self.mem, &mut self.queue).unwrap()
    }

    fn taken(&mut self) -> tx::Taken {
        match self.next() {
            tx::Next::Packet(taken) => taken,
            other => panic!("{other:?}: {:?}", self.tx.last_drop()),
        }
    }

    fn packet(&mut self) -> tx::TxPacket {
        self.taken().packet
    }

    fn dropped(&mut self) -> PacketError {
        assert!(matches!(self.next(), tx::Next::Dropped));
        assert_eq!(self.driver.used().map(|(_, len)| len), Some(0));
        self.tx.last_drop().unwrap()
    }

    fn deliver(&mut self, header: &VnetHeader, frame: &[u8]) -> rx::Delivery {
        self.rx.deliver(&self.mem, &mut self.queue, header, frame).unwrap()
    }

    fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }
}

fn frame(destination: MacAddr, source: MacAddr, payload: &[u8]) -> Vec<u8> {
    [&destination.0[..], &source.0, &[8, 0], payload].concat()
}

fn vnet(flags: u8, segmentation: u8, start: u16, offset: u16) -> [u8; 12] {
    let ([s0, s1], [o0, o1]) = (start.to_le_bytes(), offset.to_le_bytes());
    [flags, segmentation, 0, 0, 0, 0, s0, s1, o0, o1, 0, 0]
}

#[test]
fn a_packet_keeps_its_payload_in_guest_memory_and_its_headers_in_ours() {
    let mut guest = Guest::new(0);
    let payload: Vec<u8> = (0..100).collect();
    let len = guest.write(vnet(NEEDS_CSUM, 0, 34, 6), MAC, &payload);
    guest.driver.post(&[readable(PACKET, 40), readable(PACKET + 40, len - 40)]);
    let tx::Taken { chain, packet } = guest.taken();
    assert_eq!((packet.source(), packet.destination()), (MAC, OTHER));
    assert_eq!((packet.frame_bytes(), packet.wire_bytes()), (114, 138));
    assert_eq!(packet.head[..12], vnet(NEEDS_CSUM, 0, 34, 6));
    let mut sent = vec![0; 100];
    assert_eq!(packet.payload.copy_to(&mut sent), 100);
    assert_eq!(sent, payload);
    // The guest rewrites its headers after they were checked.
    guest.write([0xff; 12], OTHER, &payload);
    assert_eq!(packet.source(), MAC);

    let Guest { tx, mem, queue, .. } = &mut guest;
    assert_eq!(tx.in_flight(), 1);
    tx.complete(mem, queue, chain).unwrap();
    assert_eq!((tx.in_flight(), tx.counters.completed), (0, 1));
    assert_eq!(guest.driver.used(), Some((0, 0)));
    assert!(matches!(guest.next(), tx::Next::Empty));
}

#[test]
fn short_frames_are_padded_on_the_wire_only() {
    let mut guest = Guest::new(0);
    let len = guest.write([0; 12], MAC, &[]);
    guest.driver.post(&[readable(PACKET, len)]);
    let packet = guest.packet();
    assert!(packet.payload.is_empty());
    assert_eq!((packet.frame_bytes(), packet.wire_bytes()), (14, 84));
}

#[test]
fn each_bad_packet_is_dropped_for_its_reason() {
    let mut guest = Guest::new(0);
    let len = guest.write([0; 12], MAC, &[0; 50]);
    guest.driver.post(&[readable(PACKET, len - 1), writable(PACKET, 1)]);
    assert_eq!(guest.dropped(), PacketError::Writable);
    for len in [0, 5, 12, 25] {
        guest.driver.post(&[readable(PACKET, len)]);
        let expected = u64::from(len.saturating_sub(12));
        assert_eq!(guest.dropped(), PacketError::BadLength(expected));
    }
    guest.driver.post(&[readable(PACKET, 12 + 1500 + 19)]);
    assert_eq!(guest.dropped(), PacketError::BadLength(1519));
    guest.driver.post(&[readable(PACKET, 12 + 1500 + 18)]);
    assert_eq!(guest.packet().frame_bytes(), 1518);
    guest.driver.post(&[readable(PACKET, 26), readable(MEMORY as u64 - 5, 10)]);
    assert!(matches!(guest.dropped(), PacketError::OutsideMemory(_)));
    guest.driver.post(&[readable(MEMORY as u64 - 5, 100)]);
    assert!(matches!(guest.dropped(), PacketError::OutsideMemory(_)));

    let mut bad = |vnet, source| {
        let len = guest.write(vnet, source, &[0; 50]);
        guest.driver.post(&[readable(PACKET, len)]);
        guest.dropped()
    };
    assert_eq!(bad([0; 12], OTHER), PacketError::ForeignSource(OTHER));
    let header = |error| PacketError::Header(error);
    assert_eq!(bad(vnet(0, 3, 0, 0), MAC), header(HeaderError::Segmentation(3)));
    for (start, offset) in [(63, 0), (34, 29), (u16::MAX, u16::MAX)] {
        let outside = HeaderError::ChecksumOutside { start, offset, frame_len: 64 };
        assert_eq!(bad(vnet(NEEDS_CSUM, 0, start, offset), MAC), header(outside));
    }
    assert_eq!(guest.tx.counters.dropped_tx, 13);
}

#[test]
fn a_packet_in_a_thousand_pieces_is_dropped() {
    let mem = mock::memory(MEMORY);
    let mut driver = Driver::new(Arc::clone(&mem), 0, 16);
    let mut tx = tx::Frontend::new(Nic { mtu: 9000, ..nic() });
    mem.write_slice(&frame(OTHER, MAC, &[]), GuestAddress(PACKET + 12)).unwrap();
    let pieces: Vec<_> = std::iter::once(readable(PACKET, 26))
        .chain((0..1024).map(|n| readable(0x10000 + n, 1)))
        .collect();
    driver.post_indirect(0x20000, &pieces);
    let mut queue = driver.queue();
    assert!(matches!(tx.next_packet(&mem, &mut queue), Ok(tx::Next::Dropped)));
    assert_eq!(tx.last_drop(), Some(PacketError::TooManyPieces(1024)));
}

#[test]
fn a_broken_transmit_ring_fails_the_device() {
    let mut guest = Guest::new(0);
    guest.driver.make_available(16);
    let error = guest.tx.next_packet(&guest.mem, &mut guest.queue).unwrap_err();
    assert!(matches!(error, QueueError::HeadOutOfRange { .. }));
}

#[test]
fn a_received_packet_is_copied_into_one_buffer_with_its_header() {
    for features in [0, MRG_RXBUF] {
        let mut guest = Guest::new(features);
        guest.driver.post(&[writable(PACKET, 12), writable(PACKET + 100, 1514)]);
        let packet = frame(MAC, OTHER, b"hello");
        assert_eq!(guest.deliver(&VnetHeader::default(), &packet), rx::Delivery::Delivered);
        assert_eq!(guest.driver.used(), Some((0, 12 + 19)));
        assert_eq!(guest.bytes(PACKET, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(guest.bytes(PACKET + 100, 19), packet);
        let counters = guest.rx.counters;
        assert_eq!((counters.copied_by_us_bytes, counters.completed), (19, 1));
    }
}

#[test]
fn a_packet_without_buffers_is_lost_and_counted_and_the_next_one_is_not() {
    let mut guest = Guest::new(MRG_RXBUF);
    let packet = frame(MAC, OTHER, &[7; 200]);
    assert_eq!(guest.deliver(&VnetHeader::default(), &packet), rx::Delivery::NoBuffers);
    guest.driver.post(&[writable(PACKET, 100)]);
    assert_eq!(guest.deliver(&VnetHeader::default(), &packet), rx::Delivery::NoBuffers);
    assert_eq!(guest.rx.counters.dropped_rx, 2);
    // The buffer that did not suffice is still there.
    guest.driver.post(&[writable(PACKET + 100, 100)]);
    guest.driver.post(&[writable(PACKET + 200, 100)]);
    assert_eq!(guest.deliver(&VnetHeader::default(), &packet), rx::Delivery::Delivered);
    let used: Vec<_> = std::iter::from_fn(|| guest.driver.used()).collect();
    assert_eq!(used, [(0, 100), (1, 100), (2, 26)]);
    assert_eq!(guest.bytes(PACKET, 226)[12..], packet);
    assert_eq!(guest.bytes(PACKET + 10, 2), [3, 0]);
}

#[test]
fn a_packet_too_long_for_an_unmergeable_buffer_leaves_it_for_a_smaller_one() {
    let mut guest = Guest::new(0);
    guest.driver.post(&[writable(PACKET, 100)]);
    guest.driver.post(&[writable(PACKET + 100, 100)]);
    let packet = frame(MAC, OTHER, &[7; 200]);
    assert_eq!(guest.deliver(&VnetHeader::default(), &packet), rx::Delivery::TooLong);
    assert_eq!(guest.deliver(&VnetHeader::default(), &packet[..88]), rx::Delivery::Delivered);
    assert_eq!(guest.driver.used(), Some((0, 100)));
}

#[test]
fn broken_receive_buffers_are_returned_empty_and_passed_over() {
    let mut guest = Guest::new(MRG_RXBUF);
    guest.driver.post(&[readable(PACKET, 2000)]);
    guest.driver.post(&[writable(PACKET, 12), writable(MEMORY as u64, 2000)]);
    guest.driver.post(&[writable(PACKET, 50)]);
    guest.driver.post(&[readable(PACKET, 2000)]);
    guest.driver.post(&[writable(PACKET, 2000)]);
    let packet = frame(MAC, OTHER, &[7; 200]);
    // A broken one in the middle: the packet is lost, the first two are returned.
    assert_eq!(guest.deliver(&VnetHeader::default(), &packet), rx::Delivery::NoBuffers);
    let used: Vec<_> = std::iter::from_fn(|| guest.driver.used()).collect();
    assert_eq!(used, [(0, 0), (1, 0)]);
    assert_eq!(guest.deliver(&VnetHeader::default(), &packet[..30]), rx::Delivery::Delivered);
    assert_eq!(guest.deliver(&VnetHeader::default(), &packet), rx::Delivery::Delivered);
    let used: Vec<_> = std::iter::from_fn(|| guest.driver.used()).collect();
    assert_eq!(used, [(3, 42), (4, 0), (5, 226)]);
    assert_eq!(guest.rx.counters.unanswerable, 3);
}

#[test]
fn a_checksum_is_completed_for_drivers_that_do_not_complete_it() {
    let checksum = Some(Checksum { start: 14, offset: 2 });
    let header = VnetHeader { checksum, ..VnetHeader::default() };
    // Words 0x0102, pseudo header sum 0x1000, 0x0304, odd byte 0x05: sum 0x1906.
    let packet = frame(MAC, OTHER, &[1, 2, 0x10, 0, 3, 4, 5]);
    for (features, bytes, flags) in [(0, [0xe6, 0xf9], 0), (GUEST_CSUM, [0x10, 0], NEEDS_CSUM)] {
        let mut guest = Guest::new(features);
        guest.driver.post(&[writable(PACKET, 1526)]);
        assert_eq!(guest.deliver(&header, &packet), rx::Delivery::Delivered);
        assert_eq!(guest.bytes(PACKET + 12 + 16, 2), bytes);
        assert_eq!(guest.bytes(PACKET, 1), [flags]);
    }
}

#[test]
fn a_checksum_of_zero_is_stored_as_the_other_zero() {
    let sum = Checksum { start: 0, offset: 2 };
    assert_eq!(sum.complete(&[0xff, 0xff, 0, 0]), Some((2, [0xff, 0xff])));
    assert_eq!(Checksum { start: 9, offset: 0 }.complete(&[0; 4]), None);
}

#[test]
fn the_configuration_space_has_the_layout_of_the_specification() {
    assert_eq!(nic().config_space(), [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 5]);
    assert_eq!(MAC.to_string(), "02:00:00:00:00:01");
    assert!(MacAddr([0xff; 6]).is_multicast() && !MAC.is_multicast());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn headers_survive_parsing_or_are_refused(bytes in any::<[u8; 12]>(), len in 0_usize..2000) {
        if let Ok(header) = VnetHeader::parse(&bytes, len) {
            let again = VnetHeader::parse(&header.to_bytes(1), len).unwrap();
            prop_assert_eq!(header, again);
            if let Some(sum) = header.checksum {
                let (place, _) = sum.complete(&vec![0x5a; len]).unwrap();
                prop_assert!(place + 2 <= len);
            }
        }
    }

    /// A completed checksum verifies: the sum over all of it is all ones.
    #[test]
    fn completed_checksums_verify(mut bytes in proptest::collection::vec(any::<u8>(), 8..200)) {
        let sum = Checksum { start: 0, offset: 6 };
        let (place, value) = sum.complete(&bytes).unwrap();
        let pseudo = u32::from(u16::from_be_bytes([bytes[6], bytes[7]]));
        bytes[place..place + 2].copy_from_slice(&value);
        if bytes.len() % 2 == 1 {
            bytes.push(0);
        }
        let words = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let mut total = words.sum::<u32>() + pseudo;
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        prop_assert!(total == 0xffff, "{total:#x}");
    }

    #[test]
    fn random_chains_never_panic_the_transmit_queue(
        bytes in proptest::collection::vec(any::<u8>(), 200),
        pieces in proptest::collection::vec(
            (prop_oneof![PACKET..PACKET + 200, any::<u64>()],
             prop_oneof![0_u32..200, any::<u32>()], any::<bool>()), 1..8),
    ) {
        let mut guest = Guest::new(0);
        guest.mem.write_slice(&bytes, GuestAddress(PACKET)).unwrap();
        let chain: Vec<_> = pieces.into_iter()
            .map(|(addr, len, writable)| Descriptor { addr: GuestAddress(addr), len, writable })
            .collect();
        guest.driver.post(&chain);
        match guest.tx.next_packet(&guest.mem, &mut guest.queue) {
            Ok(tx::Next::Packet(tx::Taken { packet, .. })) => {
                prop_assert!((14..=1518).contains(&packet.frame_bytes()));
                prop_assert_eq!(packet.source(), MAC);
            }
            Ok(tx::Next::Dropped) => prop_assert!(guest.driver.used().is_some()),
            Ok(tx::Next::Empty) => prop_assert!(false, "the chain vanished"),
            Err(_) => {}
        }
    }

    /// What is delivered is what was sent, however the guest's buffers are cut.
    #[test]
    fn merged_buffers_hold_the_packet(
        payload in proptest::collection::vec(any::<u8>(), 0..600),
        lens in proptest::collection::vec(1_u32..300, 1..12),
    ) {
        let mut guest = Guest::new(MRG_RXBUF);
        let mut addr = PACKET;
        for len in &lens {
            guest.driver.post(&[writable(addr, *len)]);
            addr += u64::from(*len);
        }
        let packet = frame(MAC, OTHER, &payload);
        let delivery = guest.deliver(&VnetHeader::default(), &packet);
        let enough = lens.iter().sum::<u32>() as usize >= packet.len() + 12;
        if enough {
            prop_assert_eq!(delivery, rx::Delivery::Delivered);
            prop_assert_eq!(&guest.bytes(PACKET + 12, packet.len()), &packet);
            let used: Vec<_> = std::iter::from_fn(|| guest.driver.used()).collect();
            let total: u32 = used.iter().map(|(_, len)| len).sum();
            prop_assert_eq!(total as usize, packet.len() + 12);
            prop_assert_eq!(guest.bytes(PACKET + 10, 2)[0] as usize, used.len());
        } else {
            prop_assert_eq!(delivery, rx::Delivery::NoBuffers);
            prop_assert!(guest.driver.used().is_none());
        }
    }
}
