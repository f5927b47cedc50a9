//! The rules of each of the other policies.

use super::*;

#[test]
fn fifo_serves_in_order_of_arrival() {
    let mut policy = Fifo::new(2);
    policy.add(A, contract(10, 3, 10, 0), Moment::ZERO).unwrap();
    policy.add(B, contract(10, 3, 10, 0), Moment::ZERO).unwrap();
    policy.wake(A, head(1, 5, 0), Moment::from_nanos(5));
    policy.wake(B, head(1, 3, 0), Moment::from_nanos(6));
    assert_eq!(policy.pick(Moment::from_nanos(7)).unwrap().client, B);
    policy.wake(B, head(1, 6, 0), Moment::from_nanos(8));
    let (first, second) =
        (policy.pick(Moment::from_nanos(9)).unwrap(), policy.pick(Moment::from_nanos(9)).unwrap());
    assert_eq!((first.client, first.service, first.until), (A, Extra, Moment::MAX));
    assert_ne!(first.round, second.round, "every pick is a round");
    assert_eq!(policy.timeout(Moment::from_nanos(9)), None);
}

#[test]
fn nemesis_gives_a_slice_by_the_latency_hint_after_a_long_block_and_none_after_a_short_one() {
    let mut policy = Nemesis::new(1);
    policy.add(A, contract(100, 10, 25, 0), Moment::ZERO).unwrap();
    wake(&mut policy, A, 0);
    assert_eq!(policy.state(A).unwrap().deadline, at(25));
    policy.block(A, at(5));
    wake(&mut policy, A, 6);
    assert_eq!(picked(&mut policy, 6), None, "a short block");
    assert_eq!(picked(&mut policy, 25), Some((A, Guaranteed, 35)));
    assert_eq!(policy.state(A).unwrap().deadline, at(125), "then the period again");
    policy.block(A, at(30));
    wake(&mut policy, A, 200);
    assert_eq!(policy.state(A).unwrap().refill, at(225), "a long block");
}

#[test]
fn xen_scales_down_to_the_hint_and_doubles_up_again() {
    let mut policy = Xen::new(1);
    policy.add(A, contract(100, 10, 30, 0), Moment::ZERO).unwrap();
    wake(&mut policy, A, 0);
    let states = [0, 30, 90, 190].map(|at| {
        policy.pick(Moment::from_millis(at));
        let state = policy.state(A).unwrap();
        policy.charge(
            A,
            Guaranteed,
            Amount::from_nanos(state.left.unsigned_abs()),
            Moment::from_millis(at),
        );
        (state.left / 1_000, state.deadline.as_millis())
    });
    assert_eq!(states, [(3_333, 30), (6_666, 90), (10_000, 190), (10_000, 290)]);
}

#[test]
fn the_user_safe_disk_waits_for_a_client_and_charges_it() {
    let mut policy = Usd::new(2, ms(4));
    policy.add(A, contract(100, 20, 100, 0), Moment::ZERO).unwrap();
    policy.add(B, contract(100, 10, 100, 1), Moment::ZERO).unwrap();
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    policy.charge(A, Guaranteed, work(5), at(5));
    policy.block(A, at(5));
    assert_eq!(picked(&mut policy, 5), None, "the disk waits");
    assert_eq!(policy.timeout(at(5)), Some(at(9)));
    wake(&mut policy, A, 8);
    assert_eq!(picked(&mut policy, 8), Some((A, Guaranteed, 20)), "12 of 20 are left");
    policy.block(A, at(10));
    assert_eq!(picked(&mut policy, 10), None);
    assert_eq!(picked(&mut policy, 14), Some((B, Guaranteed, 24)), "it waited long enough");
    wake(&mut policy, A, 15);
    assert_eq!(policy.pick(at(15)).unwrap().client, B, "the rest is forfeit");
    assert_eq!(picked(&mut policy, 100), Some((A, Guaranteed, 120)));
}

#[test]
fn round_robin_gives_quanta_in_elevator_order() {
    let mut policy = Drr::new(3);
    policy.add(A, contract(20, 4, 20, 0), Moment::ZERO).unwrap();
    policy.add(B, contract(20, 0, 20, 1), Moment::ZERO).unwrap();
    policy.add(C, contract(20, 0, 20, 2), Moment::ZERO).unwrap();
    let mut order = Vec::new();
    let mut rounds = Vec::new();
    policy.wake(A, head(2, 0, 50), Moment::ZERO);
    policy.wake(B, head(1, 0, 70), Moment::ZERO);
    policy.wake(C, head(2, 0, 10), Moment::ZERO);
    let next = [(A, 20), (B, 90), (C, 60)];
    for _ in 0..4 {
        let pick = policy.pick(Moment::ZERO).unwrap();
        let (cost, position) = next
            .iter()
            .find(|(id, _)| *id == pick.client)
            .map_or((0, 0), |n| (if pick.client == B { 1 } else { 2 }, n.1));
        policy.charge(pick.client, pick.service, work(cost), Moment::ZERO);
        policy.wake(pick.client, head(cost, 0, position), Moment::ZERO);
        order.push((pick.client, pick.service));
        rounds.push(pick.round);
    }
    assert_eq!(order, [(C, Extra), (A, Guaranteed), (B, Extra), (A, Guaranteed)]);
    assert_eq!(rounds, [1, 1, 1, 1]);
    assert_eq!(policy.pick(Moment::ZERO).unwrap().round, 2, "all quanta are used up");
}

#[test]
fn round_robin_pays_for_what_was_not_announced_and_saves_nothing_while_empty() {
    let mut policy = Drr::new(2);
    policy.add(A, contract(20, 0, 20, 1), Moment::ZERO).unwrap();
    policy.add(B, contract(20, 0, 20, 1), Moment::ZERO).unwrap();
    let mut served = [0u64; 2];
    for _ in 0..1_000 {
        policy.wake(A, head(1, 0, 0), Moment::ZERO);
        policy.wake(B, head(1, 0, 0), Moment::ZERO);
        let pick = policy.pick(Moment::ZERO).unwrap();
        let cost = if pick.client == A { 3 } else { 1 };
        policy.charge(pick.client, pick.service, work(cost), Moment::ZERO);
        served[usize::from(pick.client == B)] += cost;
    }
    assert!(served[0].abs_diff(served[1]) <= 4, "{served:?}");
    policy.block(A, Moment::ZERO);
    policy.block(B, Moment::ZERO);
    assert_eq!(policy.pick(Moment::ZERO), None);
}

#[test]
fn a_queue_that_is_empty_pays_its_debt_while_others_have_rounds() {
    let mut policy = Drr::new(2);
    policy.add(A, contract(20, 0, 20, 1), Moment::ZERO).unwrap();
    policy.add(B, contract(20, 0, 20, 1), Moment::ZERO).unwrap();
    // A announces 1 ms and takes twenty quanta.
    policy.wake(A, head(1, 0, 0), Moment::ZERO);
    let pick = policy.pick(Moment::ZERO).unwrap();
    policy.charge(A, pick.service, 20 * BEST_EFFORT_QUANTUM, Moment::ZERO);
    policy.block(A, Moment::ZERO);
    let unit = BEST_EFFORT_QUANTUM / MS;
    for _ in 0..40 {
        policy.wake(B, head(unit.as_nanos(), 0, 0), Moment::ZERO);
        let pick = policy.pick(Moment::ZERO).unwrap();
        policy.charge(B, pick.service, unit * MS, Moment::ZERO);
    }
    // Back again, it is served in the next round like anybody else.
    policy.wake(A, head(unit.as_nanos(), 0, 0), Moment::ZERO);
    policy.wake(B, head(unit.as_nanos(), 0, 0), Moment::ZERO);
    let mut served = Vec::new();
    for _ in 0..4 {
        let pick = policy.pick(Moment::ZERO).unwrap();
        policy.charge(pick.client, pick.service, unit * MS, Moment::ZERO);
        policy.wake(pick.client, head(unit.as_nanos(), 0, 0), Moment::ZERO);
        served.push(pick.client);
    }
    assert_eq!(served.iter().filter(|client| **client == A).count(), 2, "{served:?}");
}

#[test]
fn round_robin_keeps_its_latency_bound() {
    let quanta = [(FRAME / 5).service(), BEST_EFFORT_QUANTUM, 2 * BEST_EFFORT_QUANTUM];
    let bound = drr_latency(&quanta.map(|quantum| DrrQueue { quantum }), 0).unwrap();
    for phase in 0..40u64 {
        let mut policy = Drr::new(3);
        policy.add(A, contract(20, 4, 20, 0), Moment::ZERO).unwrap();
        policy.add(B, contract(20, 0, 20, 1), Moment::ZERO).unwrap();
        policy.add(C, contract(20, 0, 20, 2), Moment::ZERO).unwrap();
        let (mut now, mut woke) = (0, None);
        let first = loop {
            policy.wake(B, head(1, 0, now), Moment::from_nanos(now));
            policy.wake(C, head(2, 0, now), Moment::from_nanos(now));
            if now >= phase * MS && woke.is_none() {
                policy.wake(A, head(4, 0, 0), Moment::from_nanos(now));
                woke = Some(now);
            }
            let pick = policy.pick(Moment::from_nanos(now)).unwrap();
            let cost = [(A, 4), (B, 1), (C, 2)].iter().find(|c| c.0 == pick.client).unwrap().1 * MS;
            now += cost;
            policy.charge(
                pick.client,
                pick.service,
                Amount::from_nanos(cost),
                Moment::from_nanos(now),
            );
            if pick.client == A {
                break now;
            }
        };
        assert!(first - woke.unwrap() <= bound.as_nanos(), "{} > {bound}", first - woke.unwrap());
    }
}

#[test]
fn a_channel_keeps_its_logical_arrivals_and_is_policed() {
    let mut policy = EdfChannel::new(3);
    policy.add(A, contract(10, 2, 5, 0), Moment::ZERO).unwrap();
    policy.add(B, contract(20, 4, 20, 1), Moment::ZERO).unwrap();
    policy.add(C, contract(20, 0, 20, 1), Moment::ZERO).unwrap();
    for id in [A, B] {
        wake(&mut policy, id, 0);
    }
    assert_eq!(picked(&mut policy, 0), Some((A, Guaranteed, 2)));
    policy.charge(A, Guaranteed, work(2), at(2));
    assert_eq!(policy.timeout(at(2)), Some(at(10)), "its next logical arrival");
    assert_eq!(picked(&mut policy, 2), Some((B, Guaranteed, 6)));
    policy.charge(B, Guaranteed, work(4), at(6));
    assert_eq!(picked(&mut policy, 6), Some((B, Extra, 10)), "early, and only with `extra`");
    wake(&mut policy, C, 6);
    assert_eq!(policy.pick(at(6)).unwrap().client, C, "best effort goes before early");
    assert_eq!(picked(&mut policy, 10), Some((A, Guaranteed, 12)));
    policy.charge(A, Guaranteed, work(2), at(16));
    assert_eq!(policy.account(A).unwrap().misses, 1, "due at 15");
    policy.block(C, at(16));
    policy.block(B, at(16));
    assert_eq!(policy.pick(at(16)), None, "held until 20");
    policy.block(A, at(16));
    policy.wake(A, head(1, 95, 0), at(95));
    assert_eq!(policy.pick(at(95)).unwrap().client, A);
    policy.charge(A, Guaranteed, work(2), at(99));
    assert_eq!(policy.account(A).unwrap().misses, 1, "due at 100");
}

#[test]
fn an_overdrawn_message_is_taken_from_the_next() {
    let mut policy = EdfChannel::new(1);
    policy.add(A, contract(10, 2, 10, 0), Moment::ZERO).unwrap();
    wake(&mut policy, A, 0);
    policy.charge(A, Guaranteed, work(5), at(5));
    assert_eq!(policy.timeout(at(5)), Some(at(20)), "two messages and a half were sent");
    assert_eq!(picked(&mut policy, 20), Some((A, Guaranteed, 21)));
}

#[test]
fn the_elevator_serves_what_lies_where_it_stands() {
    let mut policy = Drr::new(2);
    policy.add(A, contract(20, 10, 20, 0), Moment::ZERO).unwrap();
    policy.add(B, contract(20, 10, 20, 0), Moment::ZERO).unwrap();
    policy.wake(A, head(1, 0, 50), Moment::ZERO);
    policy.wake(B, head(1, 0, 60), Moment::ZERO);
    assert_eq!(policy.pick(Moment::ZERO).unwrap().client, A);
    policy.charge(A, Guaranteed, work(1), at(1));
    policy.wake(A, head(1, 0, 50), at(1));
    assert_eq!(policy.pick(at(1)).unwrap().client, A);
    policy.wake(A, head(1, 0, 49), at(1));
    assert_eq!(policy.pick(at(1)).unwrap().client, B, "behind the arm");
    assert_eq!(policy.timeout(at(1)), None);
}

#[test]
fn a_message_keeps_its_logical_arrival_while_it_waits() {
    let mut policy = EdfChannel::new(2);
    policy.add(A, contract(20, 4, 6, 0), Moment::ZERO).unwrap();
    policy.add(B, contract(20, 4, 8, 0), Moment::ZERO).unwrap();
    wake(&mut policy, A, 0);
    wake(&mut policy, B, 0);
    policy.wake(A, head(1, 4, 0), at(4));
    assert_eq!(policy.pick(at(4)).unwrap().client, A, "due at 6, not at 10");
    policy.charge(A, Guaranteed, work(2), at(6));
    policy.block(A, at(6));
    policy.wake(A, head(1, 7, 0), at(7));
    assert_eq!(policy.pick(at(7)).unwrap().client, A, "the same message goes on");
}

#[test]
fn the_first_message_arrives_when_it_arrives() {
    let mut policy = EdfChannel::new(2);
    policy.add(A, contract(20, 4, 6, 0), Moment::ZERO).unwrap();
    policy.add(B, contract(20, 4, 8, 0), Moment::ZERO).unwrap();
    wake(&mut policy, B, 2);
    wake(&mut policy, A, 5);
    assert_eq!(policy.pick(at(5)).unwrap().client, B, "due at 10, the other at 11");
}
