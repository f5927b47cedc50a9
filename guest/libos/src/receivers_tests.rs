//! Tests of who could be reached.

use super::*;
use core::net::Ipv4Addr;

const MS: u64 = 1_000_000;
const PORT: u16 = 5004;

fn address(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, number), 9)
}

fn answer(number: u8, reason: Reason) -> Unreachable {
    let source = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), PORT);
    Unreachable { source, destination: address(number), reason }
}

fn receivers(count: u8) -> Receivers {
    let addresses: Vec<_> = (1..=count).map(address).collect();
    Receivers::new(&addresses, PORT)
}

/// Packets every 10 ms, and answers once a second, as Linux sends them.
fn refused(receivers: &mut Receivers, number: u8, from_ms: u64, to_ms: u64) {
    for time in (from_ms..to_ms).step_by(10) {
        receivers.tried(usize::from(number) - 1, Ok(()), time * MS);
        if (time - from_ms).is_multiple_of(1000) {
            receivers.answered(&answer(number, Reason::Refused), (time + 1) * MS);
        }
    }
}

fn served(receivers: &mut Receivers, number: u8, from_ms: u64, to_ms: u64) {
    for time in (from_ms..to_ms).step_by(10) {
        receivers.tried(usize::from(number) - 1, Ok(()), time * MS);
    }
}

#[test]
fn single_receiver_that_refuses_was_not_reached() {
    for length in [10, 500, 30_000] {
        let mut one = receivers(1);
        assert_eq!(one.verdict(0), None, "nothing was tried");
        refused(&mut one, 1, 0, length);
        assert_eq!(one.take_trouble(), Some((address(1), Trouble::Answered(Reason::Refused))));
        assert_eq!(one.take_trouble(), None, "once");
        assert_eq!(one.counters().refused, length.div_ceil(1000));
        let verdict = one.verdict(length * MS).unwrap();
        let expected =
            "no receiver could be reached: 10.0.0.1:9 refused (nobody listens at its port)";
        assert_eq!(verdict, expected);
    }
}

#[test]
fn one_that_is_reached_is_enough() {
    let mut two = receivers(2);
    refused(&mut two, 1, 0, 5000);
    served(&mut two, 2, 0, 5000);
    assert_eq!(two.verdict(5000 * MS), None);
}

#[test]
fn every_kind_of_trouble_counts_and_is_named() {
    let mut all = receivers(5);
    for time in [0, 3000 * MS] {
        all.tried(0, Err(SendError::NoRoute), time);
        all.tried(1, Err(SendError::Unresolved), time);
        for (number, reason) in [(3, Reason::NoWay), (4, Reason::TooLarge), (5, Reason::Refused)] {
            all.tried(usize::from(number) - 1, Ok(()), time);
            all.answered(&answer(number, reason), time + MS);
        }
    }
    let expected = Counters { unresolved: 2, unrouted: 2, refused: 2, unreachable: 4 };
    assert_eq!(all.counters(), expected);
    let reasons: Vec<_> =
        core::iter::from_fn(|| all.take_trouble()).map(|(_, why)| why.words().0).collect();
    assert_eq!(reasons, ["no route", "no neighbour", "no way", "too large", "refused"]);
    let verdict = all.verdict(3001 * MS).unwrap();
    assert!(reasons.iter().all(|reason| verdict.contains(reason)), "{verdict}");
    let many = (0..20).fold(receivers(20), |mut many, number| {
        many.tried(number, Err(SendError::NoRoute), 0);
        many
    });
    assert!(many.verdict(0).unwrap().ends_with("; and 12 more"));
}

#[test]
fn receiver_that_leaves_with_the_last_packets_has_got_the_film() {
    let mut one = receivers(1);
    served(&mut one, 1, 0, 60_000);
    refused(&mut one, 1, 60_000, 61_000);
    assert_eq!(one.verdict(61_000 * MS), None);
    // One that left in the middle has not.
    refused(&mut one, 1, 61_000, 70_000);
    assert!(
        one.verdict(70_000 * MS).unwrap().starts_with("no receiver could be reached at the end: ")
    );
}

#[test]
fn trouble_that_is_over_is_forgotten_and_told_again_when_it_comes_back() {
    let mut one = receivers(1);
    refused(&mut one, 1, 0, 2000);
    served(&mut one, 1, 2000, 14_000);
    assert_eq!(one.verdict(14_000 * MS), None);
    one.answered(&answer(1, Reason::Refused), 14_000 * MS);
    assert_eq!(core::iter::from_fn(|| one.take_trouble()).count(), 2);
    // An answer to ARP ends the lack of it at once.
    let mut late = receivers(1);
    late.tried(0, Err(SendError::Unresolved), 0);
    late.tried(0, Ok(()), 1);
    assert_eq!(late.verdict(1), None);
}

#[test]
fn answers_to_others_say_nothing() {
    let mut one = receivers(1);
    served(&mut one, 1, 0, 100);
    one.answered(&answer(9, Reason::Refused), 0);
    let source = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), PORT + 1);
    one.answered(&Unreachable { source, ..answer(1, Reason::Refused) }, 0);
    assert_eq!((one.counters(), one.verdict(0)), (Counters::default(), None));
}

#[test]
fn answers_are_waited_for_only_where_one_may_come() {
    let mut one = receivers(1);
    assert!(!one.is_uncertain(0));
    served(&mut one, 1, 0, 100);
    assert!(one.is_uncertain(100 * MS));
    assert!(!one.is_uncertain(5000 * MS));
    one.answered(&answer(1, Reason::Refused), 100 * MS);
    assert!(!one.is_uncertain(100 * MS));
    let mut group = Receivers::new(&["239.1.1.1:5004".parse().unwrap()], PORT);
    group.tried(0, Ok(()), 0);
    assert!(!group.is_uncertain(0));
}
