//! Shows one world of `prove`: its numbers, its contracts, and what was broken in it.
#![allow(clippy::print_stdout, reason = "a program that reports to its user")]

use moirai_scheduler::{PolicyKind, Span};
use moirai_simulator::world::{Spec, World};

fn main() {
    for seed in std::env::args().skip(1).filter_map(|seed| seed.parse().ok()) {
        let world = World::new(&Spec::random(seed));
        let tally = world.run(PolicyKind::Atropos, Span::from_secs(1), seed);
        println!("{world:#?}\n{:?}", tally.first);
    }
}
