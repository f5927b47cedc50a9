//! `prove`: checks the invariants of the default policy over as many decisions as one likes.
//!
//! `prove [--decisions N] [--state FILE] [--policy NAME] [--seed S] [--jobs J]`, 10^9 decisions if
//! nothing else is said. Worlds are numbered; their numbers are their seeds. A run can be broken
//! off and goes on later from its state file, unless the program was changed meanwhile: then what
//! was proven is void. Ends with a table and, if an invariant was broken, with status 1 and the
//! number of the first such world (`cargo run -p moirai-simulator --example world -- N` shows it).
#![allow(clippy::print_stdout, reason = "a program that reports to its user")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use moirai_scheduler::{PolicyKind, Span};
use moirai_simulator::proof::{INVARIANTS, Tally, claims};
use moirai_simulator::world::{Spec, World};
use serde::{Deserialize, Serialize};

/// Virtual time of each world.
const WORLD_TIME: Span = Span::from_secs(1);

/// Worlds that each thread runs between two looks at the clock.
const BATCH: u64 = 16;

/// How far a proof has got.
#[derive(Serialize, Deserialize)]
struct State {
    /// Hash of the program that counted.
    program: u64,
    policy: String,
    next_world: u64,
    tally: Tally,
}

struct Options {
    decisions: u64,
    state: Option<PathBuf>,
    policy: PolicyKind,
    seed: u64,
    jobs: u64,
}

/// FNV-1a of this program.
fn program() -> u64 {
    let bytes = std::env::current_exe().and_then(std::fs::read).unwrap_or_default();
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        decisions: 1_000_000_000,
        state: None,
        policy: PolicyKind::Atropos,
        seed: 0,
        jobs: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.replace('_', "").parse().map_err(|e| format!("{name} {value}: {e}"));
        match name.as_str() {
            "--decisions" => options.decisions = number()?,
            "--seed" => options.seed = number()?,
            "--jobs" => options.jobs = number()?.clamp(1, 1024),
            "--state" => options.state = Some(value.into()),
            "--policy" => options.policy = value.parse().map_err(|e| format!("{name}: {e}"))?,
            _ => return Err(format!("cannot use `{name} {value}`")),
        }
    }
    if options.state.is_none() {
        options.state = Some(format!("target/prove-{}.json", options.policy).into());
    }
    Ok(options)
}

fn load(options: &Options) -> Result<State, String> {
    let fresh = State {
        program: program(),
        policy: options.policy.to_string(),
        next_world: options.seed,
        tally: Tally::default(),
    };
    let Some(path) = options.state.as_ref().filter(|path| path.exists()) else { return Ok(fresh) };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let state: State =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if state.policy != options.policy.as_str() {
        return Err(format!("{} is a proof of `{}`", path.display(), state.policy));
    }
    if state.program != fresh.program {
        let _ = writeln!(std::io::stderr(), "the program has changed: starting anew");
        return Ok(fresh);
    }
    Ok(state)
}

/// Writes beside the file first, so that breaking off leaves one of the two.
fn save(options: &Options, state: &State) -> Result<(), String> {
    let Some(path) = &options.state else { return Ok(()) };
    let text = serde_json::to_string(state).map_err(|e| e.to_string())?;
    let part = path.with_extension("part");
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    std::fs::write(&part, text)
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// Runs the next worlds on all threads; the sum does not depend on how many there are.
fn batch(policy: PolicyKind, first: u64, jobs: u64) -> Tally {
    let part = |start: u64| {
        let mut sum = Tally::default();
        for world in (0..BATCH).map(|i| start.wrapping_add(i)) {
            let mut tally = World::new(&Spec::random(world)).run(policy, WORLD_TIME, world);
            let named = |what: &mut String| *what = format!("world {world}: {what}");
            tally.first.values_mut().for_each(named);
            sum.merge(&tally);
        }
        sum
    };
    std::thread::scope(|scope| {
        let start = |job| scope.spawn(move || part(first.wrapping_add(job * BATCH)));
        let threads: Vec<_> = (0..jobs).map(start).collect();
        let mut sum = Tally::default();
        for thread in threads {
            sum.merge(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        sum
    })
}

fn prove(options: &Options, state: &mut State) -> Result<(), String> {
    let started = Instant::now();
    let before = state.tally.decisions;
    let mut shown = Instant::now();
    while state.tally.decisions < options.decisions {
        let world = state.next_world;
        state.tally.merge(&batch(options.policy, world, options.jobs));
        state.next_world = world.wrapping_add(BATCH * options.jobs);
        if shown.elapsed() > Duration::from_secs(2) {
            shown = Instant::now();
            save(options, state)?;
            let done = state.tally.decisions;
            let rate = (done - before) / started.elapsed().as_secs().max(1);
            let left = options.decisions.saturating_sub(done) / rate.max(1);
            let mut err = std::io::stderr();
            let _ = write!(
                err,
                "\r{done} of {} decisions, {world} worlds, {rate}/s, {left} s left   ",
                options.decisions
            );
        }
    }
    let _ = writeln!(std::io::stderr());
    save(options, state)
}

fn table(policy: PolicyKind, state: &State) {
    println!("{:>2}  {:<52} {:>16} {:>10}", "", "invariant", "checks", "violations");
    for &number in claims(policy) {
        println!(
            "{number:>2}  {:<52} {:>16} {:>10}",
            INVARIANTS[number - 1],
            state.tally.checks[number - 1],
            state.tally.violations[number - 1]
        );
    }
    println!(
        "{} under {} decisions in {} worlds",
        state.policy, state.tally.decisions, state.next_world
    );
    for (number, first) in &state.tally.first {
        println!("first violation of {number}: {first}");
    }
}

fn main() -> ExitCode {
    let result = options().and_then(|options| {
        let mut state = load(&options)?;
        prove(&options, &mut state)?;
        Ok((options.policy, state))
    });
    match result {
        Ok((policy, state)) => {
            table(policy, &state);
            ExitCode::from(u8::from(state.tally.broken(claims(policy))))
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "prove: {error}");
            ExitCode::from(2)
        }
    }
}
