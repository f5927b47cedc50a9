//! What a decision costs, for 1 to 4096 clients, and what admission costs for 1000 contracts.
//!
//! `cargo bench -p moirai-scheduler`. Every iteration is one call; phases of the clients differ, so
//! that refills come one by one as they do on a machine.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use divan::{Bencher, black_box};
use moirai_scheduler::admission::{Overhead, Resource, WHOLE_PPM, admit, check};
use moirai_scheduler::{Atropos, ClientId, Contract, Head, Nanos, Policy, Service, Weight};

const MS: Nanos = 1_000_000;
const CLIENTS: [u32; 7] = [1, 4, 16, 64, 256, 1024, 4096];

fn main() {
    divan::main();
}

/// All clients awake, with periods around 100 ms and phases all over them.
fn policy(clients: u32) -> Atropos {
    let mut policy = Atropos::new(clients as usize);
    for i in 0..clients {
        let period = 100 * MS + Nanos::from(i * 7919 % 1000) * 10_000;
        let slice = (period / Nanos::from(clients) / 2).max(1);
        let contract = Contract::new(period, slice, period, Weight::new(1 + i % 4)).unwrap();
        policy.add(ClientId(i), contract, 0).unwrap();
        let phase = Nanos::from(i) * 100 * MS / Nanos::from(clients);
        policy.wake(ClientId(i), Head::default(), phase);
    }
    policy
}

#[divan::bench(args = CLIENTS)]
fn pick_and_charge(bencher: Bencher<'_, '_>, clients: u32) {
    let mut policy = policy(clients);
    let mut now = 100 * MS;
    bencher.bench_local(|| {
        let pick = policy.pick(now).unwrap();
        let end = pick.until.min(now + 50_000).max(now + 1);
        policy.charge(pick.client, pick.service, end - now, end);
        now = end;
        black_box(pick)
    });
}

#[divan::bench(args = CLIENTS)]
fn block_and_wake(bencher: Bencher<'_, '_>, clients: u32) {
    let mut policy = policy(clients);
    let (mut now, mut i) = (100 * MS, 0);
    bencher.bench_local(|| {
        i = (i + 617) % clients;
        policy.block(ClientId(i), now);
        policy.wake(ClientId(i), Head::default(), now + 100);
        now += 200;
    });
}

#[divan::bench(args = CLIENTS)]
fn refill(bencher: Bencher<'_, '_>, clients: u32) {
    let mut policy = policy(clients);
    let mut now = 100 * MS;
    bencher.bench_local(|| {
        now = policy.timeout(now).unwrap();
        black_box(policy.pick(now))
    });
}

#[divan::bench(args = CLIENTS)]
fn charge_slack(bencher: Bencher<'_, '_>, clients: u32) {
    let mut policy = policy(clients);
    let mut i = 0;
    bencher.bench_local(|| {
        i = (i + 617) % clients;
        policy.charge(ClientId(i), Service::Extra, 1_000, 100 * MS);
    });
}

/// 1000 different contracts with early deadlines that reserve so many thousandths.
fn thousand(reserved: u64) -> Vec<Contract> {
    let contract = |i: u64| {
        let period = 10 * MS + i * i % 997 * 500_000 + i;
        let deadline = period * (600 + i * 31 % 400) / 1000;
        Contract::new(period, period * reserved / 1_000_000, deadline, None).unwrap()
    };
    (0..1000).map(contract).collect()
}

fn core() -> Resource {
    Resource { capacity_ppm: WHOLE_PPM, blocking: 0, overhead: Overhead::NONE }
}

#[divan::bench(args = [900, 950, 970, 980, 990])]
fn check_1000_contracts(bencher: Bencher<'_, '_>, reserved: u64) {
    let set = thousand(reserved);
    assert!(check(&core(), &set).is_ok());
    bencher.bench_local(|| check(&core(), black_box(&set)));
}

#[divan::bench(sample_count = 20)]
fn refuse_the_1001st_contract_and_find_the_nearest(bencher: Bencher<'_, '_>) {
    let set = thousand(970);
    let asked = Contract::new(20 * MS, 10 * MS, 20 * MS, None).unwrap();
    assert!(admit(&core(), &set, &asked).is_err());
    bencher.bench_local(|| admit(&core(), black_box(&set), &asked));
}
