//! Whole units: paid for when they are handed out, settled when they are back.

use moirai_scheduler::device::{CostModel, Kind, Window};
use moirai_scheduler::{
    Amount, Atropos, Contract, Miss, Mode, Moment, Policy, Service, Ticket, Weight,
};

use super::{A, B, MS, at, contract, ms, policy, wake, work};

/// The next unit, of `estimate` milliseconds, goes to the device at `at`; its client has more work.
fn hand_out(policy: &mut Atropos, estimate: u64, at: u64) -> Ticket {
    let pick = policy.pick(Moment::from_millis(at)).unwrap();
    policy.hand_out(&pick, work(estimate), Moment::from_millis(at))
}

fn left(policy: &Atropos) -> i64 {
    policy.state(A).unwrap().left / MS.cast_signed()
}

fn misses(policy: &mut Atropos) -> Vec<(u64, u64, u64)> {
    let mut seen = Vec::new();
    policy.take_misses(&mut |Miss { since, deadline, late, .. }| {
        seen.push((since.as_millis(), deadline.as_millis(), late.as_millis()));
    });
    seen
}

#[test]
fn a_slice_is_overdrawn_by_one_unit_however_many_the_device_takes() {
    let mut policy = policy(&[(A, contract(100, 5, 100))]);
    wake(&mut policy, A, 0);
    let mut handed = 0;
    while policy.pick(Moment::ZERO).is_some() {
        let _ = hand_out(&mut policy, 2, 0);
        handed += 1;
    }
    assert_eq!((handed, left(&policy)), (3, -1));
}

#[test]
fn what_a_unit_cost_less_than_reckoned_goes_back_to_its_slice() {
    let mut policy = policy(&[(A, contract(100, 5, 100))]);
    wake(&mut policy, A, 0);
    let ticket = hand_out(&mut policy, 4, 0);
    policy.complete(ticket, work(1), at(1));
    assert_eq!(left(&policy), 4);
    let ticket = hand_out(&mut policy, 1, 1);
    policy.complete(ticket, work(3), at(4));
    assert_eq!(left(&policy), 1, "and what it cost more is paid");
    assert_eq!(policy.account(A).unwrap().guaranteed, work(4));
}

#[test]
fn nobody_gets_in_between_while_the_last_units_of_a_slice_may_give_something_back() {
    let rich = Contract::new(ms(100), work(50), ms(100), Weight::new(1)).unwrap();
    let mut policy = policy(&[(A, contract(50, 5, 20)), (B, rich)]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    let first = hand_out(&mut policy, 6, 0);
    assert_eq!(policy.state(A).unwrap().mode, Mode::Settling);
    assert_eq!(policy.pick(Moment::ZERO), None, "B is due later");
    policy.complete(first, work(1), at(1));
    assert_eq!(policy.pick(at(1)).unwrap().client, A);
    let second = hand_out(&mut policy, 4, 1);
    policy.complete(second, work(4), at(5));
    assert_eq!(policy.pick(at(5)).unwrap().client, B, "the slice is used up");
}

#[test]
fn a_unit_of_an_earlier_slice_repays_its_debt_and_no_more() {
    let mut policy = policy(&[(A, contract(10, 5, 10))]);
    wake(&mut policy, A, 0);
    let ticket = hand_out(&mut policy, 7, 0);
    wake(&mut policy, A, 0);
    assert!(policy.pick(at(10)).is_some());
    assert_eq!(left(&policy), 3, "the debt of 2 was taken from the new slice");
    policy.complete(ticket, work(1), at(10));
    assert_eq!(left(&policy), 5, "not 9");
}

#[test]
fn a_unit_that_comes_back_late_is_a_miss_although_its_client_has_no_other_work() {
    let mut policy = policy(&[(A, contract(100, 5, 10))]);
    wake(&mut policy, A, 0);
    let ticket = hand_out(&mut policy, 1, 0);
    policy.block(A, Moment::ZERO);
    policy.complete(ticket, work(1), at(12));
    assert_eq!(misses(&mut policy), [(0, 10, 2)]);
    assert_eq!(policy.account(A).unwrap().misses, 1);
    assert_eq!(misses(&mut policy), []);
}

#[test]
fn a_slice_that_is_not_handed_out_in_time_is_missed_once() {
    let mut policy = policy(&[(A, contract(100, 5, 10))]);
    wake(&mut policy, A, 0);
    let ticket = hand_out(&mut policy, 1, 0);
    policy.complete(ticket, work(1), at(11));
    let _ = hand_out(&mut policy, 1, 12);
    policy.judge(at(99));
    assert_eq!(policy.account(A).unwrap().misses, 1);
    assert_eq!(misses(&mut policy), [(0, 10, 4)], "4 of 5 ms were not begun");
}

#[test]
fn who_wakes_while_its_unit_is_inside_has_not_slept_unless_others_got_in() {
    let dense = [(A, contract(20, 10, 20)), (B, contract(20, 10, 20))];
    for (intruder, expected) in [(false, 9), (true, 7)] {
        let mut policy = policy(&dense);
        policy.set_blocking(work(2));
        wake(&mut policy, A, 0);
        let ticket = hand_out(&mut policy, 1, 0);
        policy.block(A, Moment::ZERO);
        if intruder {
            wake(&mut policy, B, 0);
            let _ = hand_out(&mut policy, 1, 0);
        }
        wake(&mut policy, A, 3);
        assert_eq!(left(&policy), expected);
        policy.complete(ticket, work(1), at(4));
    }
}

#[test]
fn slack_is_charged_when_it_is_handed_out_too() {
    let extra = |weight| Contract::new(ms(10), Amount::ZERO, ms(10), Weight::new(weight)).unwrap();
    let mut policy = policy(&[(A, extra(1)), (B, extra(1))]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    let order: Vec<_> = (0..4).map(|_| hand_out(&mut policy, 1, 0).client).collect();
    assert_eq!(order, [A, B, A, B], "not A four times before anything is back");
}

/// Disk and window as their owners use them: what a newcomer finds in front of it is one largest
/// unit at any depth.
#[test]
fn a_newcomer_finds_no_more_than_one_largest_unit_inside() {
    let mut model = CostModel::new(work(1));
    for (depth, cost) in [(1, 70_000), (4, 300_000), (32, 20_000)] {
        model.learn(Kind::Read, 4096, Amount::from_nanos(cost), Moment::ZERO);
        let estimate: Amount = model.estimate(Kind::Read, 4096, Moment::ZERO);
        let mut window = Window::new(depth, work(1));
        while window.fits(Service::Guaranteed, estimate, true) {
            window.begin(estimate);
        }
        assert!(window.outstanding() <= work(1) && window.units() <= depth);
    }
}

#[test]
fn a_unit_that_does_not_come_back_holds_up_nobody_and_is_a_miss_at_once() {
    let mut policy = policy(&[(A, contract(100, 5, 10)), (B, contract(100, 50, 100))]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    let mut stuck = hand_out(&mut policy, 6, 0);
    assert_eq!(policy.pick(at(1)), None, "A keeps its place for what may come back");
    policy.overdue(&mut stuck, at(2));
    assert_eq!(policy.pick(at(2)).unwrap().client, B);
    assert_eq!(misses(&mut policy), [], "it is not late yet");
    policy.overdue(&mut stuck, at(12));
    policy.overdue(&mut stuck, at(13));
    assert_eq!(misses(&mut policy), [(0, 10, 2)], "once");
    policy.complete(stuck, work(20), at(20));
    assert_eq!((left(&policy), misses(&mut policy)), (-15, vec![]));
}
