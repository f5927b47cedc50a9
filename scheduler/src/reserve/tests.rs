//! Flaw F8, which needs a flawed rule, and the ends of the ranges.

use super::*;
use crate::atropos::Atropos;
use crate::budget::signed;
use crate::policy::Service;

const MS: Nanos = 1_000_000;

/// F8: every missed slice is owed.
#[derive(Debug)]
struct CatchUp;

impl Rules for CatchUp {
    fn wake(&self, budget: &mut Budget, now: Nanos) {
        budget.release_at_wake(now);
    }

    fn refill(&self, budget: &mut Budget, now: Nanos) {
        let (left, since) = (budget.left, budget.refill);
        budget.release_due(now);
        let missed = (now - since) / budget.contract.period();
        budget.left += left + signed(missed * budget.contract.slice());
    }
}

/// Two busy clients on a core that stands still for a while; misses of the second.
fn misses_after_a_stall(policy: &mut dyn Policy) -> u64 {
    let [late, victim] = [ClientId(1), ClientId(2)];
    let contract = |period, slice| Contract::new(period, slice, period, None).unwrap();
    policy.add(late, contract(10 * MS, 3 * MS), 0).unwrap();
    policy.add(victim, contract(20 * MS, 10 * MS), 0).unwrap();
    policy.wake(late, Head::default(), 0);
    policy.wake(victim, Head::default(), 0);
    let mut now = 0;
    let mut before = 0;
    while now < 2_000 * MS {
        if now > 1_000 * MS && before == 0 {
            now += 300 * MS;
            before = 1 + policy.account(victim).unwrap().misses;
        }
        let Some(pick) = policy.pick(now) else {
            now = policy.timeout(now).unwrap();
            continue;
        };
        policy.charge(pick.client, pick.service, pick.until - now, pick.until);
        now = pick.until;
    }
    policy.account(victim).unwrap().misses + 1 - before
}

#[test]
fn f8_a_stall_is_not_made_up_for_at_the_cost_of_others() {
    let mut flawed = Reserve::new(CatchUp, 2);
    assert!(misses_after_a_stall(&mut flawed) > 3, "the flaw is there");
    // The slice that the stall cut in two is one miss.
    assert!(misses_after_a_stall(&mut Atropos::new(2)) <= 1);
}

#[test]
fn time_that_jumps_or_goes_backwards_has_a_defined_result() {
    let year = 365 * 86_400_000 * MS;
    let id = ClientId(u32::MAX);
    let mut policy = Atropos::new(usize::MAX);
    let contract = Contract::new(10 * MS, 3 * MS, 10 * MS, None).unwrap();
    policy.add(id, contract, year).unwrap();
    policy.wake(id, Head::default(), 5);
    assert_eq!(policy.pick(0).unwrap().until, year + 3 * MS);
    assert_eq!(policy.pick(2 * year).unwrap().client, id);
    let lost = policy.account(id).unwrap().stall_loss;
    assert_eq!(lost, (year / (10 * MS) - 1) * 3 * MS);
    policy.charge(id, Service::Guaranteed, Nanos::MAX, year);
    policy.charge(id, Service::Extra, Nanos::MAX, year);
    policy.charge(id, Service::Extra, Nanos::MAX, year);
    assert_eq!(policy.account(id).unwrap().extra, Nanos::MAX);
    for now in [Nanos::MAX - 1, Nanos::MAX, Nanos::MAX, 0] {
        assert_eq!(policy.pick(now), None, "in debt to the end of time");
        policy.block(id, now);
        policy.wake(id, Head::default(), now);
        policy.ranks(now, &mut |rank| panic!("{rank:?}"));
    }
    assert_eq!(policy.timeout(0), None);
}

#[test]
fn the_longest_period_and_the_shortest_work_to_the_nanosecond() {
    let hour = Contract::PERIOD_MAX;
    let mut policy = Atropos::new(2);
    policy.add(ClientId(0), Contract::new(hour, hour - 1, hour, None).unwrap(), 0).unwrap();
    policy.add(ClientId(1), Contract::new(1, 1, 1, None).unwrap(), 0).unwrap();
    policy.wake(ClientId(0), Head::default(), 0);
    policy.wake(ClientId(1), Head::default(), 0);
    let pick = policy.pick(0).unwrap();
    assert_eq!((pick.client, pick.until), (ClientId(1), 1));
    policy.charge(ClientId(1), Service::Guaranteed, 1, 1);
    policy.block(ClientId(0), 1);
    policy.wake(ClientId(0), Head::default(), hour - 1);
    assert!(policy.state(ClientId(0)).unwrap().left <= 1);
}
