//! Flaw F8, which needs a flawed rule, and the ends of the ranges.

use super::*;
use crate::atropos::Atropos;
use crate::policy::Service;

/// F8: every missed slice is owed.
#[derive(Debug)]
struct CatchUp;

impl Rules for CatchUp {
    fn wake(&self, budget: &mut Budget, now: Moment) {
        budget.release_at_wake(now);
    }

    fn refill(&self, budget: &mut Budget, now: Moment) {
        let (left, since) = (budget.left, budget.refill);
        budget.release_due(now);
        let missed = (now - since) / budget.contract.period();
        budget.left += left + (missed * budget.contract.slice()).signed();
    }
}

/// In milliseconds.
fn contract(period: u64, slice: u64) -> Contract {
    let period = Span::from_millis(period);
    Contract::new(period, Amount::from_millis(slice), period, None).unwrap()
}

/// Two busy clients on a core that stands still for a while; misses of the second.
fn misses_after_a_stall(policy: &mut dyn Policy) -> u64 {
    let [late, victim] = [ClientId(1), ClientId(2)];
    policy.add(late, contract(10, 3), Moment::ZERO).unwrap();
    policy.add(victim, contract(20, 10), Moment::ZERO).unwrap();
    policy.wake(late, Head::default(), Moment::ZERO);
    policy.wake(victim, Head::default(), Moment::ZERO);
    let mut now = Moment::ZERO;
    let mut before = 0;
    while now < Moment::from_millis(2_000) {
        if now > Moment::from_millis(1_000) && before == 0 {
            now += Span::from_millis(300);
            before = 1 + policy.account(victim).unwrap().misses;
        }
        let Some(pick) = policy.pick(now) else {
            now = policy.timeout(now).unwrap();
            continue;
        };
        policy.charge(pick.client, pick.service, (pick.until - now).service(), pick.until);
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
    let years = 365 * Span::from_secs(86_400);
    let year = Moment::ZERO + years;
    let id = ClientId(u32::MAX);
    let mut policy = Atropos::new(usize::MAX);
    policy.add(id, contract(10, 3), year).unwrap();
    policy.wake(id, Head::default(), Moment::from_nanos(5));
    assert_eq!(policy.pick(Moment::ZERO).unwrap().until, year + Span::from_millis(3));
    assert_eq!(policy.pick(year + years).unwrap().client, id);
    let lost = policy.account(id).unwrap().stall_loss;
    assert_eq!(lost, (years / Span::from_millis(10) - 1) * Amount::from_millis(3));
    policy.charge(id, Service::Guaranteed, Amount::MAX, year);
    policy.charge(id, Service::Extra, Amount::MAX, year);
    policy.charge(id, Service::Extra, Amount::MAX, year);
    assert_eq!(policy.account(id).unwrap().extra, Amount::MAX);
    for now in [Moment::MAX - Span::ONE, Moment::MAX, Moment::MAX, Moment::ZERO] {
        assert_eq!(policy.pick(now), None, "in debt to the end of time");
        policy.block(id, now);
        policy.wake(id, Head::default(), now);
        policy.ranks(now, &mut |rank| panic!("{rank:?}"));
    }
    assert_eq!(policy.timeout(Moment::ZERO), None);
}

#[test]
fn the_longest_period_and_the_shortest_work_to_the_nanosecond() {
    let hour = Contract::PERIOD_MAX;
    let mut policy = Atropos::new(2);
    let long = Contract::new(hour, (hour - Span::ONE).service(), hour, None).unwrap();
    let short = Contract::new(Span::ONE, Amount::ONE, Span::ONE, None).unwrap();
    policy.add(ClientId(0), long, Moment::ZERO).unwrap();
    policy.add(ClientId(1), short, Moment::ZERO).unwrap();
    policy.wake(ClientId(0), Head::default(), Moment::ZERO);
    policy.wake(ClientId(1), Head::default(), Moment::ZERO);
    let pick = policy.pick(Moment::ZERO).unwrap();
    assert_eq!((pick.client, pick.until), (ClientId(1), Moment::from_nanos(1)));
    policy.charge(ClientId(1), Service::Guaranteed, Amount::from_nanos(1), Moment::from_nanos(1));
    policy.block(ClientId(0), Moment::from_nanos(1));
    policy.wake(ClientId(0), Head::default(), Moment::ZERO + hour - Span::ONE);
    assert!(policy.state(ClientId(0)).unwrap().left <= 1);
}
