//! The rules of the default policy, one by one, in virtual time. Times in milliseconds.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

use moirai_scheduler::{
    Atropos, ClientId, Contract, Head, Nanos, Pick, Policy, PolicyError, Rank, SLACK_QUANTUM,
    Service, Weight,
};

const MS: Nanos = 1_000_000;
const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);

fn contract(period: u64, slice: u64, deadline: u64) -> Contract {
    Contract::new(period * MS, slice * MS, deadline * MS, None).unwrap()
}

fn with_extra(period: u64, slice: u64, weight: u32) -> Contract {
    Contract::new(period * MS, slice * MS, period * MS, Weight::new(weight)).unwrap()
}

fn policy(clients: &[(ClientId, Contract)]) -> Atropos {
    let mut policy = Atropos::new(clients.len());
    for &(id, contract) in clients {
        policy.add(id, contract, 0).unwrap();
    }
    policy
}

fn wake(policy: &mut Atropos, id: ClientId, at: u64) {
    policy.wake(id, Head::default(), at * MS);
}

fn picked(policy: &mut Atropos, at: u64) -> Option<(ClientId, Service, u64)> {
    let Pick { client, service, until, .. } = policy.pick(at * MS)?;
    Some((client, service, until / MS))
}

fn ranks(policy: &mut Atropos, at: u64) -> Vec<(ClientId, u64, u64)> {
    let mut seen = Vec::new();
    policy.ranks(at * MS, &mut |Rank { client, deadline, budget }| {
        seen.push((client, deadline / MS, budget / MS));
    });
    seen
}

use Service::Guaranteed;

#[test]
fn the_earliest_deadline_is_served_first_until_its_slice_is_used_up() {
    let mut policy = policy(&[(A, contract(20, 5, 20)), (B, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    assert_eq!(picked(&mut policy, 0), Some((B, Guaranteed, 3)));
    policy.charge(B, Guaranteed, 3 * MS, 3 * MS);
    assert_eq!(picked(&mut policy, 3), Some((A, Guaranteed, 8)));
    policy.charge(A, Guaranteed, 5 * MS, 8 * MS);
    assert_eq!(picked(&mut policy, 8), None);
    assert_eq!(policy.timeout(8 * MS), Some(10 * MS));
    assert_eq!(picked(&mut policy, 10), Some((B, Guaranteed, 13)));
}

#[test]
fn equal_deadlines_fall_to_the_lower_id() {
    let mut policy = policy(&[(B, contract(10, 1, 10)), (A, contract(10, 1, 10))]);
    wake(&mut policy, B, 0);
    wake(&mut policy, A, 0);
    assert_eq!(policy.pick(0).unwrap().client, A);
}

#[test]
fn overrun_is_carried_into_the_next_slice_as_debt() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, 4 * MS, 4 * MS);
    assert_eq!(picked(&mut policy, 4), None);
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 12)));
}

#[test]
fn debt_of_several_slices_is_repaid_period_by_period() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, 10 * MS, 10 * MS);
    assert_eq!(picked(&mut policy, 10), None);
    assert_eq!(picked(&mut policy, 20), None);
    assert_eq!(picked(&mut policy, 30), Some((A, Guaranteed, 32)));
}

#[test]
fn a_long_sleep_repays_debt_as_waiting_would() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, 10 * MS, 10 * MS);
    policy.block(A, 10 * MS);
    wake(&mut policy, A, 35);
    assert_eq!(picked(&mut policy, 35), Some((A, Guaranteed, 37)));
}

#[test]
fn a_client_that_wakes_after_its_deadline_waits_for_its_refill() {
    let mut policy = policy(&[(A, contract(10, 2, 4))]);
    wake(&mut policy, A, 0);
    policy.block(A, MS);
    wake(&mut policy, A, 5);
    assert_eq!(picked(&mut policy, 5), None);
    assert_eq!(policy.timeout(5 * MS), Some(10 * MS));
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 12)));
}

#[test]
fn a_client_that_wakes_late_is_left_with_what_its_bandwidth_can_still_use() {
    let mut policy = policy(&[(A, contract(10, 5, 10))]);
    wake(&mut policy, A, 0);
    policy.block(A, 0);
    wake(&mut policy, A, 6);
    assert_eq!(picked(&mut policy, 6), Some((A, Guaranteed, 8)));
}

#[test]
fn a_short_sleep_costs_no_more_than_its_length() {
    let mut policy = policy(&[(A, contract(100, 30, 100))]);
    wake(&mut policy, A, 0);
    policy.block(A, 70 * MS);
    wake(&mut policy, A, 71);
    // Bandwidth alone would leave 8.7 of 30.
    assert_eq!(picked(&mut policy, 71), Some((A, Guaranteed, 100)));
    policy.charge(A, Guaranteed, 29 * MS, 100 * MS);
    assert_eq!(policy.account(A).unwrap().misses, 0);
}

#[test]
fn a_client_whose_unit_is_in_service_is_not_asleep() {
    let mut policy = policy(&[(A, contract(100, 30, 100))]);
    wake(&mut policy, A, 0);
    policy.block(A, 60 * MS);
    policy.charge(A, Guaranteed, 5 * MS, 75 * MS);
    policy.charge(A, Guaranteed, 5 * MS, 80 * MS);
    wake(&mut policy, A, 80);
    assert_eq!(policy.pick(80 * MS).unwrap().until, 100 * MS);
}

#[test]
fn whole_periods_without_a_decision_are_lost_and_recorded() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, 3 * MS, 3 * MS);
    assert_eq!(picked(&mut policy, 47), Some((A, Guaranteed, 50)));
    let account = policy.account(A).unwrap();
    assert_eq!(account.stall_loss, 9 * MS);
    assert_eq!(account.refills, 2);
    assert_eq!(account.misses, 0);
    policy.charge(A, Guaranteed, 3 * MS, 50 * MS);
    assert_eq!(picked(&mut policy, 50), Some((A, Guaranteed, 53)), "the grid of periods stays");
}

#[test]
fn slack_is_shared_by_weight_and_never_touches_a_slice() {
    let (a, b) = (with_extra(10, 1, 3), with_extra(10, 0, 1));
    let mut policy = policy(&[(A, a), (B, b)]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    let mut now = 0;
    while now < 1000 * MS {
        let pick = policy.pick(now).unwrap();
        assert!(pick.until - now <= SLACK_QUANTUM || pick.service == Guaranteed);
        policy.charge(pick.client, pick.service, pick.until - now, pick.until);
        now = pick.until;
    }
    let (a, b) = (policy.account(A).unwrap(), policy.account(B).unwrap());
    assert_eq!(a.guaranteed, 100 * MS);
    assert_eq!(b.guaranteed, 0);
    assert_eq!(a.extra + b.extra, 900 * MS);
    assert!((a.extra / 3).abs_diff(b.extra) <= 2 * SLACK_QUANTUM, "{a:?} {b:?}");
}

#[test]
fn a_missed_slice_is_counted_once() {
    let mut policy = policy(&[(A, contract(10, 3, 5))]);
    wake(&mut policy, A, 0);
    // Somebody else holds the resource until 6.
    assert_eq!(picked(&mut policy, 6), Some((A, Guaranteed, 9)));
    policy.charge(A, Guaranteed, 3 * MS, 9 * MS);
    assert_eq!(policy.account(A).unwrap().misses, 1);
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 13)));
    policy.charge(A, Guaranteed, 3 * MS, 13 * MS);
    assert_eq!(policy.account(A).unwrap().misses, 1);
}

#[test]
fn a_unit_that_ends_just_after_the_deadline_shows_that_the_slice_was_in_time() {
    let mut policy = policy(&[(A, contract(10, 3, 10)), (B, contract(10, 1, 10))]);
    wake(&mut policy, A, 0);
    // In service from 6 to 11; the refill at 10 is seen before the charge.
    wake(&mut policy, B, 10);
    policy.charge(A, Guaranteed, 5 * MS, 11 * MS);
    assert_eq!(policy.account(A).unwrap().misses, 0);
    wake(&mut policy, B, 20);
    policy.charge(A, Guaranteed, MS, 23 * MS);
    assert_eq!(policy.account(A).unwrap().misses, 0, "of 3, 2 went to the first unit");
}

#[test]
fn ranks_release_slices_to_sleepers_at_fixed_boundaries() {
    let mut policy = policy(&[(A, contract(10, 4, 10)), (B, contract(20, 8, 20))]);
    assert_eq!(ranks(&mut policy, 0), [(A, 10, 4), (B, 20, 8)]);
    assert_eq!(ranks(&mut policy, 5), [(A, 10, 2), (B, 20, 6)], "what a wake-up would leave");
    assert_eq!(policy.timeout(5 * MS), Some(10 * MS));
    assert_eq!(ranks(&mut policy, 12), [(A, 20, 3), (B, 20, 3)]);
    wake(&mut policy, A, 12);
    assert_eq!(policy.timeout(12 * MS), Some(20 * MS), "ends of budgets are in the ranks");
    policy.charge(A, Guaranteed, 4 * MS, 16 * MS);
    assert_eq!(policy.timeout(16 * MS), Some(20 * MS));
    assert_eq!(ranks(&mut policy, 20).len(), 2);
    assert_eq!(policy.account(A).unwrap().stall_loss, 0);
}

#[test]
fn a_changed_contract_takes_effect_at_the_next_refill() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.change(A, contract(20, 8, 20), MS).unwrap();
    assert_eq!(picked(&mut policy, 1), Some((A, Guaranteed, 4)));
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 18)));
    assert_eq!(policy.timeout(10 * MS), Some(30 * MS));
}

#[test]
fn calls_for_strangers_are_refused_or_ignored() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    let another = contract(10, 1, 10);
    assert_eq!(policy.add(A, another, 0), Err(PolicyError::Exists(A)));
    assert_eq!(policy.add(B, another, 0), Err(PolicyError::Full { capacity: 1 }));
    assert_eq!(policy.remove(B, 0), Err(PolicyError::Unknown(B)));
    assert_eq!(policy.change(B, another, 0), Err(PolicyError::Unknown(B)));
    wake(&mut policy, B, 0);
    policy.block(B, 0);
    policy.charge(B, Guaranteed, MS, 0);
    assert_eq!(policy.account(B), None);
    assert_eq!(policy.pick(0), None);
}

#[test]
fn a_running_client_can_be_removed_and_its_id_used_again() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    assert_eq!(policy.pick(0).unwrap().client, A);
    policy.remove(A, MS).unwrap();
    policy.charge(A, Guaranteed, MS, MS);
    assert_eq!((policy.pick(MS), policy.timeout(MS)), (None, None));
    policy.add(A, contract(5, 1, 5), 2 * MS).unwrap();
    wake(&mut policy, A, 2);
    assert_eq!(picked(&mut policy, 2), Some((A, Guaranteed, 3)));
    assert_eq!(policy.account(A).unwrap().guaranteed, 0);
}

/// What the first client is left with when it wakes at `at` after sleeping since 0.
fn left_at(policy: &mut Atropos, at: u64) -> i64 {
    wake(policy, A, 0);
    policy.block(A, 0);
    wake(policy, A, at);
    policy.state(A).unwrap().left / MS.cast_signed()
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
        policy.add(A, contract(100, 30, 100), 0).unwrap();
        if let Some(also) = also {
            policy.add(B, also, 0).unwrap();
        }
        policy.set_blocking(blocking * MS);
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
    policy.set_blocking(5 * MS);
    wake(&mut policy, A, 0);
    policy.block(A, 10 * MS);
    wake(&mut policy, A, 12);
    assert_eq!(policy.state(A).unwrap().left, 23_000_000);
    policy.block(A, 20 * MS);
    wake(&mut policy, A, 20);
    assert_eq!(policy.state(A).unwrap().left, 23_000_000, "nobody got in");
}

#[test]
fn a_rest_that_one_unit_may_outlast_cannot_be_missed() {
    let misses = |blocking: u64, slept: u64, rival: Contract| {
        let mut policy = policy(&[(A, contract(100, 30, 100)), (B, rival)]);
        policy.set_blocking(blocking * MS);
        wake(&mut policy, A, 0);
        policy.block(A, (40 - slept) * MS);
        wake(&mut policy, A, 40);
        // Somebody else has the resource until 105.
        policy.pick(105 * MS);
        policy.charge(A, Guaranteed, MS, 110 * MS);
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
fn a_denser_contract_counts_until_the_other_takes_effect() {
    let mut policy = policy(&[(A, contract(20, 4, 10)), (B, contract(40, 6, 6))]);
    policy.change(B, contract(40, 6, 40), 0).unwrap();
    policy.change(A, contract(20, 4, 20), 0).unwrap();
    assert_eq!(left_at(&mut policy, 2), 2, "A's first slice is of the new contract");
    let mut ended = self::policy(&[(A, contract(20, 4, 10)), (B, contract(40, 6, 6))]);
    ended.remove(B, 0).unwrap();
    assert_eq!(left_at(&mut ended, 5), 2);
}

#[test]
fn a_client_of_the_slack_has_no_slices_to_release() {
    let mut policy = policy(&[(A, with_extra(10, 0, 1))]);
    wake(&mut policy, A, 0);
    assert_eq!(policy.timeout(0), None);
    policy.charge(A, Guaranteed, MS, MS);
    assert_eq!(picked(&mut policy, 100), Some((A, Service::Extra, 101)));
    assert_eq!(ranks(&mut policy, 200), []);
    let account = policy.account(A).unwrap();
    assert_eq!((account.refills, account.misses, account.stall_loss), (0, 0, 0));
    policy.change(A, contract(10, 3, 10), 200 * MS).unwrap();
    assert_eq!(picked(&mut policy, 200), Some((A, Guaranteed, 203)), "no debt from before");
    policy.change(A, with_extra(10, 0, 1), 200 * MS).unwrap();
    assert_eq!(picked(&mut policy, 210), Some((A, Service::Extra, 211)), "from the next refill on");
    assert_eq!(policy.timeout(210 * MS), None);
}

#[test]
fn what_ends_at_the_deadline_itself_is_in_time() {
    let mut policy = policy(&[(A, contract(10, 3, 5))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, 2 * MS, 5 * MS);
    policy.charge(A, Guaranteed, MS, 5 * MS);
    policy.pick(10 * MS);
    policy.charge(A, Guaranteed, 2 * MS, 15 * MS);
    policy.charge(A, Guaranteed, MS, 15 * MS + 1);
    assert_eq!(policy.account(A).unwrap().misses, 1, "the last was a nanosecond late");
}

#[test]
fn many_naps_with_blocking_cost_one_unit_in_all() {
    let mut policy = policy(&[(A, contract(100, 60, 80)), (B, contract(100, 40, 80))]);
    policy.set_blocking(5 * MS);
    wake(&mut policy, A, 0);
    for nap in 1..=5 {
        policy.block(A, (nap * 2 - 1) * MS);
        wake(&mut policy, A, nap * 2);
    }
    assert_eq!(policy.state(A).unwrap().left, 45_000_000, "60 - 10 - 5");
}

#[test]
fn the_first_boundary_of_ranks_is_where_they_were_first_asked_for() {
    let mut policy = Atropos::new(2);
    policy.add(A, contract(10, 4, 10), 3 * MS).unwrap();
    assert_eq!(ranks(&mut policy, 3), [(A, 13, 4)]);
    policy.add(B, contract(10, 4, 10), 7 * MS).unwrap();
    assert_eq!(ranks(&mut policy, 7).last(), Some(&(B, 17, 4)));
}

#[test]
fn service_that_went_on_past_the_deadline_counts_as_far_as_it_came_before() {
    let misses = |cost, end| {
        let mut policy = policy(&[(A, contract(10, 3, 5))]);
        wake(&mut policy, A, 0);
        policy.charge(A, Guaranteed, cost * MS, end * MS);
        policy.account(A).unwrap().misses
    };
    assert_eq!((misses(4, 6), misses(4, 7)), (0, 1), "3 were given by 5, or only 2");
}

#[test]
fn a_slice_that_comes_late_in_pieces_is_missed_once() {
    let mut policy = policy(&[(A, contract(20, 4, 5))]);
    wake(&mut policy, A, 0);
    for at in [7, 8, 9] {
        policy.charge(A, Guaranteed, MS, at * MS);
        assert_eq!(policy.account(A).unwrap().misses, 1, "at {at} ms");
    }
}
