//! Slices: whose turn it is, debt, misses, changes, slack.

use moirai_scheduler::Service::Guaranteed;
use moirai_scheduler::{Amount, Atropos, Moment, Policy, PolicyError, SLACK_QUANTUM, Service};

use super::{A, B, MS, at, contract, left_at, picked, policy, ranks, wake, with_extra, work};

#[test]
fn the_earliest_deadline_is_served_first_until_its_slice_is_used_up() {
    let mut policy = policy(&[(A, contract(20, 5, 20)), (B, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    assert_eq!(picked(&mut policy, 0), Some((B, Guaranteed, 3)));
    policy.charge(B, Guaranteed, work(3), at(3));
    assert_eq!(picked(&mut policy, 3), Some((A, Guaranteed, 8)));
    policy.charge(A, Guaranteed, work(5), at(8));
    assert_eq!(picked(&mut policy, 8), None);
    assert_eq!(policy.timeout(at(8)), Some(at(10)));
    assert_eq!(picked(&mut policy, 10), Some((B, Guaranteed, 13)));
}

#[test]
fn equal_deadlines_fall_to_the_lower_id() {
    let mut policy = policy(&[(B, contract(10, 1, 10)), (A, contract(10, 1, 10))]);
    wake(&mut policy, B, 0);
    wake(&mut policy, A, 0);
    assert_eq!(policy.pick(Moment::ZERO).unwrap().client, A);
}

#[test]
fn overrun_is_carried_into_the_next_slice_as_debt() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, work(4), at(4));
    assert_eq!(picked(&mut policy, 4), None);
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 12)));
}

#[test]
fn debt_of_several_slices_is_repaid_period_by_period() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, work(10), at(10));
    assert_eq!(picked(&mut policy, 10), None);
    assert_eq!(picked(&mut policy, 20), None);
    assert_eq!(picked(&mut policy, 30), Some((A, Guaranteed, 32)));
}

#[test]
fn whole_periods_without_a_decision_are_lost_and_recorded() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, work(3), at(3));
    assert_eq!(picked(&mut policy, 47), Some((A, Guaranteed, 50)));
    let account = policy.account(A).unwrap();
    assert_eq!(account.stall_loss, work(9));
    assert_eq!(account.refills, 2);
    assert_eq!(account.misses, 0);
    policy.charge(A, Guaranteed, work(3), at(50));
    assert_eq!(picked(&mut policy, 50), Some((A, Guaranteed, 53)), "the grid of periods stays");
}

#[test]
fn slack_is_shared_by_weight_and_never_touches_a_slice() {
    let (a, b) = (with_extra(10, 1, 3), with_extra(10, 0, 1));
    let mut policy = policy(&[(A, a), (B, b)]);
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    let mut now = Moment::ZERO;
    while now < at(1000) {
        let pick = policy.pick(now).unwrap();
        assert!(pick.until - now <= SLACK_QUANTUM.time() || pick.service == Guaranteed);
        policy.charge(pick.client, pick.service, (pick.until - now).service(), pick.until);
        now = pick.until;
    }
    let (a, b) = (policy.account(A).unwrap(), policy.account(B).unwrap());
    assert_eq!(a.guaranteed, work(100));
    assert_eq!(b.guaranteed, Amount::ZERO);
    assert_eq!(a.extra + b.extra, work(900));
    assert!((a.extra / 3).abs_diff(b.extra) <= 2 * SLACK_QUANTUM, "{a:?} {b:?}");
}

#[test]
fn a_missed_slice_is_counted_once() {
    let mut policy = policy(&[(A, contract(10, 3, 5))]);
    wake(&mut policy, A, 0);
    // Somebody else holds the resource until 6.
    assert_eq!(picked(&mut policy, 6), Some((A, Guaranteed, 9)));
    policy.charge(A, Guaranteed, work(3), at(9));
    assert_eq!(policy.account(A).unwrap().misses, 1);
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 13)));
    policy.charge(A, Guaranteed, work(3), at(13));
    assert_eq!(policy.account(A).unwrap().misses, 1);
}

#[test]
fn a_unit_that_ends_just_after_the_deadline_shows_that_the_slice_was_in_time() {
    let mut policy = policy(&[(A, contract(10, 3, 10)), (B, contract(10, 1, 10))]);
    wake(&mut policy, A, 0);
    // In service from 6 to 11; the refill at 10 is seen before the charge.
    wake(&mut policy, B, 10);
    policy.charge(A, Guaranteed, work(5), at(11));
    assert_eq!(policy.account(A).unwrap().misses, 0);
    wake(&mut policy, B, 20);
    policy.charge(A, Guaranteed, work(1), at(23));
    assert_eq!(policy.account(A).unwrap().misses, 0, "of 3, 2 went to the first unit");
}

#[test]
fn a_changed_contract_takes_effect_at_the_next_refill() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    policy.change(A, contract(20, 8, 20), at(1)).unwrap();
    assert_eq!(picked(&mut policy, 1), Some((A, Guaranteed, 4)));
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 18)));
    assert_eq!(policy.timeout(at(10)), Some(at(30)));
}

#[test]
fn calls_for_strangers_are_refused_or_ignored() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    let another = contract(10, 1, 10);
    assert_eq!(policy.add(A, another, Moment::ZERO), Err(PolicyError::Exists(A)));
    assert_eq!(policy.add(B, another, Moment::ZERO), Err(PolicyError::Full { capacity: 1 }));
    assert_eq!(policy.remove(B, Moment::ZERO), Err(PolicyError::Unknown(B)));
    assert_eq!(policy.change(B, another, Moment::ZERO), Err(PolicyError::Unknown(B)));
    wake(&mut policy, B, 0);
    policy.block(B, Moment::ZERO);
    policy.charge(B, Guaranteed, work(1), Moment::ZERO);
    assert_eq!(policy.account(B), None);
    assert_eq!(policy.pick(Moment::ZERO), None);
}

#[test]
fn a_running_client_can_be_removed_and_its_id_used_again() {
    let mut policy = policy(&[(A, contract(10, 3, 10))]);
    wake(&mut policy, A, 0);
    assert_eq!(policy.pick(Moment::ZERO).unwrap().client, A);
    policy.remove(A, at(1)).unwrap();
    policy.charge(A, Guaranteed, work(1), at(1));
    assert_eq!((policy.pick(at(1)), policy.timeout(at(1))), (None, None));
    policy.add(A, contract(5, 1, 5), at(2)).unwrap();
    wake(&mut policy, A, 2);
    assert_eq!(picked(&mut policy, 2), Some((A, Guaranteed, 3)));
    assert_eq!(policy.account(A).unwrap().guaranteed, Amount::ZERO);
}

#[test]
fn a_denser_contract_counts_until_the_other_takes_effect() {
    let mut policy = policy(&[(A, contract(20, 4, 10)), (B, contract(40, 6, 6))]);
    policy.change(B, contract(40, 6, 40), Moment::ZERO).unwrap();
    policy.change(A, contract(20, 4, 20), Moment::ZERO).unwrap();
    assert_eq!(left_at(&mut policy, 2), 2, "A's first slice is of the new contract");
    let mut ended = self::policy(&[(A, contract(20, 4, 10)), (B, contract(40, 6, 6))]);
    ended.remove(B, Moment::ZERO).unwrap();
    assert_eq!(left_at(&mut ended, 5), 2);
}

#[test]
fn a_client_of_the_slack_has_no_slices_to_release() {
    let mut policy = policy(&[(A, with_extra(10, 0, 1))]);
    wake(&mut policy, A, 0);
    assert_eq!(policy.timeout(Moment::ZERO), None);
    policy.charge(A, Guaranteed, work(1), at(1));
    assert_eq!(picked(&mut policy, 100), Some((A, Service::Extra, 101)));
    assert_eq!(ranks(&mut policy, 200), []);
    let account = policy.account(A).unwrap();
    assert_eq!((account.refills, account.misses, account.stall_loss), (0, 0, Amount::ZERO));
    policy.change(A, contract(10, 3, 10), at(200)).unwrap();
    assert_eq!(picked(&mut policy, 200), Some((A, Guaranteed, 203)), "no debt from before");
    policy.change(A, with_extra(10, 0, 1), at(200)).unwrap();
    assert_eq!(picked(&mut policy, 210), Some((A, Service::Extra, 211)), "from the next refill on");
    assert_eq!(policy.timeout(at(210)), None);
}

#[test]
fn what_ends_at_the_deadline_itself_is_in_time() {
    let mut policy = policy(&[(A, contract(10, 3, 5))]);
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, work(2), at(5));
    policy.charge(A, Guaranteed, work(1), at(5));
    policy.pick(at(10));
    policy.charge(A, Guaranteed, work(2), at(15));
    policy.charge(A, Guaranteed, work(1), Moment::from_nanos(15 * MS + 1));
    assert_eq!(policy.account(A).unwrap().misses, 1, "the last was a nanosecond late");
}

#[test]
fn a_client_that_has_never_run_is_ranked_from_now_on() {
    let mut policy = Atropos::new(2);
    policy.add(A, contract(10, 4, 10), at(3)).unwrap();
    assert_eq!(ranks(&mut policy, 3), [(A, 13, 4)]);
    policy.add(B, contract(10, 4, 10), at(7)).unwrap();
    assert_eq!(ranks(&mut policy, 7), [(A, 17, 4), (B, 17, 4)]);
}

#[test]
fn service_that_went_on_past_the_deadline_counts_as_far_as_it_came_before() {
    let misses = |cost, end| {
        let mut policy = policy(&[(A, contract(10, 3, 5))]);
        wake(&mut policy, A, 0);
        policy.charge(A, Guaranteed, work(cost), at(end));
        policy.account(A).unwrap().misses
    };
    assert_eq!((misses(4, 6), misses(4, 7)), (0, 1), "3 were given by 5, or only 2");
}

#[test]
fn a_slice_that_comes_late_in_pieces_is_missed_once() {
    let mut policy = policy(&[(A, contract(20, 4, 5))]);
    wake(&mut policy, A, 0);
    for at in [7, 8, 9] {
        policy.charge(A, Guaranteed, work(1), Moment::from_millis(at));
        assert_eq!(policy.account(A).unwrap().misses, 1, "at {at} ms");
    }
}
