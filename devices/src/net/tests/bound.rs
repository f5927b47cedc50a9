//! Packets that are bound to their sender: what was checked is what is sent.

use std::net::IpAddr;

use super::*;

const MINE: [u8; 4] = [10, 0, 0, 2];

/// An IPv4 packet as the payload of a frame.
fn from(source: [u8; 4]) -> Vec<u8> {
    [&[0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0][..], &source, &[10, 0, 0, 1], &[7; 40]].concat()
}

/// Takes the packet that the guest has posted; only one address is its own.
fn next(guest: &mut Guest) -> tx::Next {
    let owns = &mut |address| address == IpAddr::from(MINE);
    guest.tx.next_bound_packet(&guest.mem, &mut guest.queue, owns).unwrap()
}

#[test]
fn a_packet_from_another_address_is_dropped_and_counted_by_its_reason() {
    let mut guest = Guest::new(0);
    for (mac, source, offence) in [
        (MAC, [10, 0, 0, 3], Offence::Address),
        (OTHER, MINE, Offence::Mac),
        (MAC, [127, 0, 0, 1], Offence::Address),
    ] {
        let len = guest.write([0; 12], mac, &from(source));
        guest.driver.post(&[readable(PACKET, len)]);
        assert!(matches!(next(&mut guest), tx::Next::Dropped));
        assert_eq!(guest.tx.last_drop().and_then(PacketError::offence), Some(offence));
    }
    assert_eq!(guest.tx.counters.dropped_tx, 3);
    assert_eq!(guest.tx.counters.spoofed, [1, 0, 2, 0, 0, 0]);
}

#[test]
fn headers_that_were_checked_are_sent_whatever_the_guest_writes_then() {
    let mut guest = Guest::new(0);
    let payload = from(MINE);
    let len = guest.write([0; 12], MAC, &payload);
    guest.driver.post(&[readable(PACKET, 30), readable(PACKET + 30, len - 30)]);
    let tx::Next::Packet(tx::Taken { packet, .. }) = next(&mut guest) else {
        panic!("{:?}", guest.tx.last_drop())
    };
    guest.write([0; 12], OTHER, &from([10, 0, 0, 3]));
    let expected = [&[0; 12][..], &frame(OTHER, MAC, &payload)].concat();
    assert_eq!(packet.head[..], expected[..packet.head.len()]);
    assert!(packet.head.len() >= 12 + 14 + 20, "{} bytes", packet.head.len());
    assert_eq!((packet.frame_bytes(), packet.payload_bytes()), (74, 60));
}

proptest! {
    /// Whatever a guest sends: no panic, and nothing from an address that is not its own.
    #[test]
    fn random_packets_never_come_from_somebody_else(
        source in any::<[u8; 4]>(),
        kind in 0_u8..3,
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut guest = Guest::new(0);
        let payload = if kind == 0 { bytes } else { [from(source), bytes].concat() };
        let len = guest.write([0; 12], MAC, &payload);
        guest.driver.post(&[readable(PACKET, len)]);
        match next(&mut guest) {
            tx::Next::Packet(tx::Taken { packet, .. }) => {
                let claims = crate::net::claims::read(&packet.head[12..], MAC);
                let mine = |(address, _)| address == IpAddr::from(MINE);
                prop_assert!(claims.is_ok_and(|it| it.iter().all(mine)));
            }
            tx::Next::Dropped => {}
            tx::Next::Empty => prop_assert!(false),
        }
    }
}
