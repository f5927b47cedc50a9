//! What a decision costs, for 1 to 4096 clients, and what admission costs for 1000 contracts.
//!
//! `cargo bench -p moirai-scheduler`. Every iteration is one call; phases of the clients differ, so
//! that refills come one by one as they do on a machine.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use divan::{Bencher, black_box};
use moirai_scheduler::admission::{Overhead, Resource, WHOLE_PPM, admit, check};
use moirai_scheduler::{
    Amount, Atropos, ClientId, Contract, Head, Moment, Policy, Service, Span, Weight,
};

const MS: u64 = 1_000_000;
const CLIENTS: [u32; 7] = [1, 4, 16, 64, 256, 1024, 4096];

fn main() {
    divan::main();
}

/// All clients awake, with periods around 100 ms and phases all over them.
fn policy(clients: u32) -> Atropos {
    let mut policy = Atropos::new(clients as usize);
    for i in 0..clients {
        let period = Span::from_micros(100_000 + u64::from(i * 7919 % 1000) * 10);
        let slice = (period.service() / u64::from(clients) / 2).max(Amount::ONE);
        let contract = Contract::new(period, slice, period, Weight::new(1 + i % 4)).unwrap();
        policy.add(ClientId(i), contract, Moment::ZERO).unwrap();
        let phase = Moment::from_nanos(u64::from(i) * 100 * MS / u64::from(clients));
        policy.wake(ClientId(i), Head::default(), phase);
    }
    policy
}

#[divan::bench(args = CLIENTS)]
fn pick_and_charge(bencher: Bencher<'_, '_>, clients: u32) {
    let mut policy = policy(clients);
    let mut now = Moment::from_millis(100);
    bencher.bench_local(|| {
        let pick = policy.pick(now).unwrap();
        let end = pick.until.min(now + Span::from_micros(50)).max(now + Span::ONE);
        policy.charge(pick.client, pick.service, (end - now).service(), end);
        now = end;
        black_box(pick)
    });
}

#[divan::bench(args = CLIENTS)]
fn block_and_wake(bencher: Bencher<'_, '_>, clients: u32) {
    let mut policy = policy(clients);
    let (mut now, mut i) = (Moment::from_millis(100), 0);
    bencher.bench_local(|| {
        i = (i + 617) % clients;
        policy.block(ClientId(i), now);
        policy.wake(ClientId(i), Head::default(), now + Span::from_nanos(100));
        now += Span::from_nanos(200);
    });
}

#[divan::bench(args = CLIENTS)]
fn refill(bencher: Bencher<'_, '_>, clients: u32) {
    let mut policy = policy(clients);
    let mut now = Moment::from_millis(100);
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
        policy.charge(
            ClientId(i),
            Service::Extra,
            Amount::from_micros(1),
            Moment::from_millis(100),
        );
    });
}

/// 1000 different contracts with early deadlines that reserve so many thousandths.
fn thousand(reserved: u64) -> Vec<Contract> {
    let contract = |i: u64| {
        let period = 10 * MS + i * i % 997 * 500_000 + i;
        let deadline = period * (600 + i * 31 % 400) / 1000;
        let slice = Amount::from_nanos(period * reserved / 1_000_000);
        let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
        Contract::new(period, slice, deadline, None).unwrap()
    };
    (0..1000).map(contract).collect()
}

fn core() -> Resource {
    Resource { capacity_ppm: WHOLE_PPM, blocking: Amount::ZERO, overhead: Overhead::NONE }
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
    let asked =
        Contract::new(Span::from_millis(20), Amount::from_millis(10), Span::from_millis(20), None)
            .unwrap();
    assert!(admit(&core(), &set, &asked).is_err());
    bencher.bench_local(|| admit(&core(), black_box(&set), &asked));
}
