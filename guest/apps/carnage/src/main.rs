//! `carnage` burns all the CPU it gets, and reports for how much of the time it ran: in a gap
//! between two looks at the clock somebody else had the core.
#![no_std]
#![no_main]

use moirai_sdk::{App, AppError, now};

moirai_sdk::main!("carnage", run, []);

/// Longer gaps than this are somebody else's time.
const GAP_NS: u64 = 100_000;
/// Rounds of arithmetic between two looks at the clock, some microseconds.
const ROUNDS: u32 = 4096;

fn run(app: &mut App) -> Result<(), AppError> {
    app.ready(|fields| fields);
    let (mut burnt, mut lost_ns, mut longest_gap_ns, mut seed) = (0u64, 0, 0, 1u64);
    let mut last = now();
    while app.running() {
        for _ in 0..ROUNDS {
            seed = core::hint::black_box(seed.wrapping_mul(6_364_136_223_846_793_005) ^ burnt);
        }
        burnt += u64::from(ROUNDS);
        let time = now();
        let gap = time.saturating_sub(last);
        if gap > GAP_NS {
            lost_ns += gap;
            longest_gap_ns = gap.max(longest_gap_ns);
        }
        if app.report_due() {
            app.report("report", |fields| {
                fields
                    .number("rounds", burnt)
                    .number("lost_us", lost_ns / 1000)
                    .number("longest_gap_us", longest_gap_ns / 1000)
            });
            longest_gap_ns = 0;
        }
        // Writes some of the report; the time it takes is not anybody else's.
        app.wait(Some(0), &mut []);
        last = now();
    }
    Ok(())
}
