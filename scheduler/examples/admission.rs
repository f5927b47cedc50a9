//! How long admission takes: sets of 10 to 1000 contracts near the capacity, decided and refused.
//!
//! `cargo run --release -p moirai-scheduler --example admission`
#![allow(clippy::print_stdout, reason = "a program that reports to its user")]

use std::time::Instant;

use moirai_scheduler::admission::{Overhead, Resource, admit, check};
use moirai_scheduler::{Amount, Contract, Span};

/// xorshift64*: the same sets in each run.
struct Random(u64);

impl Random {
    fn within(&mut self, low: u64, high: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        low + self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % (high - low + 1)
    }
}

fn contract(random: &mut Random, share_ppm: u64) -> Contract {
    let period = random.within(1_000, 200_000) * 1_000;
    let deadline = period * random.within(500, 1_000) / 1_000;
    let slice = (period * random.within(share_ppm / 2, share_ppm * 3 / 2) / 1_000_000).max(1_000);
    let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
    let slice = Amount::from_nanos(slice).min(deadline.service());
    Contract::new(period, slice, deadline, None).expect("well-formed")
}

/// Sorts; in microseconds.
fn median(times: &mut [u128]) -> u128 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let resource =
        Resource { capacity_ppm: 950_000, blocking: Amount::ZERO, overhead: Overhead::NONE };
    println!(
        "{:>8} {:>9} {:>9} {:>12} {:>10} {:>12} {:>10}   us",
        "offered", "admitted", "refused", "admission", "longest", "refusal", "longest"
    );
    for offered in [10u64, 100, 400, 1_000, 2_000] {
        let mut random = Random(offered);
        let mut admitted = Vec::new();
        let (mut checks, mut refusals) = (Vec::new(), Vec::new());
        for _ in 0..offered {
            let newcomer = contract(&mut random, 1_400_000 / offered);
            let begun = Instant::now();
            match admit(&resource, &admitted, &newcomer) {
                Ok(()) => {
                    checks.push(begun.elapsed().as_micros());
                    admitted.push(newcomer);
                }
                Err(_) => refusals.push(begun.elapsed().as_micros()),
            }
        }
        let begun = Instant::now();
        let fits = check(&resource, &admitted).is_ok();
        checks.push(begun.elapsed().as_micros());
        assert!(fits, "each was admitted");
        println!(
            "{offered:>8} {:>9} {:>9} {:>12} {:>10} {:>12} {:>10}",
            admitted.len(),
            refusals.len(),
            median(&mut checks),
            checks.last().copied().unwrap_or_default(),
            median(&mut refusals),
            refusals.last().copied().unwrap_or_default(),
        );
    }
}
