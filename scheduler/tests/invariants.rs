//! The invariants of docs/scheduling.md as properties of random worlds, with shrinking.
//!
//! 10^6 decisions under the default policy, and 10^5 under each of the others for what they claim.
//! `make prove` does the same for as many decisions as one likes.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

use std::cell::Cell;

use moirai_scheduler::{
    Amount, ClientId, Contract, Head, Mode, Moment, POLICIES, PolicyKind, Service, Span, Weight,
    policy_by_name,
};
use moirai_simulator::proof::{INVARIANTS, claims};
use moirai_simulator::world::{ClientSpec, Spec, World};
use proptest::prelude::{Strategy, any, prop_assert, proptest};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

fn client() -> impl Strategy<Value = ClientSpec> {
    let numbers = (1_000..60_000u32, 0..=700u16, 300..=1_000u16, 0..=9u8, 0..10u8, any::<u64>());
    numbers.prop_map(|(period_us, slice, deadline, weight, load, seed)| ClientSpec {
        period_us,
        slice,
        deadline,
        weight,
        load,
        seed,
    })
}

fn spec() -> impl Strategy<Value = Spec> {
    let clients = proptest::collection::vec(client(), 1..=7);
    let flags = (proptest::bool::weighted(0.15), proptest::bool::weighted(0.1));
    let numbers = (0..4u8, 20..1_000u16, 1..4u8, flags, clients);
    numbers.prop_map(|(kind, unit_us, depth, (overload, stalls), clients)| Spec {
        kind,
        unit_us,
        depth,
        overload,
        stalls,
        clients,
    })
}

/// Runs random worlds until so many decisions were taken; panics with the smallest broken world.
fn hold(policy: PolicyKind, decisions: u64) {
    let taken = Cell::new(0);
    let config = Config { cases: 100_000, failure_persistence: None, ..Config::default() };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let result = runner.run(&spec(), |spec| {
        if taken.get() >= decisions {
            return Ok(());
        }
        let tally = World::new(&spec).run(policy, Span::from_millis(500), 1);
        taken.set(taken.get() + tally.decisions);
        proptest::prop_assert!(!tally.broken(claims(policy)), "{:?}", tally.first);
        Ok(())
    });
    if let Err(TestError::Fail(reason, spec)) = result {
        panic!("{policy}: {reason}\n{spec:#?}");
    }
    assert!(taken.get() >= decisions, "only {} decisions", taken.get());
}

#[test]
fn atropos_keeps_all_invariants_over_a_million_decisions() {
    assert_eq!(claims(PolicyKind::Atropos).len(), INVARIANTS.len());
    hold(PolicyKind::Atropos, 1_000_000);
}

#[test]
fn the_other_policies_keep_what_they_claim() {
    for policy in PolicyKind::ALL.into_iter().filter(|policy| *policy != PolicyKind::Atropos) {
        hold(policy, 100_000);
    }
}

/// A call with numbers that may be anything.
#[derive(Clone, Copy, Debug)]
struct Call {
    kind: u8,
    id: u32,
    now: Moment,
    amount: Amount,
    contract: Contract,
}

fn number() -> impl Strategy<Value = u64> {
    // Small ones, so that they meet, and the ends of the range.
    proptest::prop_oneof![8 => 0..200_000_000u64, 1 => any::<u64>(), 1 => u64::MAX - 9..=u64::MAX]
}

fn call() -> impl Strategy<Value = Call> {
    let contract = (1..=40_000_000u64, 0..=1_000u64, 0..=1_000u64, 0..4u32);
    let contract = contract.prop_filter_map("no contract", |(period, deadline, slice, weight)| {
        let deadline = period * deadline / 1_000;
        let slice = Amount::from_nanos(deadline * slice / 1_000);
        let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
        Contract::new(period, slice, deadline, Weight::new(weight)).ok()
    });
    (0..9u8, 0..5u32, number(), number(), contract).prop_map(|(kind, id, now, amount, contract)| {
        let (now, amount) = (Moment::from_nanos(now), Amount::from_nanos(amount));
        Call { kind, id, now, amount, contract }
    })
}

proptest! {
    #[test]
    fn any_sequence_of_calls_has_a_defined_result(
        calls in proptest::collection::vec(call(), 0..200),
        policy in 0..POLICIES.len(),
    ) {
        let name = POLICIES[policy];
        let mut policy = policy_by_name(name, 4).unwrap();
        // Which clients there are, and whether they have work.
        let mut clients: [Option<bool>; 5] = [None; 5];
        for Call { kind, id, now, amount, contract } in calls {
            let known = &mut clients[id as usize];
            let id = ClientId(id);
            let head = Head { cost: amount, arrival: now, position: amount.as_nanos() };
            match kind {
                0 | 1 => {
                    if policy.add(id, contract, now).is_ok() {
                        prop_assert!(known.is_none());
                        *known = Some(false);
                    }
                }
                2 => prop_assert!(policy.remove(id, now).is_ok() == known.take().is_some()),
                3 => prop_assert!(policy.change(id, contract, now).is_ok() == known.is_some()),
                4 | 5 => {
                    policy.wake(id, head, now);
                    *known = known.map(|_| true);
                }
                6 => {
                    policy.block(id, now);
                    *known = known.map(|_| false);
                }
                7 => policy.charge(id, Service::Guaranteed, amount, now),
                _ => policy.charge(id, Service::Extra, amount, now),
            }
            if amount.as_nanos() % 3 == 0
                && let Some(policy) = policy.ranked()
            {
                policy.ranks(now, &mut |rank| assert!(rank.budget > Amount::ZERO));
            }
            if let Some(pick) = policy.pick(now) {
                prop_assert!(clients[pick.client.0 as usize] == Some(true), "{name}: {pick:?}");
            }
            for (id, known) in (0..).zip(clients) {
                let state = policy.state(ClientId(id));
                prop_assert!(policy.account(ClientId(id)).is_some() == known.is_some());
                if let Some(state) = state {
                    prop_assert!((state.mode == Mode::Idle) == (known == Some(false)));
                    prop_assert!(state.left <= 40_000_000);
                }
            }
        }
    }
}
