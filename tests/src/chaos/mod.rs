//! `chaos`: an hour of faults, at random, on a host service under load; a minute of it in
//! `make test`.
//!
//! Writers at exports write numbered blocks and note what was acknowledged; a film and a pulse have
//! contracts and are touched by nobody; neighbours want all the rest. One fault follows the other
//! (`fault`). After each, all blocks are read back, and the counters of the untouched must not have
//! missed anything outside of stalls that the host service has seen itself; at the end of each life
//! of the host service, receivers say how late the film was, and it must not have grown.
//!
//! | module | what is in it |
//! | --- | --- |
//! | `fault` | the kinds of faults, and how each is done |
//! | `world` | the host service and all that runs in it |
//! | `writer`, `keeper` | processes that write and read back, and who starts them |
//! | `driver`, `block`, `ledger` | requests, numbered blocks, what was acknowledged |
//! | `weak` | a file system in user space that fails and waits when it is told to |
//! | `film` | the film and its receivers |
//! | `judge`, `left`, `report` | what is looked at after each fault, at the end, and what is said |
//!
//! `chaos power` cuts the power of a disk instead (`power`).
//!
//! The outer process starts the inner one in a mount namespace of its own and in a process group
//! with a guard (`crate::run`), so nothing outlives it, however it ends.
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

mod block;
mod driver;
mod fault;
mod film;
mod judge;
mod keeper;
mod ledger;
mod left;
mod power;
mod random;
mod report;
mod weak;
mod world;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use crate::root;
use crate::run::{Ending, bounded};
use fault::Fault;
use judge::{Has, Life};
use left::Before;
use random::Chance;
use report::Report;
use world::World;

/// A run that takes so much longer than it was to take hangs.
const GRACE: Duration = Duration::from_secs(300);

/// Faults at random on a host service under load
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// How long faults go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where chance begins; the same seed gives the same faults in the same order
    #[arg(long)]
    seed: Option<u64>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What else it does, and the processes that it starts itself.
#[derive(Clone, Debug, Subcommand)]
enum Part {
    /// Cuts the power of a disk at many points: what was flushed must be there
    Power {
        /// Cuts of each of four cases
        #[arg(long, default_value_t = 100)]
        points: u64,
        /// Of the inner process
        #[arg(hide = true)]
        folder: Option<PathBuf>,
    },
    /// The run itself, in a mount namespace and a process group of its own
    #[command(hide = true)]
    Inside {
        /// Its folder
        folder: PathBuf,
    },
    /// Writes and reads back
    #[command(hide = true)]
    Writer(writer::Words),
}

/// The program: everything but its name.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let length = Duration::from_secs(arguments.seconds);
    let seed = arguments.seed.unwrap_or_else(moirai_runtime::wall_clock);
    let result = match arguments.part.clone() {
        None => outside(&arguments, seed),
        Some(Part::Power { folder: None, .. }) => outside(&arguments, seed),
        Some(Part::Power { points, folder: Some(folder) }) => power::main(&folder, points, seed),
        Some(Part::Inside { folder }) => inside(&folder, length, seed),
        Some(Part::Writer(words)) => return writer::main(&words),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the run in its namespace and group, and passes on what it says.
fn outside(arguments: &Arguments, seed: u64) -> Result<bool, String> {
    let failed = |error: io::Error| error.to_string();
    let folder = tempfile::tempdir_in("/var/tmp").map_err(failed)?;
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(std::env::current_exe().map_err(failed)?);
    command.args(["--seconds", &arguments.seconds.to_string(), "--seed", &seed.to_string()]);
    let mut limit = Duration::from_secs(arguments.seconds) + GRACE;
    if let Some(Part::Power { points, .. }) = arguments.part {
        limit = GRACE + Duration::from_secs(4) * u32::try_from(points).unwrap_or(u32::MAX);
        command.args(["power", "--points", &points.to_string()]);
    } else {
        command.arg("inside");
    }
    command.arg(folder.path()).stdin(std::process::Stdio::null());
    let built = |path| root().join("target").join(path);
    for (key, path) in [("MOIRAI_TENANT", "release/moirai-tenant"), ("MOIRAI_IMAGES", "images")] {
        if std::env::var_os(key).is_none() {
            command.env(key, built(path));
        }
    }
    // If this process is killed, the host service gets the time to clean up before the group ends.
    let path = folder.path().display();
    let last_words = format!("kill -TERM 0; sleep 5; rm -rf '{path}'");
    let copy = |mut pipe| io::copy(&mut pipe, &mut io::stdout().lock());
    let stop = |elapsed| elapsed > limit;
    let (ending, copied) = bounded::watch(&mut command, &last_words, stop, copy).map_err(failed)?;
    copied.map_err(failed)?;
    if ending == Ending::Stopped {
        return Err(format!("the run did not end within {} s", limit.as_secs()));
    }
    Ok(ending.success())
}

/// The run.
fn inside(folder: &Path, length: Duration, seed: u64) -> Result<bool, String> {
    println!("chaos: {} s, seed {seed} (--seed {seed} repeats the faults)", length.as_secs());
    println!("chaos: disks fail by a file system in user space (FUSE) below the volume");
    let before = Before::look();
    let (begin, mut chance) = (Instant::now(), Chance::new(seed));
    let mut report = Report::default();
    let mut world = World::start(folder, seed)?;
    let mut hosts = vec![world.pid()];
    let mut life = Life::begin(&world)?;
    // Every kind once, then at random.
    let mut first = Fault::ALL.to_vec();
    let mut number = 0;
    while begin.elapsed() < length {
        let fault = if first.is_empty() {
            Fault::next(&mut chance)
        } else {
            let place = usize::try_from(chance.below(first.len() as u64)).unwrap_or(0);
            first.swap_remove(place)
        };
        number += 1;
        println!("[{:>4} s] {number}: {}", begin.elapsed().as_secs(), fault.name());
        let struck = if fault == Fault::HostKilled {
            let ended = life.end(&mut world);
            report.life(ended, Has::of(world.pid()));
            world.kill();
            let served = world.serve();
            served.map_err(|error| format!("after a kill: {error}\n{}", world.last_words()))?;
            hosts.push(world.pid());
            life = Life::begin(&world)?;
            Ok(())
        } else {
            fault.strike(&mut world, &mut chance)
        };
        let mut look = life.look(&mut world, fault);
        look.broken.extend(struck.err());
        look.broken.iter().for_each(|it| println!("         NOT KEPT: {it}"));
        look.late.iter().for_each(|it| println!("         LATE: {it}"));
        report.note(fault, look);
    }
    let ended = life.end(&mut world);
    report.life(ended, Has::of(world.pid()));
    let netns = world.netns.clone();
    report.wrong(world.end().err());
    drop(world);
    report.wrong(left::sockets(folder).into_iter().map(|it| format!("left behind: {it}")));
    let own = [std::process::id(), parent()];
    let left = before.left(folder, &netns, &hosts, &own);
    report.wrong(left.into_iter().map(|it| format!("left behind: {it}")));
    print!("{}", report.table());
    if let Some(why) = report.machine() {
        println!("NOT TESTED HERE: promises about time: {why}");
        if std::env::var_os("MOIRAI_REQUIRE_SPEED").is_some() {
            return Ok(false);
        }
    }
    println!("{}", report.json(seed, begin.elapsed()));
    Ok(report.success())
}

/// The guard of our process group, or who else has started us.
fn parent() -> u32 {
    rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs()
}
