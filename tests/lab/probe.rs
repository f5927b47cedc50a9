//! Runs inside Linux guests: takes all CPU time, or measures how late a periodic task wakes up.
//!
//! `probe hog` never ends. `probe wake PERIOD_US ROUNDS` sleeps from release to release and prints
//! how late it ran, in nanoseconds: `{"rounds":..,"p50":..,"p99":..,"max":..}`.
//! Built by `machine.sh` as a static program of one file; the guest has no libraries.
#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["hog"] => hog(),
        ["wake", period_us, rounds] => match (period_us.parse(), rounds.parse()) {
            (Ok(period_us), Ok(rounds)) if rounds > 0 => {
                wake(Duration::from_micros(period_us), rounds);
                ExitCode::SUCCESS
            }
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: probe hog | probe wake PERIOD_US ROUNDS");
    ExitCode::from(2)
}

fn hog() -> ! {
    let mut number = 1u64;
    loop {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

fn wake(period: Duration, rounds: usize) {
    let mut late: Vec<u128> = Vec::with_capacity(rounds);
    let mut release = Instant::now() + period;
    while late.len() < rounds {
        std::thread::sleep(release.saturating_duration_since(Instant::now()));
        late.push(release.elapsed().as_nanos());
        release += period;
    }
    late.sort_unstable();
    let at = |per_mille: usize| late[(late.len() - 1) * per_mille / 1000];
    println!(
        "{{\"rounds\":{rounds},\"p50\":{},\"p99\":{},\"max\":{}}}",
        at(500),
        at(990),
        at(1000)
    );
}
