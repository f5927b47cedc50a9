//! The invariants of docs/scheduling.md as properties of random worlds, with shrinking.
//!
//! 10^6 decisions under the default policy, and 10^5 under each of the others for what they claim.
//! `make prove` does the same for as many decisions as one likes.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

use std::cell::Cell;

use moirai_scheduler::POLICIES;
use moirai_simulator::proof::{INVARIANTS, claims};
use moirai_simulator::world::{ClientSpec, Spec, World};
use proptest::prelude::{Strategy, any};
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
    let numbers = (0..4u8, 20..1_000u16, 1..4u8, proptest::bool::weighted(0.15), clients);
    numbers.prop_map(|(kind, unit_us, depth, overload, clients)| Spec {
        kind,
        unit_us,
        depth,
        overload,
        clients,
    })
}

/// Runs random worlds until so many decisions were taken; panics with the smallest broken world.
fn hold(policy: &str, decisions: u64) {
    let taken = Cell::new(0);
    let config = Config { cases: 100_000, failure_persistence: None, ..Config::default() };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let result = runner.run(&spec(), |spec| {
        if taken.get() >= decisions {
            return Ok(());
        }
        let tally = World::new(&spec).run(policy, 500_000_000, 1);
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
    assert_eq!(claims("atropos").len(), INVARIANTS.len());
    hold("atropos", 1_000_000);
}

#[test]
fn the_other_policies_keep_what_they_claim() {
    for policy in POLICIES.iter().filter(|policy| **policy != "atropos") {
        hold(policy, 100_000);
    }
}
