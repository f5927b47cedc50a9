//! The rules of the other policies, and what all policies have in common. Times in milliseconds.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

use moirai_scheduler::admission::{DrrQueue, drr_latency};
use moirai_scheduler::drr::{BEST_EFFORT_QUANTUM, FRAME};
use moirai_scheduler::{
    ClientId, Contract, ContractError, Drr, EdfChannel, Fifo, Head, Nanos, Nemesis, POLICIES, Pick,
    Policy, PolicyError, Service, UnknownPolicy, Usd, Weight, Xen, policy_by_name,
};

use Service::{Extra, Guaranteed};

const MS: Nanos = 1_000_000;
const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);
const C: ClientId = ClientId(3);

fn contract(period: u64, slice: u64, deadline: u64, weight: u32) -> Contract {
    Contract::new(period * MS, slice * MS, deadline * MS, Weight::new(weight)).unwrap()
}

fn head(cost: u64, arrival: u64, position: u64) -> Head {
    Head { cost: cost * MS, arrival: arrival * MS, position }
}

fn wake(policy: &mut dyn Policy, id: ClientId, at: u64) {
    policy.wake(id, Head { arrival: at * MS, ..Head::default() }, at * MS);
}

fn picked(policy: &mut dyn Policy, at: u64) -> Option<(ClientId, Service, u64)> {
    let Pick { client, service, until, .. } = policy.pick(at * MS)?;
    Some((client, service, until / MS))
}

#[test]
fn every_policy_refuses_and_ignores_the_same_calls() {
    for name in POLICIES {
        let mut policy = policy_by_name(name, 2).unwrap();
        let (a, b) = (contract(10, 3, 10, 1), contract(10, 0, 10, 2));
        policy.add(A, a, 0).unwrap();
        policy.add(B, b, 0).unwrap();
        assert_eq!(policy.add(A, a, 0), Err(PolicyError::Exists(A)), "{name}");
        assert_eq!(policy.add(C, a, 0), Err(PolicyError::Full { capacity: 2 }), "{name}");
        assert_eq!(policy.remove(C, 0), Err(PolicyError::Unknown(C)), "{name}");
        assert_eq!(policy.change(C, a, 0), Err(PolicyError::Unknown(C)), "{name}");
        assert_eq!((policy.account(C), policy.pick(0)), (None, None), "{name}");
        wake(&mut *policy, C, 0);
        policy.block(C, 0);
        policy.charge(C, Extra, MS, 0);
        wake(&mut *policy, A, 0);
        let pick = policy.pick(0).unwrap();
        assert_eq!(pick.client, A, "{name}");
        policy.charge(A, pick.service, MS, MS);
        let account = policy.account(A).unwrap();
        assert_eq!(account.guaranteed + account.extra, MS, "{name}");
        policy.change(A, b, MS).unwrap();
        policy.block(A, MS);
        assert_eq!(policy.pick(MS), None, "{name}");
        wake(&mut *policy, A, 2);
        assert_eq!(policy.remove(A, 2 * MS).unwrap(), account, "{name}");
        assert_eq!(policy.pick(2 * MS), None, "{name}");
        policy.add(A, a, 2 * MS).unwrap();
        assert_eq!(policy.account(A).unwrap(), <_>::default(), "{name}: the id is a new client");
    }
}

#[test]
fn every_policy_survives_the_ends_of_the_ranges() {
    for name in POLICIES {
        let mut policy = policy_by_name(name, 3).unwrap();
        let hour = Contract::PERIOD_MAX;
        let longest = Contract::new(hour, hour, hour, Weight::new(u32::MAX)).unwrap();
        policy.add(A, longest, Nanos::MAX).unwrap();
        policy.add(B, Contract::new(1, 1, 1, None).unwrap(), 0).unwrap();
        policy.add(C, contract(10, 0, 0, 1), 0).unwrap();
        let head = Head { cost: Nanos::MAX, arrival: Nanos::MAX, position: u64::MAX };
        for now in [0, 1, hour, Nanos::MAX, 7] {
            for id in [A, B, C] {
                policy.wake(id, head, now);
                if let Some(pick) = policy.pick(now) {
                    policy.charge(pick.client, pick.service, Nanos::MAX, now);
                }
                policy.charge(id, Guaranteed, Nanos::MAX, now);
                if let Some(policy) = policy.ranked() {
                    policy.ranks(now, &mut |_| {});
                }
                let _ = policy.timeout(now);
                policy.block(id, now);
            }
        }
        let account = policy.account(B).unwrap();
        assert_eq!(account.guaranteed.max(account.extra), Nanos::MAX, "{name}");
    }
}

#[test]
fn policies_have_names_and_others_do_not() {
    assert_eq!(POLICIES[0], "atropos");
    let error = policy_by_name("Atropos", 1).err().unwrap();
    assert_eq!(error, UnknownPolicy { name: "Atropos".into() });
    assert!(
        error.to_string().ends_with("known are atropos, nemesis, xen, usd, drr, edf-channel, fifo")
    );
    assert_eq!(PolicyError::Exists(A).to_string(), "client 1 exists already");
    assert_eq!(PolicyError::Unknown(A).to_string(), "there is no client 1");
    assert_eq!(PolicyError::Full { capacity: 3 }.to_string(), "all 3 places are taken");
}

#[test]
fn four_numbers_are_a_contract_only_in_order() {
    let x = Weight::new(1);
    assert_eq!(Contract::new(0, 0, 0, x), Err(ContractError::PeriodZero));
    let period = Contract::PERIOD_MAX + 1;
    assert_eq!(Contract::new(period, 1, 1, x), Err(ContractError::PeriodTooLong { period }));
    let over = ContractError::DeadlineOverPeriod { deadline: 11, period: 10 };
    assert_eq!(Contract::new(10, 1, 11, x), Err(over));
    let late = ContractError::SliceOverDeadline { slice: 6, deadline: 5 };
    assert_eq!(Contract::new(10, 6, 5, x), Err(late));
    assert_eq!(Contract::new(10, 0, 10, None), Err(ContractError::NothingAsked));
    assert!(Contract::new(Contract::PERIOD_MAX, 5, 5, None).is_ok());
    for error in [over, late, ContractError::PeriodZero, ContractError::NothingAsked] {
        assert!(error.to_string().len() > 20);
    }
}

#[test]
fn fifo_serves_in_order_of_arrival() {
    let mut policy = Fifo::new(2);
    policy.add(A, contract(10, 3, 10, 0), 0).unwrap();
    policy.add(B, contract(10, 3, 10, 0), 0).unwrap();
    policy.wake(A, head(1, 5, 0), 5);
    policy.wake(B, head(1, 3, 0), 6);
    assert_eq!(policy.pick(7).unwrap().client, B);
    policy.wake(B, head(1, 6, 0), 8);
    let (first, second) = (policy.pick(9).unwrap(), policy.pick(9).unwrap());
    assert_eq!((first.client, first.service, first.until), (A, Extra, Nanos::MAX));
    assert_ne!(first.round, second.round, "every pick is a round");
    assert_eq!(policy.timeout(9), None);
}

#[test]
fn nemesis_gives_a_slice_by_the_latency_hint_after_a_long_block_and_none_after_a_short_one() {
    let mut policy = Nemesis::new(1);
    policy.add(A, contract(100, 10, 25, 0), 0).unwrap();
    wake(&mut policy, A, 0);
    assert_eq!(policy.state(A).unwrap().deadline, 25 * MS);
    policy.block(A, 5 * MS);
    wake(&mut policy, A, 6);
    assert_eq!(picked(&mut policy, 6), None, "a short block");
    assert_eq!(picked(&mut policy, 25), Some((A, Guaranteed, 35)));
    assert_eq!(policy.state(A).unwrap().deadline, 125 * MS, "then the period again");
    policy.block(A, 30 * MS);
    wake(&mut policy, A, 200);
    assert_eq!(policy.state(A).unwrap().refill, 225 * MS, "a long block");
}

#[test]
fn xen_scales_down_to_the_hint_and_doubles_up_again() {
    let mut policy = Xen::new(1);
    policy.add(A, contract(100, 10, 30, 0), 0).unwrap();
    wake(&mut policy, A, 0);
    let states = [0, 30, 90, 190].map(|at| {
        policy.pick(at * MS);
        let state = policy.state(A).unwrap();
        policy.charge(A, Guaranteed, state.left.unsigned_abs(), at * MS);
        (state.left / 1_000, state.deadline / MS)
    });
    assert_eq!(states, [(3_333, 30), (6_666, 90), (10_000, 190), (10_000, 290)]);
}

#[test]
fn the_user_safe_disk_waits_for_a_client_and_charges_it() {
    let mut policy = Usd::new(2, 4 * MS);
    policy.add(A, contract(100, 20, 100, 0), 0).unwrap();
    policy.add(B, contract(100, 10, 100, 1), 0).unwrap();
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    policy.charge(A, Guaranteed, 5 * MS, 5 * MS);
    policy.block(A, 5 * MS);
    assert_eq!(picked(&mut policy, 5), None, "the disk waits");
    assert_eq!(policy.timeout(5 * MS), Some(9 * MS));
    wake(&mut policy, A, 8);
    assert_eq!(picked(&mut policy, 8), Some((A, Guaranteed, 20)), "12 of 20 are left");
    policy.block(A, 10 * MS);
    assert_eq!(picked(&mut policy, 10), None);
    assert_eq!(picked(&mut policy, 14), Some((B, Guaranteed, 24)), "it waited long enough");
    wake(&mut policy, A, 15);
    assert_eq!(policy.pick(15 * MS).unwrap().client, B, "the rest is forfeit");
    assert_eq!(picked(&mut policy, 100), Some((A, Guaranteed, 120)));
}

#[test]
fn round_robin_gives_quanta_in_elevator_order() {
    let mut policy = Drr::new(3);
    policy.add(A, contract(20, 4, 20, 0), 0).unwrap();
    policy.add(B, contract(20, 0, 20, 1), 0).unwrap();
    policy.add(C, contract(20, 0, 20, 2), 0).unwrap();
    let mut order = Vec::new();
    let mut rounds = Vec::new();
    policy.wake(A, head(2, 0, 50), 0);
    policy.wake(B, head(1, 0, 70), 0);
    policy.wake(C, head(2, 0, 10), 0);
    let next = [(A, 20), (B, 90), (C, 60)];
    for _ in 0..4 {
        let pick = policy.pick(0).unwrap();
        let (cost, position) = next
            .iter()
            .find(|(id, _)| *id == pick.client)
            .map_or((0, 0), |n| (if pick.client == B { 1 } else { 2 }, n.1));
        policy.charge(pick.client, pick.service, cost * MS, 0);
        policy.wake(pick.client, head(cost, 0, position), 0);
        order.push((pick.client, pick.service));
        rounds.push(pick.round);
    }
    assert_eq!(order, [(C, Extra), (A, Guaranteed), (B, Extra), (A, Guaranteed)]);
    assert_eq!(rounds, [1, 1, 1, 1]);
    assert_eq!(policy.pick(0).unwrap().round, 2, "all quanta are used up");
}

#[test]
fn round_robin_pays_for_what_was_not_announced_and_saves_nothing_while_empty() {
    let mut policy = Drr::new(2);
    policy.add(A, contract(20, 0, 20, 1), 0).unwrap();
    policy.add(B, contract(20, 0, 20, 1), 0).unwrap();
    let mut served = [0u64; 2];
    for _ in 0..1_000 {
        policy.wake(A, head(1, 0, 0), 0);
        policy.wake(B, head(1, 0, 0), 0);
        let pick = policy.pick(0).unwrap();
        let cost = if pick.client == A { 3 } else { 1 };
        policy.charge(pick.client, pick.service, cost * MS, 0);
        served[usize::from(pick.client == B)] += cost;
    }
    assert!(served[0].abs_diff(served[1]) <= 4, "{served:?}");
    policy.block(A, 0);
    policy.block(B, 0);
    assert_eq!(policy.pick(0), None);
}

#[test]
fn a_queue_that_is_empty_pays_its_debt_while_others_have_rounds() {
    let mut policy = Drr::new(2);
    policy.add(A, contract(20, 0, 20, 1), 0).unwrap();
    policy.add(B, contract(20, 0, 20, 1), 0).unwrap();
    // A announces 1 ms and takes twenty quanta.
    policy.wake(A, head(1, 0, 0), 0);
    let pick = policy.pick(0).unwrap();
    policy.charge(A, pick.service, 20 * BEST_EFFORT_QUANTUM, 0);
    policy.block(A, 0);
    let unit = BEST_EFFORT_QUANTUM / MS;
    for _ in 0..40 {
        policy.wake(B, head(unit, 0, 0), 0);
        let pick = policy.pick(0).unwrap();
        policy.charge(B, pick.service, unit * MS, 0);
    }
    // Back again, it is served in the next round like anybody else.
    policy.wake(A, head(unit, 0, 0), 0);
    policy.wake(B, head(unit, 0, 0), 0);
    let mut served = Vec::new();
    for _ in 0..4 {
        let pick = policy.pick(0).unwrap();
        policy.charge(pick.client, pick.service, unit * MS, 0);
        policy.wake(pick.client, head(unit, 0, 0), 0);
        served.push(pick.client);
    }
    assert_eq!(served.iter().filter(|client| **client == A).count(), 2, "{served:?}");
}

#[test]
fn round_robin_keeps_its_latency_bound() {
    let quanta = [FRAME / 5, BEST_EFFORT_QUANTUM, 2 * BEST_EFFORT_QUANTUM];
    let bound = drr_latency(&quanta.map(|quantum| DrrQueue { quantum }), 0).unwrap();
    for phase in 0..40u64 {
        let mut policy = Drr::new(3);
        policy.add(A, contract(20, 4, 20, 0), 0).unwrap();
        policy.add(B, contract(20, 0, 20, 1), 0).unwrap();
        policy.add(C, contract(20, 0, 20, 2), 0).unwrap();
        let (mut now, mut woke) = (0, None);
        let first = loop {
            policy.wake(B, head(1, 0, now), now);
            policy.wake(C, head(2, 0, now), now);
            if now >= phase * MS && woke.is_none() {
                policy.wake(A, head(4, 0, 0), now);
                woke = Some(now);
            }
            let pick = policy.pick(now).unwrap();
            let cost = [(A, 4), (B, 1), (C, 2)].iter().find(|c| c.0 == pick.client).unwrap().1 * MS;
            now += cost;
            policy.charge(pick.client, pick.service, cost, now);
            if pick.client == A {
                break now;
            }
        };
        assert!(first - woke.unwrap() <= bound, "{} > {bound}", first - woke.unwrap());
    }
}

#[test]
fn a_channel_keeps_its_logical_arrivals_and_is_policed() {
    let mut policy = EdfChannel::new(3);
    policy.add(A, contract(10, 2, 5, 0), 0).unwrap();
    policy.add(B, contract(20, 4, 20, 1), 0).unwrap();
    policy.add(C, contract(20, 0, 20, 1), 0).unwrap();
    for id in [A, B] {
        wake(&mut policy, id, 0);
    }
    assert_eq!(picked(&mut policy, 0), Some((A, Guaranteed, 2)));
    policy.charge(A, Guaranteed, 2 * MS, 2 * MS);
    assert_eq!(policy.timeout(2 * MS), Some(10 * MS), "its next logical arrival");
    assert_eq!(picked(&mut policy, 2), Some((B, Guaranteed, 6)));
    policy.charge(B, Guaranteed, 4 * MS, 6 * MS);
    assert_eq!(picked(&mut policy, 6), Some((B, Extra, 10)), "early, and only with `extra`");
    wake(&mut policy, C, 6);
    assert_eq!(policy.pick(6 * MS).unwrap().client, C, "best effort goes before early");
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 12)));
    policy.charge(A, Guaranteed, 2 * MS, 16 * MS);
    assert_eq!(policy.account(A).unwrap().misses, 1, "due at 15");
    policy.block(C, 16 * MS);
    policy.block(B, 16 * MS);
    assert_eq!(policy.pick(16 * MS), None, "held until 20");
    policy.block(A, 16 * MS);
    policy.wake(A, head(1, 95, 0), 95 * MS);
    assert_eq!(policy.pick(95 * MS).unwrap().client, A);
    policy.charge(A, Guaranteed, 2 * MS, 99 * MS);
    assert_eq!(policy.account(A).unwrap().misses, 1, "due at 100");
}

#[test]
fn an_overdrawn_message_is_taken_from_the_next() {
    let mut policy = EdfChannel::new(1);
    policy.add(A, contract(10, 2, 10, 0), 0).unwrap();
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, 5 * MS, 5 * MS);
    assert_eq!(policy.timeout(5 * MS), Some(20 * MS), "two messages and a half were sent");
    assert_eq!(picked(&mut policy, 20), Some((A, Guaranteed, 21)));
}

#[test]
fn the_elevator_serves_what_lies_where_it_stands() {
    let mut policy = Drr::new(2);
    policy.add(A, contract(20, 10, 20, 0), 0).unwrap();
    policy.add(B, contract(20, 10, 20, 0), 0).unwrap();
    policy.wake(A, head(1, 0, 50), 0);
    policy.wake(B, head(1, 0, 60), 0);
    assert_eq!(policy.pick(0).unwrap().client, A);
    policy.charge(A, Guaranteed, MS, MS);
    policy.wake(A, head(1, 0, 50), MS);
    assert_eq!(policy.pick(MS).unwrap().client, A);
    policy.wake(A, head(1, 0, 49), MS);
    assert_eq!(policy.pick(MS).unwrap().client, B, "behind the arm");
    assert_eq!(policy.timeout(MS), None);
}

#[test]
fn a_message_keeps_its_logical_arrival_while_it_waits() {
    let mut policy = EdfChannel::new(2);
    policy.add(A, contract(20, 4, 6, 0), 0).unwrap();
    policy.add(B, contract(20, 4, 8, 0), 0).unwrap();
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    policy.wake(A, head(1, 4, 0), 4 * MS);
    assert_eq!(policy.pick(4 * MS).unwrap().client, A, "due at 6, not at 10");
    policy.charge(A, Guaranteed, 2 * MS, 6 * MS);
    policy.block(A, 6 * MS);
    policy.wake(A, head(1, 7, 0), 7 * MS);
    assert_eq!(policy.pick(7 * MS).unwrap().client, A, "the same message goes on");
}

#[test]
fn the_first_message_arrives_when_it_arrives() {
    let mut policy = EdfChannel::new(2);
    policy.add(A, contract(20, 4, 6, 0), 0).unwrap();
    policy.add(B, contract(20, 4, 8, 0), 0).unwrap();
    wake(&mut policy, B, 2);
    wake(&mut policy, A, 5);
    assert_eq!(policy.pick(5 * MS).unwrap().client, B, "due at 10, the other at 11");
}
