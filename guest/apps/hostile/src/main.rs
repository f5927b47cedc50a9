//! `hostile` attacks the machine that it runs on, in one way per run (`attack=NAME`), reports what
//! came of it and then waits. It is for tests: no attack may harm anybody else.
//!
//! Words: `attack=`, `count=8000` (of random accesses), `seed=1`. The event `attacked` counts
//! `rounds`, the verdicts of the devices (`failed`: they needed a reset; `answered`; `silent`) and
//! how often a device served again after a reset (`recovered`).
#![no_std]
#![no_main]

extern crate alloc;

mod device;
mod devices;
mod machine;
mod rings;

use alloc::borrow::ToOwned;
use alloc::format;

use device::Verdict;
use moirai_sdk::{App, AppError};

moirai_sdk::main!("hostile", run, ["attack", "count", "seed"]);

/// What came of an attack.
#[derive(Default)]
pub(crate) struct Score {
    pub(crate) rounds: u64,
    pub(crate) failed: u64,
    pub(crate) answered: u64,
    pub(crate) silent: u64,
    pub(crate) recovered: u64,
}

impl Score {
    pub(crate) fn count(&mut self, verdict: Verdict) {
        self.rounds += 1;
        match verdict {
            Verdict::Failed => self.failed += 1,
            Verdict::Answered => self.answered += 1,
            Verdict::Silent => self.silent += 1,
        }
    }
}

/// Numbers that are the same for every run of a seed (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> usize {
        usize::try_from((self.next() >> 16) % end.max(1)).unwrap_or(0)
    }
}

fn run(app: &mut App) -> Result<(), AppError> {
    let count = app.args().number("count", 8_000, (1, 10_000_000))?;
    let seed = app.args().number("seed", 1, (1, u64::MAX))?;
    let name = app.args().text("attack").unwrap_or("").to_owned();
    app.ready(|fields| fields.text("attack", &name));
    let score = match name.as_str() {
        "early-kick" => devices::early_kick(app)?,
        "registers" => devices::registers(app, count, seed)?,
        "reset-midway" => devices::reset_midway(app)?,
        "restart" => devices::restart(app)?,
        "spam" => devices::spam(app)?,
        "sizes" => rings::sizes(app)?,
        "ports" => machine::ports(count, seed),
        "console" => machine::console(),
        "triple-fault" => machine::triple_fault(),
        "exceptions" => machine::exceptions(),
        "no-handlers" => machine::no_handlers(),
        "garbage" => machine::garbage(seed),
        "overwrite" => machine::overwrite(),
        _ => {
            let chain = rings::CHAINS.into_iter().find(|(known, _)| *known == name);
            let unknown = || AppError::Other(format!("attack={name}: there is no such attack"));
            let (name, chain) = chain.ok_or_else(unknown)?;
            rings::post(app, name, chain)?
        }
    };
    app.report("attacked", |fields| {
        fields
            .text("attack", &name)
            .number("rounds", score.rounds)
            .number("failed", score.failed)
            .number("answered", score.answered)
            .number("silent", score.silent)
            .number("recovered", score.recovered)
    });
    while app.running() {
        app.wait(None, &mut []);
        // Asked so that the next wait is a long one.
        let _nothing_to_say = app.report_due();
    }
    Ok(())
}
