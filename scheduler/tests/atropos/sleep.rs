//! Clients that sleep: what they are left with when they wake, and what it costs nobody else.

use moirai_scheduler::Service::Guaranteed;
use moirai_scheduler::{Amount, Atropos, ClientId, Contract, Head, Moment, Policy, Ranked};

use super::{A, B, MS, at, contract, left_at, picked, policy, ranks, wake, with_extra, work};

#[test]
fn a_long_sleep_repays_debt_as_waiting_would() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, work(10), at(10));
    policy.block(A, at(10));
    wake(&mut policy, A, 35);
    assert_eq!(picked(&mut policy, 35), Some((A, Guaranteed, 37)));
}

#[test]
fn a_client_that_wakes_after_its_deadline_waits_for_its_refill() {
    let mut policy = policy(&[(A, contract(10, 2, 4))]);
    wake(&mut policy, A, 0);
    policy.block(A, at(1));
    wake(&mut policy, A, 5);
    assert_eq!(picked(&mut policy, 5), None);
    assert_eq!(policy.timeout(at(5)), Some(at(10)));
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 12)));
}

#[test]
fn a_client_that_wakes_late_is_left_with_what_its_bandwidth_can_still_use() {
    let mut policy = policy(&[(A, contract(10, 5, 10))]);
    wake(&mut policy, A, 0);
    policy.block(A, Moment::ZERO);
    wake(&mut policy, A, 6);
    assert_eq!(picked(&mut policy, 6), Some((A, Guaranteed, 8)));
}

#[test]
fn a_short_sleep_costs_no_more_than_its_length() {
    let mut policy = policy(&[(A, contract(100, 30, 100))]);
    wake(&mut policy, A, 0);
    policy.block(A, at(70));
    wake(&mut policy, A, 71);
    // Bandwidth alone would leave 8.7 of 30.
    assert_eq!(picked(&mut policy, 71), Some((A, Guaranteed, 100)));
    policy.charge(A, Guaranteed, work(29), at(100));
    assert_eq!(policy.account(A).unwrap().misses, 0);
}

#[test]
fn a_client_whose_unit_is_in_service_is_not_asleep() {
    let mut policy = policy(&[(A, contract(100, 30, 100))]);
    wake(&mut policy, A, 0);
    policy.block(A, at(60));
    policy.charge(A, Guaranteed, work(5), at(75));
    policy.charge(A, Guaranteed, work(5), at(80));
    wake(&mut policy, A, 80);
    assert_eq!(policy.pick(at(80)).unwrap().until, at(100));
}

#[test]
fn a_sleeper_is_ranked_with_the_slice_that_a_wake_up_would_give_it() {
    let mut policy = policy(&[(A, contract(10, 4, 10)), (B, contract(20, 8, 20))]);
    assert_eq!(ranks(&mut policy, 0), [(A, 10, 4), (B, 20, 8)]);
    assert_eq!(ranks(&mut policy, 7), [(A, 17, 4), (B, 27, 8)], "from now on, whenever now is");
    assert_eq!(policy.timeout(at(7)), None, "two that sleep keep their order");
    wake(&mut policy, A, 12);
    assert_eq!(ranks(&mut policy, 12), [(A, 22, 4), (B, 32, 8)]);
    assert_eq!(policy.timeout(at(12)), Some(at(22)), "ends of budgets are in the ranks");
    policy.charge(A, Guaranteed, work(1), at(13));
    policy.block(A, at(13));
    assert_eq!(ranks(&mut policy, 17)[0], (A, 22, 2), "before its refill: what it would be left");
    assert_eq!(policy.timeout(at(17)), Some(at(22)));
    assert_eq!(ranks(&mut policy, 23)[0], (A, 33, 4));
    assert_eq!(policy.account(A).unwrap().stall_loss, Amount::ZERO);
}

#[test]
fn a_sleeper_past_its_deadline_is_ranked_again_when_its_refill_has_passed() {
    let mut policy = policy(&[(A, contract(20, 4, 5))]);
    wake(&mut policy, A, 0);
    policy.block(A, at(1));
    assert_eq!(ranks(&mut policy, 2), [(A, 5, 3)]);
    assert_eq!(policy.timeout(at(2)), Some(at(5)), "it loses its place then");
    assert_eq!(ranks(&mut policy, 5), []);
    assert_eq!(policy.timeout(at(5)), Some(at(20)));
    assert_eq!(ranks(&mut policy, 20), [(A, 25, 4)]);
    assert_eq!(policy.timeout(at(20)), None);
}

#[test]
fn a_sleeper_falls_behind_a_fixed_deadline_when_time_comes_to_it() {
    let mut policy = policy(&[(A, contract(10, 1, 5)), (B, contract(20, 8, 20))]);
    wake(&mut policy, B, 0);
    assert_eq!(ranks(&mut policy, 3), [(A, 8, 1), (B, 20, 8)]);
    assert_eq!(policy.timeout(at(3)), Some(Moment::from_nanos(15 * MS + 1)));
    policy.ranks(Moment::from_nanos(15 * MS + 1), &mut |_| {});
    assert_eq!(ranks(&mut policy, 16), [(B, 20, 8), (A, 21, 1)]);
    assert_eq!(policy.timeout(at(16)), Some(at(20)), "the next slice of the other");
}

#[test]
fn idle_sleepers_behind_everybody_change_no_order() {
    let mut policy = Atropos::new(401);
    for id in 0..400 {
        policy.add(ClientId(id), contract(1_000, 1, 1_000), Moment::ZERO).unwrap();
    }
    policy.add(ClientId(400), contract(10, 6, 10), Moment::ZERO).unwrap();
    policy.wake(ClientId(400), Head::default(), Moment::ZERO);
    let mut looks = 0;
    let mut now = Moment::ZERO;
    while now < at(1_000) {
        policy.ranks(now, &mut |_| {});
        looks += 1;
        now = policy.timeout(now).unwrap();
    }
    assert_eq!(looks, 100, "the periods of the busy one");
}

#[test]
fn a_ranked_sleeper_whose_debt_is_not_paid_gets_its_slice_when_it_is() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, work(8), at(8));
    policy.block(A, at(8));
    assert_eq!(ranks(&mut policy, 10), []);
    assert_eq!(policy.timeout(at(10)), Some(at(20)));
    assert_eq!(ranks(&mut policy, 20), [(A, 30, 1)]);
    assert_eq!(ranks(&mut policy, 30), [(A, 40, 3)]);
}

/// A kernel that switches by itself tells of a wake-up later, when it has counted what was used.
#[test]
fn a_wake_up_that_is_told_later_counts_from_when_it_was() {
    let mut policy = policy(&[(A, contract(20, 4, 5))]);
    ranks(&mut policy, 30);
    let head = Head { arrival: at(28), ..Head::default() };
    policy.wake(A, head, at(31));
    let state = policy.state(A).unwrap();
    assert_eq!((state.deadline, state.refill), (at(33), at(48)));
}

#[test]
fn a_wake_up_within_a_slice_is_paid_from_it() {
    let mut policy = policy(&[(A, contract(10, 4, 10))]);
    policy.set_wake_cost(work(1));
    wake(&mut policy, A, 0);
    assert_eq!(policy.state(A).unwrap().left, 4_000_000, "the first is admitted with the slice");
    for left in [3_000_000, 2_000_000, 1_000_000, 0, 0] {
        policy.block(A, Moment::ZERO);
        wake(&mut policy, A, 0);
        assert_eq!(policy.state(A).unwrap().left, left);
    }
    wake(&mut policy, A, 10);
    policy.block(A, at(10));
    wake(&mut policy, A, 20);
    assert_eq!(policy.state(A).unwrap().left, 4_000_000, "so is the first of every other");
    let account = policy.account(A).unwrap();
    assert_eq!((account.guaranteed, account.misses), (Amount::ZERO, 0));
}

#[test]
fn a_late_sleeper_in_a_set_that_only_the_exact_test_admits_loses_its_sleep() {
    let mut dense = policy(&[(A, contract(20, 4, 10)), (B, contract(40, 6, 6))]);
    assert_eq!(left_at(&mut dense, 3), 1, "bandwidth would leave 2.8 and make B late");
    let mut full = policy(&[(A, contract(20, 4, 10)), (B, contract(40, 6, 10))]);
    assert_eq!(left_at(&mut full, 5), 2, "this set passes by density");
}

#[test]
fn the_fair_rest_is_given_only_where_blocking_fits_too() {
    let left = |blocking: u64, also: Option<Contract>| {
        let mut policy = Atropos::new(2);
        policy.add(A, contract(100, 30, 100), Moment::ZERO).unwrap();
        if let Some(also) = also {
            policy.add(B, also, Moment::ZERO).unwrap();
        }
        policy.set_blocking(work(blocking));
        left_at(&mut policy, 50)
    };
    assert_eq!(left(0, None), 15);
    assert_eq!(left(35, None), 15);
    assert_eq!(left(36, None), 0, "0.3 + 2 * 0.36 is more than the whole");
    assert_eq!(left(35, Some(with_extra(1, 0, 1))), 15, "who has no slice does not count");
    assert_eq!(left(20, Some(contract(50, 5, 50))), 0, "0.4 + 3 * 0.4");
}

#[test]
fn a_sleep_with_blocking_costs_one_unit_more_than_its_length() {
    let mut policy = policy(&[(A, contract(100, 30, 100)), (B, contract(100, 60, 100))]);
    policy.set_blocking(work(5));
    wake(&mut policy, A, 0);
    policy.block(A, at(10));
    wake(&mut policy, A, 12);
    assert_eq!(policy.state(A).unwrap().left, 23_000_000);
    policy.block(A, at(20));
    wake(&mut policy, A, 20);
    assert_eq!(policy.state(A).unwrap().left, 23_000_000, "nobody got in");
}

#[test]
fn a_rest_that_one_unit_may_outlast_cannot_be_missed() {
    let misses = |blocking: u64, slept: u64, rival: Contract| {
        let mut policy = policy(&[(A, contract(100, 30, 100)), (B, rival)]);
        policy.set_blocking(work(blocking));
        wake(&mut policy, A, 0);
        policy.block(A, at(40 - slept));
        wake(&mut policy, A, 40);
        // Somebody else has the resource until 105.
        policy.pick(at(105));
        policy.charge(A, Guaranteed, work(1), at(110));
        policy.account(A).unwrap().misses
    };
    let (short, long) = (contract(50, 5, 50), contract(70, 5, 70));
    assert_eq!(misses(5, 10, short), 1, "60 ms are left, the shortest deadline is 50");
    assert_eq!(misses(5, 10, long), 0, "the shortest deadline is 70");
    assert_eq!(misses(5, 0, long), 1, "it did not sleep");
    assert_eq!(misses(0, 10, long), 1, "nothing blocks");
    let dense = contract(50, 40, 50);
    assert_eq!(misses(5, 10, dense), 0, "no promise for a sleeper in a dense set with blocking");
}

#[test]
fn many_naps_with_blocking_cost_one_unit_in_all() {
    let mut policy = policy(&[(A, contract(100, 60, 80)), (B, contract(100, 40, 80))]);
    policy.set_blocking(work(5));
    wake(&mut policy, A, 0);
    for nap in 1..=5 {
        policy.block(A, at(nap * 2 - 1));
        wake(&mut policy, A, nap * 2);
    }
    assert_eq!(policy.state(A).unwrap().left, 45_000_000, "60 - 10 - 5");
}
