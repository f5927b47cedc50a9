//! What a deep disk admits, and whether it keeps it: units charged when they are handed out and
//! held to a window, against counting `depth` units as blocking and as overrun of each client.
//!
//! `cargo run --release -p moirai-simulator --example depth`
#![allow(clippy::print_stdout, reason = "a program that reports to its user")]

use moirai_scheduler::admission::{Overhead, Resource as Capacity, WHOLE_PPM, admit, reserved_ppm};
use moirai_scheduler::{Amount, Contract, PolicyKind, Span, Weight};
use moirai_simulator::random::Random;
use moirai_simulator::{Load, Resource, Scenario, Tenant, Time, Use, run_policy};

const MS: u64 = 1_000_000;
const SETS: u64 = 150;

/// Contracts until the first refusal, if a client may overdraw by `units` units and `units` are in
/// the way.
fn admitted(seed: u64, units: u64) -> Vec<Contract> {
    let overhead = Overhead { overrun: Amount::from_millis(units), ..Overhead::NONE };
    let disk = Capacity { capacity_ppm: WHOLE_PPM, blocking: Amount::from_millis(units), overhead };
    let mut random = Random::new(seed);
    let mut set = Vec::new();
    loop {
        let period = random.within(50, 200) * MS;
        let deadline = period * random.within(300, 1_000) / 1_000;
        let slice = deadline * random.within(20, 200) / 1_000;
        let Ok(contract) = Contract::new(
            Span::from_nanos(period),
            Amount::from_nanos(slice),
            Span::from_nanos(deadline),
            None,
        ) else {
            return set;
        };
        match admit(&disk, &set, &contract) {
            Ok(()) => set.push(contract),
            Err(_) => return set,
        }
    }
}

/// The longest lateness of any job, and the misses, with a greedy best-effort tenant beside the
/// set.
fn simulate(seed: u64, set: &[Contract], depth: u32) -> (u64, u64) {
    let mut random = Random::new(seed);
    let mut tenants: Vec<_> = set
        .iter()
        .enumerate()
        .map(|(number, contract)| {
            let load = Load::Periodic {
                period: Time(contract.period().as_nanos()),
                work: Time(contract.slice().as_nanos()),
                phase: Time(random.within(0, contract.period().as_nanos())),
                unit: None,
            };
            let uses = vec![Use { resource: "disk".into(), contract: *contract, load }];
            Tenant { name: number.to_string(), uses }
        })
        .collect();
    if let Ok(contract) =
        Contract::new(Span::from_millis(1), Amount::ZERO, Span::from_millis(1), Weight::new(1))
    {
        let uses = vec![Use { resource: "disk".into(), contract, load: Load::default() }];
        tenants.push(Tenant { name: "greedy".into(), uses });
    }
    let scenario = Scenario::new(
        vec![Resource::disk("disk", PolicyKind::Atropos, Amount::from_millis(1), depth)],
        tenants,
    );
    let report = run_policy(&scenario, Span::from_millis(5_000), seed, &mut |resource, clients| {
        let mut policy = moirai_scheduler::policy(resource.policy, clients);
        policy.set_blocking(Amount::from_millis(1));
        policy
    });
    let report = report.expect("the scenario names its own disk");
    let usages = || report.tenants.iter().filter_map(|tenant| tenant.disk.as_ref());
    let late = usages().map(|usage| usage.max_lateness_ns).max().unwrap_or(0);
    (late, usages().map(|usage| usage.misses).sum())
}

fn main() {
    println!("{SETS} random sets to the first refusal, units of 1 ms, then 5 s of simulation each");
    println!(
        "{:>6} {:>24} {:>24} {:>12} {:>8}",
        "depth", "reserved, one unit ppm", "reserved, depth units", "latest us", "misses"
    );
    for depth in [1, 2, 4, 8, 16, 32] {
        let mean = |units| {
            let shares = (0..SETS).map(|seed| u64::from(reserved_ppm(&admitted(seed, units))));
            shares.sum::<u64>() / SETS
        };
        let runs = (0..SETS).map(|seed| simulate(seed, &admitted(seed, 1), depth));
        let (late, misses) =
            runs.fold((0, 0), |(late, misses), run| (late.max(run.0), misses + run.1));
        println!(
            "{depth:>6} {:>24} {:>24} {:>12} {misses:>8}",
            mean(1),
            mean(u64::from(depth)),
            late / 1_000
        );
    }
}
