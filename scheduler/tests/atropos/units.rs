//! Whole units: paid for when they are handed out, settled when they are back.

use moirai_scheduler::device::{CostModel, Kind, Window};
use moirai_scheduler::{Atropos, Contract, Miss, Mode, Nanos, Policy, Service, Ticket, Weight};

use super::{A, B, MS, contract, policy, wake};

/// The next unit, of `estimate` milliseconds, goes to the device at `at`; its client has more work.
fn hand_out(policy: &mut Atropos, estimate: u64, at: u64) -> Ticket {
    let pick = policy.pick(at * MS).unwrap();
    policy.hand_out(&pick, estimate * MS, at * MS)
}

fn left(policy: &Atropos) -> i64 {
    policy.state(A).unwrap().left / MS.cast_signed()
}

fn misses(policy: &mut Atropos) -> Vec<(u64, u64, u64)> {
    let mut seen = Vec::new();
    policy.take_misses(&mut |Miss { since, deadline, late, .. }| {
        seen.push((since / MS, deadline / MS, late / MS));
    });
    seen
}

#[test]
fn a_slice_is_overdrawn_by_one_unit_however_many_the_device_takes() {
    let mut policy = policy(&[(A, contract(100, 5, 100))]);
    wake(&mut policy, A, 0);
    let mut handed = 0;
    while policy.pick(0).is_some() {
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
    policy.complete(ticket, MS, MS);
    assert_eq!(left(&policy), 4);
    let ticket = hand_out(&mut policy, 1, 1);
    policy.complete(ticket, 3 * MS, 4 * MS);
    assert_eq!(left(&policy), 1, "and what it cost more is paid");
    assert_eq!(policy.account(A).unwrap().guaranteed, 4 * MS);
}

#[test]
fn nobody_gets_in_between_while_the_last_units_of_a_slice_may_give_something_back() {
    let rich = Contract::new(100 * MS, 50 * MS, 100 * MS, Weight::new(1)).unwrap();
    let mut policy = policy(&[(A, contract(50, 5, 20)), (B, rich)]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    let first = hand_out(&mut policy, 6, 0);
    assert_eq!(policy.state(A).unwrap().mode, Mode::Settling);
    assert_eq!(policy.pick(0), None, "B is due later");
    policy.complete(first, MS, MS);
    assert_eq!(policy.pick(MS).unwrap().client, A);
    let second = hand_out(&mut policy, 4, 1);
    policy.complete(second, 4 * MS, 5 * MS);
    assert_eq!(policy.pick(5 * MS).unwrap().client, B, "the slice is used up");
}

#[test]
fn a_unit_of_an_earlier_slice_repays_its_debt_and_no_more() {
    let mut policy = policy(&[(A, contract(10, 5, 10))]);
    wake(&mut policy, A, 0);
    let ticket = hand_out(&mut policy, 7, 0);
    wake(&mut policy, A, 0);
    assert!(policy.pick(10 * MS).is_some());
    assert_eq!(left(&policy), 3, "the debt of 2 was taken from the new slice");
    policy.complete(ticket, MS, 10 * MS);
    assert_eq!(left(&policy), 5, "not 9");
}

#[test]
fn a_unit_that_comes_back_late_is_a_miss_although_its_client_has_no_other_work() {
    let mut policy = policy(&[(A, contract(100, 5, 10))]);
    wake(&mut policy, A, 0);
    let ticket = hand_out(&mut policy, 1, 0);
    policy.block(A, 0);
    policy.complete(ticket, MS, 12 * MS);
    assert_eq!(misses(&mut policy), [(0, 10, 2)]);
    assert_eq!(policy.account(A).unwrap().misses, 1);
    assert_eq!(misses(&mut policy), []);
}

#[test]
fn a_slice_that_is_not_handed_out_in_time_is_missed_once() {
    let mut policy = policy(&[(A, contract(100, 5, 10))]);
    wake(&mut policy, A, 0);
    let ticket = hand_out(&mut policy, 1, 0);
    policy.complete(ticket, MS, 11 * MS);
    let _ = hand_out(&mut policy, 1, 12);
    policy.judge(99 * MS);
    assert_eq!(policy.account(A).unwrap().misses, 1);
    assert_eq!(misses(&mut policy), [(0, 10, 4)], "4 of 5 ms were not begun");
}

#[test]
fn who_wakes_while_its_unit_is_inside_has_not_slept_unless_others_got_in() {
    let dense = [(A, contract(20, 10, 20)), (B, contract(20, 10, 20))];
    for (intruder, expected) in [(false, 9), (true, 7)] {
        let mut policy = policy(&dense);
        policy.set_blocking(2 * MS);
        wake(&mut policy, A, 0);
        let ticket = hand_out(&mut policy, 1, 0);
        policy.block(A, 0);
        if intruder {
            wake(&mut policy, B, 0);
            let _ = hand_out(&mut policy, 1, 0);
        }
        wake(&mut policy, A, 3);
        assert_eq!(left(&policy), expected);
        policy.complete(ticket, MS, 4 * MS);
    }
}

#[test]
fn slack_is_charged_when_it_is_handed_out_too() {
    let extra = |weight| Contract::new(10 * MS, 0, 10 * MS, Weight::new(weight)).unwrap();
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
    let mut model = CostModel::new(MS);
    for (depth, cost) in [(1, 70_000), (4, 300_000), (32, 20_000)] {
        model.learn(Kind::Read, 4096, cost, 0);
        let estimate: Nanos = model.estimate(Kind::Read, 4096, 0);
        let mut window = Window::new(depth, MS);
        while window.fits(Service::Guaranteed, estimate, true) {
            window.begin(estimate);
        }
        assert!(window.outstanding() <= MS && window.units() <= depth);
    }
}

#[test]
fn a_unit_that_does_not_come_back_holds_up_nobody_and_is_a_miss_at_once() {
    let mut policy = policy(&[(A, contract(100, 5, 10)), (B, contract(100, 50, 100))]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    let mut stuck = hand_out(&mut policy, 6, 0);
    assert_eq!(policy.pick(MS), None, "A keeps its place for what may come back");
    policy.overdue(&mut stuck, 2 * MS);
    assert_eq!(policy.pick(2 * MS).unwrap().client, B);
    assert_eq!(misses(&mut policy), [], "it is not late yet");
    policy.overdue(&mut stuck, 12 * MS);
    policy.overdue(&mut stuck, 13 * MS);
    assert_eq!(misses(&mut policy), [(0, 10, 2)], "once");
    policy.complete(stuck, 20 * MS, 20 * MS);
    assert_eq!((left(&policy), misses(&mut policy)), (-15, vec![]));
}
