//! Slices: whose turn it is, debt, misses, changes, slack.

use moirai_scheduler::Service::Guaranteed;
use moirai_scheduler::{Atropos, Policy, PolicyError, SLACK_QUANTUM, Service};

use super::{A, B, MS, contract, left_at, picked, policy, ranks, wake, with_extra};

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
fn a_client_that_has_never_run_is_ranked_from_now_on() {
    let mut policy = Atropos::new(2);
    policy.add(A, contract(10, 4, 10), 3 * MS).unwrap();
    assert_eq!(ranks(&mut policy, 3), [(A, 13, 4)]);
    policy.add(B, contract(10, 4, 10), 7 * MS).unwrap();
    assert_eq!(ranks(&mut policy, 7), [(A, 17, 4), (B, 17, 4)]);
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
