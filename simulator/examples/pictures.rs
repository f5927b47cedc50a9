//! Draws the pictures of docs/scheduling.md: `cargo run -p moirai-simulator --example pictures`,
//! from the root of the repository.
#![allow(clippy::unwrap_used, reason = "a tool for those who write the documents")]

use moirai_scheduler::admission::{Overhead, Resource as Capacity, WHOLE_PPM, demand::Set};
use moirai_scheduler::{Amount, Contract, Moment, PolicyKind, Span, Weight};
use moirai_simulator::gantt::{demand_chart, gantt};
use moirai_simulator::load::Time;
use moirai_simulator::{Load, Resource, Scenario, Tenant, Use, run};

const MS: u64 = 1_000_000;

fn contract(period: u64, slice: u64, deadline: u64, weight: u32) -> Contract {
    Contract::new(
        Span::from_millis(period),
        Amount::from_millis(slice),
        Span::from_millis(deadline),
        Weight::new(weight),
    )
    .unwrap()
}

fn tenant(name: &str, contract: Contract, load: Load) -> Tenant {
    let resource = "core".into();
    Tenant { name: name.into(), uses: vec![Use { resource, contract, load }] }
}

fn draw(name: &str, policy: PolicyKind, until: u64, tenants: Vec<Tenant>) {
    let scenario = Scenario::new(vec![Resource::cpu("core", policy)], tenants);
    let report = run(&scenario, 1, 1).unwrap();
    std::fs::write(
        format!("docs/pictures/{name}.svg"),
        gantt(&report, Moment::ZERO, Moment::from_millis(until)),
    )
    .unwrap();
}

fn busy() -> Load {
    Load::default()
}

fn every(period: u64, work: u64) -> Load {
    Load::Periodic { period: Time(period * MS), work: Time(work * MS), phase: Time(0), unit: None }
}

fn main() {
    std::fs::create_dir_all("docs/pictures").unwrap();
    let three = || {
        vec![
            tenant("film", contract(20, 4, 20, 0), every(20, 4)),
            tenant("sound", contract(5, 1, 5, 0), every(5, 1)),
            tenant("burner", contract(20, 2, 20, 1), busy()),
        ]
    };
    draw("guarantee-and-slack", PolicyKind::Atropos, 60, three());
    draw("first-come", PolicyKind::Fifo, 60, three());
    let early = |deadline| {
        vec![
            tenant("control", contract(20, 3, deadline, 0), busy()),
            tenant("others", contract(10, 6, 10, 0), busy()),
        ]
    };
    draw("deadline-is-period", PolicyKind::Atropos, 80, early(20));
    draw("early-deadline", PolicyKind::Atropos, 80, early(4));
    let weights = vec![
        tenant("weight 1", contract(20, 0, 20, 1), busy()),
        tenant("weight 3", contract(20, 0, 20, 3), busy()),
        tenant("reserved", contract(20, 8, 20, 0), busy()),
    ];
    draw("weights", PolicyKind::Atropos, 60, weights);
    let thief = |policy| {
        let pause = Some(Time(15_100_000));
        let load = Load::LatencyThief { work: None, pause };
        draw(
            &format!("thief-{policy}"),
            policy,
            300,
            vec![
                tenant("thief", contract(100, 10, 25, 0), load),
                tenant("slack", contract(100, 0, 100, 1), busy()),
            ],
        );
    };
    thief(PolicyKind::Nemesis);
    thief(PolicyKind::Atropos);
    let whole = Capacity {
        capacity_ppm: WHOLE_PPM,
        blocking: Amount::from_millis(1),
        overhead: Overhead::NONE,
    };
    let set = [contract(10, 3, 5, 0), contract(15, 5, 12, 0), contract(40, 9, 40, 0)];
    let curve = Set::new(&whole, set).curve(Span::from_millis(80), 1_000);
    std::fs::write("docs/pictures/demand.svg", demand_chart(&curve)).unwrap();
}
