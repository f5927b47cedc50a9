//! Decisions of the simulator per second: `cargo bench -p moirai-simulator`. The goal is 20 million
//! a minute on one core, a third of a million a second.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use divan::Bencher;
use divan::counter::ItemsCount;
use moirai_scheduler::{Amount, Contract, PolicyKind, Span, Weight};
use moirai_simulator::{Load, Resource, Scenario, Tenant, Use, run};

const MS: u64 = 1_000_000;

fn main() {
    divan::main();
}

fn scenario(tenants: u64) -> Scenario {
    let contract = |i: u64| {
        let period = 10 * MS + i * 100_000;
        Contract::new(
            Span::from_nanos(period),
            Amount::from_nanos(period / tenants / 2),
            Span::from_nanos(period),
            Weight::new(1),
        )
        .unwrap()
    };
    let tenant = |i| Tenant {
        name: format!("tenant-{i}"),
        uses: vec![Use { resource: "link".into(), contract: contract(i), load: Load::default() }],
    };
    Scenario::new(
        vec![Resource::link("link", PolicyKind::Atropos, Amount::from_micros(12))],
        (0..tenants).map(tenant).collect(),
    )
}

#[divan::bench(args = [2, 16, 128])]
fn one_second_of_a_gigabit_link(bencher: Bencher<'_, '_>, tenants: u64) {
    let scenario = scenario(tenants);
    let decisions = run(&scenario, 1, 1).unwrap().decisions;
    bencher.counter(ItemsCount::new(decisions)).bench_local(|| run(&scenario, 1, 1).unwrap());
}
