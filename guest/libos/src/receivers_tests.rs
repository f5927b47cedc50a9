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

fn lost(reason: Reason) -> Change {
    Change::Lost(Trouble::Answered(reason))
}

fn changes(receivers: &mut Receivers) -> Vec<(SocketAddrV4, Change)> {
    core::iter::from_fn(|| receivers.take_change()).collect()
}

fn reason(change: Change) -> &'static str {
    match change {
        Change::Lost(why) => why.words().0,
        Change::Back => "back",
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
        assert_eq!(one.take_change(), Some((address(1), lost(Reason::Refused))));
        assert_eq!(one.take_change(), None, "once");
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
    let reasons: Vec<_> = changes(&mut all).iter().map(|(_, change)| reason(*change)).collect();
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
    let expected = "no receiver is left: 10.0.0.1:9 refused since t_ms=60001 (nobody listens at \
                    its port)";
    assert_eq!(one.verdict(70_000 * MS).unwrap(), expected);
}

#[test]
fn receiver_that_leaves_early_was_reached_and_the_time_of_its_loss_is_told() {
    // An allowance that others have used up is there again after a second; before, nobody knows.
    for (leaves, told) in [
        (1000, "no receiver could be reached: 10.0.0.1:9 refused ("),
        (1200, "no receiver is left: 10.0.0.1:9 refused since t_ms=1201 ("),
    ] {
        let mut one = receivers(1);
        served(&mut one, 1, 0, leaves);
        refused(&mut one, 1, leaves, leaves + 4000);
        let verdict = one.verdict((leaves + 4000) * MS).unwrap();
        assert!(verdict.starts_with(told), "{verdict}");
    }
}

#[test]
fn receiver_that_stops_to_refuse_is_back_and_has_got_the_film() {
    // Linux allows the next answer a second after the last: what it does not answer then was taken.
    for (refuses_ms, ends_ms) in [(1, 2700), (900, 2700), (1500, 3700), (1500, 60_000)] {
        let mut one = receivers(1);
        refused(&mut one, 1, 0, refuses_ms);
        served(&mut one, 1, refuses_ms, ends_ms);
        assert_eq!(one.verdict(ends_ms * MS), None, "refuses for {refuses_ms} ms of {ends_ms}");
        let told = [(address(1), lost(Reason::Refused)), (address(1), Change::Back)];
        assert_eq!(changes(&mut one), told);
        // It may refuse again, and that is told again.
        one.answered(&answer(1, Reason::Refused), ends_ms * MS);
        assert_eq!(changes(&mut one), [told[0]]);
    }
    // An answer to ARP ends the lack of it at once.
    let mut late = receivers(1);
    late.tried(0, Err(SendError::Unresolved), 0);
    late.tried(0, Ok(()), 1);
    assert_eq!(late.verdict(1), None);
    let told = [(address(1), Change::Lost(Trouble::NoNeighbour)), (address(1), Change::Back)];
    assert_eq!(changes(&mut late), told);
}

#[test]
fn answer_that_is_owed_at_the_end_is_waited_for() {
    let mut one = receivers(1);
    refused(&mut one, 1, 0, 1000);
    served(&mut one, 1, 1000, 1200);
    assert!(one.verdict(1200 * MS).is_some());
    assert!(one.is_uncertain(1200 * MS));
    assert!(!one.is_uncertain(1700 * MS));
    assert_eq!(one.verdict(1700 * MS), None);
    one.answered(&answer(1, Reason::Refused), 1700 * MS);
    assert!(one.verdict(1700 * MS).is_some());
}

#[test]
fn seldom_packets_that_are_all_refused_bring_nobody_back() {
    let mut one = receivers(1);
    for time in (0..60_000).step_by(3000) {
        one.tried(0, Ok(()), time * MS);
        one.answered(&answer(1, Reason::Refused), (time + 1) * MS);
    }
    assert_eq!(changes(&mut one).len(), 1);
    assert!(one.verdict(60_000 * MS).is_some());
}

#[test]
fn receivers_of_one_host_share_its_answers_so_that_silence_of_one_says_little() {
    let list = ["10.0.0.1:1", "10.0.0.1:2"].map(|text| text.parse().unwrap());
    let mut two = Receivers::new(&list, PORT);
    // Both refuse, and both are answered at first; then for a while chance picks the first.
    for time in (0..20_000).step_by(10) {
        for (number, destination) in list.into_iter().enumerate() {
            two.tried(number, Ok(()), time * MS);
            let turn = if time > 8000 { time / 1000 % 2 } else { 0 };
            if time == 0 || time % 1000 == 0 && number as u64 == turn {
                let refusal = Unreachable { destination, ..answer(1, Reason::Refused) };
                two.answered(&refusal, time * MS);
            }
        }
    }
    assert_eq!(changes(&mut two).len(), 2);
    assert!(two.verdict(20_000 * MS).is_some());
}

#[test]
fn receiver_that_comes_and_goes_is_told_each_time_and_is_no_failure() {
    let mut one = receivers(1);
    for round in 0..10 {
        refused(&mut one, 1, round * 4000, round * 4000 + 1500);
        served(&mut one, 1, round * 4000 + 1500, round * 4000 + 4000);
    }
    assert_eq!(one.verdict(40_000 * MS), None);
    assert_eq!((changes(&mut one).len(), one.counters().refused), (20, 20));
}

#[test]
fn waiting_for_a_way_to_anybody_ends() {
    for error in [SendError::NoRoute, SendError::Unresolved] {
        let mut two = receivers(2);
        let every = |two: &mut Receivers, from: u64, to: u64| {
            for time in (from..to).step_by(10) {
                two.tried(0, Err(error), time * MS);
                two.tried(1, Err(error), time * MS);
            }
        };
        assert!(!two.is_hopeless(60_000 * MS), "nothing was tried");
        every(&mut two, 0, 10_010);
        assert!(!two.is_hopeless(10_000 * MS) && two.is_hopeless(10_001 * MS));
        assert!(two.verdict(10_001 * MS).unwrap().starts_with("no receiver could be reached: "));
        two.tried(1, Ok(()), 10_010 * MS);
        assert!(!two.is_hopeless(60_000 * MS), "one is enough");
        every(&mut two, 10_020, 20_020);
        assert!(!two.is_hopeless(20_010 * MS) && two.is_hopeless(20_030 * MS));
    }
    let mut one = receivers(1);
    refused(&mut one, 1, 0, 60_000);
    assert!(!one.is_hopeless(60_000 * MS), "what is refused was sent");
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

#[test]
fn who_was_not_sent_anything_is_named_until_something_is_tried() {
    let mut two = receivers(2);
    two.tried(0, Ok(()), 0);
    assert_eq!(two.untried(), [(1, address(2))]);
    // The time was over before its next hop was known.
    two.tried(1, Err(SendError::Unresolved), MS);
    assert!(two.untried().is_empty());
    assert_eq!(changes(&mut two), [(address(2), Change::Lost(Trouble::NoNeighbour))]);
    assert_eq!((two.counters().unresolved, two.verdict(MS)), (1, None));
}
