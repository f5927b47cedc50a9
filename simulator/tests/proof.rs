//! The proof itself is tested: it finds what is wrong with policies that do not keep the
//! invariants.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

use moirai_scheduler::{Amount, Contract, PolicyKind, Span};
use moirai_simulator::proof::{Tally, claims};
use moirai_simulator::random::Random;
use moirai_simulator::supply::sbf;
use moirai_simulator::world::{ClientSpec, Spec, World};

/// What the policy breaks of what only the default claims, over some worlds.
fn broken(policy: PolicyKind) -> Vec<usize> {
    let mut sum = Tally::default();
    for seed in 0..100 {
        let world = World::new(&Spec::random(seed));
        sum.merge(&world.run_claiming(
            policy,
            claims(PolicyKind::Atropos),
            Span::from_millis(200),
            seed,
        ));
    }
    (1..=12).filter(|number| sum.violations[number - 1] > 0).collect()
}

#[test]
fn the_checker_finds_what_the_other_policies_do_not_keep() {
    assert_eq!(broken(PolicyKind::Atropos), [0; 0]);
    let nemesis = broken(PolicyKind::Nemesis);
    assert!([6, 9].iter().all(|number| nemesis.contains(number)), "{nemesis:?}");
    let xen = broken(PolicyKind::Xen);
    assert!([6, 9].iter().all(|number| xen.contains(number)), "{xen:?}");
    let usd = broken(PolicyKind::Usd);
    assert!([6, 7].iter().all(|number| usd.contains(number)), "{usd:?}");
    let fifo = broken(PolicyKind::Fifo);
    assert!(fifo.contains(&8), "{fifo:?}");
}

#[test]
fn a_world_with_a_hole_in_its_admission_misses() {
    // Two clients that fit, and a disk whose units are larger than either was told.
    let client = |weight| ClientSpec {
        period_us: 10_000,
        slice: 500,
        deadline: 1_000,
        weight,
        load: 0,
        seed: 1,
    };
    let spec = Spec {
        kind: 1,
        unit_us: 900,
        depth: 3,
        overload: true,
        stalls: false,
        clients: vec![client(0), client(1), client(2)],
    };
    let tally = World::new(&spec).run(PolicyKind::Atropos, Span::from_secs(1), 1);
    assert_eq!(tally.checks[11], 0, "nothing is promised where nothing is admitted");
    assert_eq!(tally.checks[5], 0);
    assert!(!tally.broken(claims(PolicyKind::Atropos)), "{:?}", tally.first);
}

/// A client that naps many times in a period of a dense set once paid a unit for every nap.
#[test]
fn a_world_of_naps_on_a_full_link_keeps_its_supply() {
    let client = |(period_us, slice, deadline, weight, load, seed)| ClientSpec {
        period_us,
        slice,
        deadline,
        weight,
        load,
        seed,
    };
    let clients = [
        (17_720, 492, 1_000, 0, 8, 15_825_907_454_281_146_917),
        (53_567, 75, 727, 9, 0, 4_731_459_744_127_170_232),
        (23_207, 622, 805, 1, 4, 10_684_774_662_427_649_388),
        (32_077, 649, 1_000, 7, 3, 8_693_186_576_497_999_845),
        (46_857, 225, 616, 8, 2, 6_103_142_258_296_162_182),
        (30_882, 442, 1_000, 6, 6, 13_444_744_584_409_734_775),
        (47_387, 566, 726, 9, 3, 4_415_412_541_478_085_378),
    ];
    let spec = Spec {
        kind: 2,
        unit_us: 330,
        depth: 3,
        overload: false,
        stalls: false,
        clients: clients.map(client).to_vec(),
    };
    let tally = World::new(&spec).run(PolicyKind::Atropos, Span::from_secs(1), 23_333);
    assert!(
        tally.checks[5] > 1_000 && !tally.broken(claims(PolicyKind::Atropos)),
        "{:?}",
        tally.first
    );
}

#[test]
fn the_supply_bound_is_nothing_during_the_blackout_and_a_slice_a_period_after() {
    let contract =
        Contract::new(Span::from_nanos(10), Amount::from_nanos(3), Span::from_nanos(8), None)
            .unwrap();
    let supply: Vec<u64> =
        (0..30).map(|window| sbf(&contract, Span::from_nanos(window)).as_nanos()).collect();
    assert_eq!(supply[..13], [0; 13], "10 + 8 - 6 = 12 without service");
    assert_eq!(supply[13..18], [1, 2, 3, 3, 3]);
    assert_eq!((supply[22], supply[23], supply[29]), (3, 4, 6));
}

#[test]
fn random_numbers_have_the_range_and_the_mean_that_they_say() {
    let mut random = Random::new(9);
    let mut sum = 0;
    for _ in 0..100_000 {
        let number = random.within(5, 9);
        assert!((5..=9).contains(&number));
        sum += random.around(1_000);
    }
    let mean = sum / 100_000;
    assert!((900..1_100).contains(&mean), "{mean}");
    assert_eq!(random.within(7, 7), 7);
    assert_eq!(random.within(9, 3), 9);
    assert!(random.within(0, u64::MAX) > 0);
}
