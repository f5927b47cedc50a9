//! Tests of the ARP table.

use super::*;
use smoltcp::wire::{ArpPacket, ArpRepr, EthernetFrame};

const SECOND: u64 = 1_000_000_000;
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIR_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

#[test]
fn request_is_well_formed() {
    let bytes = request_frame(OUR_MAC, OURS, THEIRS);
    let frame = EthernetFrame::new_checked(&bytes[..]).unwrap();
    let packet = ArpPacket::new_checked(frame.payload()).unwrap();
    let ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(&packet).unwrap()
    else {
        panic!("not Ethernet and IPv4");
    };
    assert_eq!((source_protocol_addr, target_protocol_addr), (OURS, THEIRS));
}

#[test]
fn unknown_neighbour_is_asked_for_until_it_answers() {
    let mut table = Neighbours::default();
    assert_eq!(table.due_request(0), None, "nobody wants anybody");
    assert_eq!(table.lookup(THEIRS), None);
    assert_eq!(table.due_request(0), Some(THEIRS));
    assert_eq!(table.due_request(1), None, "not again at once");
    assert_eq!(table.due_request(SECOND), Some(THEIRS));
    table.learn(&request_frame(THEIR_MAC, THEIRS, OURS), SECOND);
    assert_eq!(table.lookup(THEIRS), Some(THEIR_MAC));
    assert_eq!(table.due_request(20 * SECOND), None);
}

#[test]
fn old_entry_is_refreshed_while_it_stays_in_use() {
    let mut table = Neighbours::default();
    assert_eq!(table.lookup(THEIRS), None);
    table.learn(&request_frame(THEIR_MAC, THEIRS, OURS), 0);
    assert_eq!(table.due_request(40 * SECOND), Some(THEIRS));
    assert_eq!(table.lookup(THEIRS), Some(THEIR_MAC));
}

#[test]
fn neighbour_that_falls_silent_is_gone_until_it_answers_again() {
    let mut table = Neighbours::default();
    assert_eq!(table.lookup(THEIRS), None);
    table.learn(&request_frame(THEIR_MAC, THEIRS, OURS), 0);
    for second in 31..=60 {
        assert_eq!(table.due_request(second * SECOND), Some(THEIRS));
        assert_eq!(table.lookup(THEIRS), Some(THEIR_MAC), "{second} s");
    }
    assert_eq!(table.due_request(61 * SECOND), Some(THEIRS));
    assert_eq!(table.lookup(THEIRS), None);
    table.learn(&request_frame(THEIR_MAC, THEIRS, OURS), 70 * SECOND);
    assert_eq!(table.lookup(THEIRS), Some(THEIR_MAC));
}

#[test]
fn strangers_and_broken_frames_teach_nothing() {
    let mut table = Neighbours::default();
    assert_eq!(table.lookup(THEIRS), None);
    let frame = request_frame(THEIR_MAC, THEIRS, OURS);
    for len in 0..frame.len() {
        table.learn(&frame[..len], 0);
    }
    table.learn(&request_frame(Mac::BROADCAST, THEIRS, OURS), 0);
    table.learn(&request_frame(THEIR_MAC, Ipv4Addr::new(10, 0, 0, 7), OURS), 0);
    assert_eq!(table.lookup(THEIRS), None);
    assert_eq!(table.entries.len(), 1, "only who was asked for takes room");
}

#[test]
fn multicast_and_broadcast_need_no_answer() {
    let mut table = Neighbours::default();
    let group = Ipv4Addr::new(239, 0, 0, 1);
    assert_eq!(table.lookup(group), Some(Mac::of_multicast(group)));
    assert_eq!(table.lookup(Ipv4Addr::BROADCAST), Some(Mac::BROADCAST));
    assert_eq!(table.due_request(0), None);
}
