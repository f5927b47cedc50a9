use proptest::prelude::*;

use super::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MINE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &OWN.0, &kind.to_be_bytes(), payload].concat()
}

fn tagged(kinds: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0xff; 6][..], &OWN.0].concat();
    kinds.iter().for_each(|tag| bytes.extend([tag.to_be_bytes(), [0, 5]].concat()));
    bytes.extend(kind.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn arp(hardware: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    [&head[..], &hardware, &sender.octets(), &[0; 6], &[10, 0, 0, 1]].concat()
}

fn ipv4(source: Ipv4Addr, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend([10, 0, 0, 1]);
    header.extend(rest);
    header
}

fn ipv6(source: Ipv6Addr, next: u8, rest: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, high, low, next, 255];
    header.extend(source.octets());
    header.extend(ROUTER.octets());
    header.extend(rest);
    header
}

fn nd(kind: u8, target: Ipv6Addr, option: Option<(u8, [u8; 6])>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind != ROUTER_SOLICITATION {
        message.extend(target.octets());
    }
    if let Some((kind, address)) = option {
        message.extend([kind, 1]);
        message.extend(address);
    }
    message
}

fn offence(frame: &[u8]) -> Option<Offence> {
    match read(frame, OWN) {
        Ok(_) => None,
        Err(Unread::Offence(offence)) => Some(offence),
        Err(Unread::Cut) => Some(Offence::Hidden),
    }
}

fn claimed(frame: &[u8]) -> Vec<IpAddr> {
    read(frame, OWN).unwrap().iter().map(|(address, _)| address).collect()
}

#[test]
fn the_senders_of_arp_and_ip_are_claims_and_those_without_address_claim_nothing() {
    let own6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    assert_eq!(claimed(&frame(ARP, &arp(OWN.0, MINE))), [IpAddr::from(MINE)]);
    assert_eq!(claimed(&frame(RARP, &arp(OWN.0, MINE))), [IpAddr::from(MINE)]);
    assert_eq!(claimed(&frame(IPV4, &ipv4(MINE, 6, &[0; 20]))), [IpAddr::from(MINE)]);
    assert_eq!(claimed(&frame(IPV6, &ipv6(own6, 6, &[0; 20]))), [IpAddr::from(own6)]);
    let answer = nd(NEIGHBOUR_ADVERTISEMENT, ROUTER, Some((2, OWN.0)));
    let both = [IpAddr::from(own6), ROUTER.into()];
    assert_eq!(claimed(&frame(IPV6, &ipv6(own6, ICMPV6, &answer))), both);
    let nothing = [
        frame(ARP, &arp(OWN.0, Ipv4Addr::UNSPECIFIED)),
        frame(IPV4, &ipv4(Ipv4Addr::UNSPECIFIED, UDP, &DHCP_CLIENT)),
        frame(IPV4, &ipv4(Ipv4Addr::UNSPECIFIED, IGMP, &[0; 8])),
        frame(IPV6, &ipv6(Ipv6Addr::UNSPECIFIED, ICMPV6, &nd(135, ROUTER, None))),
        frame(IPV6, &ipv6(Ipv6Addr::UNSPECIFIED, ICMPV6, &nd(133, ROUTER, None))),
        // A listener report goes behind a router alert.
        frame(IPV6, &ipv6(Ipv6Addr::UNSPECIFIED, 0, &[ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0])),
        frame(0x88b5, b"anything"),
        frame(60, &[0x42, 0x42, 3]),
    ];
    for frame in nothing {
        assert!(claimed(&frame).is_empty(), "{frame:02x?}");
    }
}

#[test]
fn what_is_somebody_elses_is_told_by_its_kind() {
    let (nobody4, nobody6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    let mut foreign = frame(ARP, &arp(OWN.0, MINE));
    foreign[6..12].copy_from_slice(&OTHER);
    let mut bridge = frame(39, &[0x42; 40]);
    bridge[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0]);
    let options = |kind, option| ipv6(ROUTER, ICMPV6, &nd(kind, ROUTER, Some((option, OTHER))));
    for (bytes, expected) in [
        (foreign, Offence::Mac),
        (bridge, Offence::Router),
        (frame(ARP, &arp(OTHER, MINE)), Offence::Arp),
        (frame(ARP, &arp(OWN.0, Ipv4Addr::BROADCAST)), Offence::Arp),
        (frame(IPV4, &ipv4(nobody4, 6, &[0; 20])), Offence::Address),
        (frame(IPV4, &ipv4(nobody4, UDP, &[0, 68, 0, 53])), Offence::Address),
        (frame(IPV4, &ipv4(Ipv4Addr::new(224, 0, 0, 1), 6, &[0; 20])), Offence::Address),
        (frame(IPV4, &ipv4(MINE, UDP, &DHCP_SERVER)), Offence::Router),
        (frame(IPV6, &ipv6(nobody6, 6, &[0; 20])), Offence::Address),
        (frame(IPV6, &ipv6(nobody6, ICMPV6, &nd(136, ROUTER, None))), Offence::Address),
        (frame(IPV6, &ipv6(Ipv6Addr::LOCALHOST, 6, &[0; 20])), Offence::Address),
        (frame(IPV6, &ipv6(ROUTER, UDP, &DHCPV6_SERVER)), Offence::Router),
        (frame(IPV6, &ipv6(ROUTER, ICMPV6, &[ROUTER_ADVERTISEMENT; 16])), Offence::Router),
        (frame(IPV6, &ipv6(ROUTER, ICMPV6, &[REDIRECT; 40])), Offence::Router),
        (frame(IPV6, &options(NEIGHBOUR_SOLICITATION, 1)), Offence::Neighbour),
        (frame(IPV6, &options(NEIGHBOUR_ADVERTISEMENT, 2)), Offence::Neighbour),
        (frame(IPV6, &options(ROUTER_SOLICITATION, 1)), Offence::Neighbour),
    ] {
        assert_eq!(offence(&bytes), Some(expected), "{bytes:02x?}");
    }
}

#[test]
fn tags_and_extension_headers_hide_nothing() {
    let lie = arp(OTHER, MINE);
    assert_eq!(offence(&tagged(&[0x8100], ARP, &lie)), Some(Offence::Arp));
    assert_eq!(offence(&tagged(&[0x88a8, 0x8100], ARP, &lie)), Some(Offence::Arp));
    let three = tagged(&[0x8100; 3], ARP, &arp(OWN.0, MINE));
    assert_eq!(offence(&three), Some(Offence::Hidden));
    let snap = [&SNAP[..], &[0, 0, 0, 8, 6], &lie].concat();
    assert_eq!(offence(&frame(36, &snap)), Some(Offence::Hidden));
    let mut of_802 = arp(OWN.0, MINE);
    of_802[1] = 6;
    assert_eq!(offence(&frame(ARP, &of_802)), Some(Offence::Hidden));

    let advertisement = nd(NEIGHBOUR_ADVERTISEMENT, ROUTER, Some((2, OTHER)));
    for kind in EXTENSIONS {
        let rest = [&[ICMPV6, 1][..], &[0; 14], &advertisement].concat();
        let bytes = frame(IPV6, &ipv6(ROUTER, kind, &rest));
        assert_eq!(offence(&bytes), Some(Offence::Neighbour), "{kind}");
    }
    let behind = |extension: &[u8]| [extension, &advertisement].concat();
    let rest = behind(&[ICMPV6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let bytes = frame(IPV6, &ipv6(ROUTER, AUTHENTICATION, &rest));
    assert_eq!(offence(&bytes), Some(Offence::Neighbour));
    let fragments = frame(IPV6, &ipv6(ROUTER, FRAGMENT, &behind(&[ICMPV6, 0, 0, 1, 0, 0, 0, 9])));
    assert_eq!(offence(&fragments), Some(Offence::Hidden));
    let later = frame(IPV6, &ipv6(ROUTER, FRAGMENT, &behind(&[ICMPV6, 0, 0, 9, 0, 0, 0, 9])));
    assert_eq!(claimed(&later), [IpAddr::from(ROUTER)], "it is read with its first part only");
    // An option that ends beyond the message, and one without length.
    for option in [[7, 9], [7, 0]] {
        let bytes = [&nd(NEIGHBOUR_SOLICITATION, ROUTER, None)[..], &option, &[0; 6]].concat();
        let bytes = frame(IPV6, &ipv6(ROUTER, ICMPV6, &bytes));
        assert_eq!(offence(&bytes), Some(Offence::Hidden));
    }
}

#[test]
fn a_longer_option_with_another_address_is_seen_too() {
    let option = [&[2, 2][..], &OTHER, &[0; 8]].concat();
    let bytes = [&nd(NEIGHBOUR_ADVERTISEMENT, ROUTER, None)[..], &option].concat();
    assert_eq!(offence(&frame(IPV6, &ipv6(ROUTER, ICMPV6, &bytes))), Some(Offence::Neighbour));
}

proptest! {
    #[test]
    fn random_frames_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in prop::sample::select(vec![ARP, RARP, IPV4, IPV6, 0x8100, 60]),
        next in prop::sample::select(vec![0_u8, 17, 43, 44, 51, 58, 60]),
    ) {
        let _ = read(&bytes, OWN);
        let _ = read(&frame(kind, &bytes), OWN);
        let _ = read(&frame(IPV6, &ipv6(ROUTER, next, &bytes)), OWN);
        let _ = read(&frame(IPV4, &ipv4(MINE, UDP, &bytes)), OWN);
    }

    /// More bytes change an answer only if it was that there are too few.
    #[test]
    fn an_answer_does_not_depend_on_how_much_more_is_read(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        next in prop::sample::select(vec![0_u8, 17, 43, 44, 51, 58, 60]),
        len in 0_usize..260,
    ) {
        let whole = frame(IPV6, &ipv6(ROUTER, next, &bytes));
        let part = &whole[..len.min(whole.len())];
        let early = read(part, OWN);
        prop_assert!(early == Err(Unread::Cut) || early == read(&whole, OWN));
    }
}
