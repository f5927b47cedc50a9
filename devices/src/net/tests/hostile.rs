//! Packets that ask for segmentation and lie.

use super::segments::{Made, Shape, TCP4};
use super::*;
use crate::net::wire::{largest_packet, longest_frame};

/// Sends a packet of 9,000 bytes of payload after `change` had its way with it.
fn sent(shape: Shape, change: impl FnOnce(&mut Made)) -> Result<tx::TxPacket, PacketError> {
    let mut made = shape.packet(MAC, &[7; 9000]);
    change(&mut made);
    let bytes = [&made.header.to_bytes(0)[..], &made.frame].concat();
    let mut guest = Guest::new(0);
    guest.mem.write_slice(&bytes, GuestAddress(PACKET)).unwrap();
    guest.driver.post(&[readable(PACKET, u32::try_from(bytes.len()).unwrap())]);
    match guest.next() {
        tx::Next::Packet(taken) => Ok(taken.packet),
        _ => Err(guest.tx.last_drop().unwrap()),
    }
}

fn segmentation(made: &mut Made) -> &mut Segmentation {
    made.header.segmentation.as_mut().unwrap()
}

#[test]
fn an_honest_packet_passes() {
    let packet = sent(TCP4, |_| {}).unwrap();
    // Six full segments and one of 312 bytes.
    assert_eq!(packet.wire_bytes(), 6 * 1538 + 66 + 312 + 24);
    assert_eq!(packet.head.len(), 12 + 66);
}

#[test]
fn headers_that_lie_are_refused() {
    let refused = |change: fn(&mut Made)| sent(TCP4, change).unwrap_err();
    let without_checksum = refused(|made| made.header.checksum = None);
    let expected = HeaderError::BadSegments { size: 1448, checksum: false };
    assert_eq!(without_checksum, PacketError::Header(expected));
    let expected = HeaderError::BadSegments { size: 0, checksum: true };
    assert_eq!(refused(|made| segmentation(made).size = 0), PacketError::Header(expected));

    let not_cuttable: [fn(&mut Made); 11] = [
        // IPv6 was promised, or UDP.
        |made| segmentation(made).protocol = Protocol::Tcp6,
        |made| segmentation(made).protocol = Protocol::Udp,
        // The checksum is that of something else.
        |made| made.header.checksum.as_mut().unwrap().start += 2,
        |made| made.header.checksum.as_mut().unwrap().offset = 6,
        // No IP, an IPv4 header of four words, of version 5; UDP in it; a fragment.
        |made| made.frame[12] = 9,
        |made| made.frame[14] = 0x44,
        |made| made.frame[14] = 0x55,
        |made| made.frame[23] = 17,
        |made| made.frame[21] = 1,
        // A TCP header of four words; headers and nothing else.
        |made| made.frame[46] = 0x40,
        |made| made.frame.truncate(made.headers),
    ];
    for (number, change) in not_cuttable.into_iter().enumerate() {
        let refused = sent(TCP4, change).unwrap_err();
        assert_eq!(refused, PacketError::NotCuttable(NotCuttable), "change {number}");
    }
    let cut_off = refused(|made| made.frame.truncate(made.headers - 1));
    assert_eq!(cut_off, PacketError::NotCuttable(NotCuttable));
    let foreign = refused(|made| made.frame[11] = 9);
    assert_eq!(foreign, PacketError::ForeignSource(MacAddr([2, 0, 0, 0, 0, 9])));
}

#[test]
fn segments_that_are_too_many_or_too_long_are_refused() {
    // 9,000 bytes are 128 segments of 71 bytes or 129 of 70.
    assert!(sent(Shape { size: 71, ..TCP4 }, |_| {}).is_ok());
    let many = PacketError::BadSegments { segments: 129, frame_bytes: 136 };
    assert_eq!(sent(Shape { size: 70, ..TCP4 }, |_| {}).unwrap_err(), many);
    assert!(sent(Shape { size: 1452, ..TCP4 }, |_| {}).is_ok());
    let long = PacketError::BadSegments { segments: 7, frame_bytes: 1519 };
    assert_eq!(sent(Shape { size: 1453, ..TCP4 }, |_| {}).unwrap_err(), long);
    let headers = Shape { options: 10, tcp_options: 10, vlan: true, ..TCP4 };
    assert_eq!(sent(headers, |_| {}).unwrap_err(), PacketError::NotCuttable(NotCuttable));
}

#[test]
fn a_frame_that_is_longer_than_any_is_refused_whatever_it_asks_for() {
    for (flags, kind, size) in [(0, 0, 0), (NEEDS_CSUM, 1, 1448)] {
        let mem = mock::memory(MEMORY);
        let mut driver = Driver::new(Arc::clone(&mem), 0, 16);
        let vnet = [flags, kind, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
        let mut packet = [&vnet[..], &TCP4.packet(MAC, &[7; 100]).frame].concat();
        [packet[4], packet[5]] = u16::to_le_bytes(size);
        mem.write_slice(&packet, GuestAddress(0x10000)).unwrap();
        driver.post(&[readable(0x10000, 65_554 + 12)]);
        let mut tx = tx::Frontend::new(nic());
        tx.set_features(nic().features());
        assert!(matches!(tx.next_packet(&mem, &mut driver.queue()), Ok(tx::Next::Dropped)));
        assert_eq!(tx.last_drop(), Some(PacketError::BadLength(65_554)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A true packet in which a few bytes of the headers were changed.
    #[test]
    fn whatever_the_headers_say_no_packet_is_charged_less_than_its_bytes_or_more_than_the_term(
        changes in proptest::collection::vec((0_usize..90, any::<u8>()), 0..6),
        version_6: bool,
    ) {
        let protocol = if version_6 { Protocol::Tcp6 } else { Protocol::Tcp4 };
        let made = Shape { protocol, version_6, ..TCP4 }.packet(MAC, &[7; 9000]);
        let mut bytes = [&made.header.to_bytes(0)[..], &made.frame].concat();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let mut guest = Guest::new(0);
        guest.mem.write_slice(&bytes, GuestAddress(PACKET)).unwrap();
        guest.driver.post(&[readable(PACKET, u32::try_from(bytes.len()).unwrap())]);
        if let tx::Next::Packet(tx::Taken { packet, .. }) = guest.next() {
            prop_assert!(packet.wire_bytes() >= packet.frame_bytes() + 24);
            prop_assert!(packet.wire_bytes() <= largest_packet(1500, true));
            let vnet = packet.head.first_chunk().unwrap();
            let len = usize::try_from(packet.frame_bytes()).unwrap();
            let header = VnetHeader::parse(vnet, len).unwrap();
            if header.segmentation.is_none() {
                prop_assert!(packet.frame_bytes() <= longest_frame(1500));
            }
        }
    }

    /// The same for what comes from the network: it is delivered, dropped or cut, never more.
    #[test]
    fn whatever_the_headers_say_a_received_packet_harms_nobody(
        changes in proptest::collection::vec((0_usize..90, any::<u8>()), 0..6),
        uncut: bool,
    ) {
        let made = TCP4.packet(OTHER, &[7; 5000]);
        let mut bytes = [&made.header.to_bytes(0)[..], &made.frame].concat();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let (vnet, frame) = bytes.split_first_chunk().unwrap();
        let Ok(header) = VnetHeader::parse(vnet, frame.len()) else { return Ok(()) };
        let mut guest = Guest::new(MRG_RXBUF | if uncut { GUEST_CSUM | 1 << 7 } else { 0 });
        for n in 0..16 {
            guest.driver.post(&[writable(PACKET + n * 600, 600)]);
        }
        let delivery = guest.deliver(&header, frame);
        let written: u32 = std::iter::from_fn(|| guest.driver.used()).map(|(_, len)| len).sum();
        prop_assert_eq!(delivery == rx::Delivery::Delivered, written > 0);
    }
}
