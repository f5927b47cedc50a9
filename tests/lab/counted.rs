//! Two Linux tenants and a library OS tenant on one core, in a machine whose clock counts
//! instructions: the same figures on every run, whatever else the development machine does.
//!
//! Prints `figure NAME VALUE` lines, which `lab` compares between two runs byte for byte,
//! and a `test NAME ... ok` line for each promise. Runs as a program of its own, because the
//! measurements belong together: one boot, then one phase after the other.
//!
//! | phase | what runs | what is measured |
//! | --- | --- | --- |
//! | alone | a periodic task in the first tenant, nothing else | the floor of wake-up latency |
//! | shares | CPU hogs everywhere, nobody takes slack | what each got in each second; misses |
//! | wake | the periodic task, its tenant else idle; hogs in the others | latency above the floor |
//! | loaded | the periodic task beside a hog of its own tenant | latency: the blackout |
//! | slack | hogs everywhere; Linux tenants share slack 2 to 1 | fairness, idle time, overhead |
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it expects")]
#![allow(clippy::print_stdout, reason = "its output is its result")]

#[allow(dead_code, reason = "the other tests use the rest of it")]
mod guest;

use std::process::ExitCode;
use std::time::Duration;

use guest::{Guest, Machine};
use moirai_tests::Host;
use serde_json::Value;

/// Name, period, slice (ms) of the contracts: 30, 20 and 10 per cent.
const CONTRACTS: [(&str, u64, u64); 3] = [("first", 10, 3), ("second", 20, 4), ("libos", 10, 1)];
const SECONDS: usize = 4;
/// What a period may lack because the one before overran: the dispatcher's grain and its own round.
const GRAIN_NS: u64 = 150_000;
/// Releases of the periodic task; its period shares no divisor with the contracts'.
const WAKE: &str = "/probe wake 7001 400";

fn main() -> ExitCode {
    let policy = std::env::args().nth(1).unwrap_or_default();
    let scheduled = policy != "control";
    let mut report = Report { prefix: if scheduled { "moirai" } else { "control" }, failed: 0 };
    measure(&mut report, scheduled);
    ExitCode::from(u8::from(report.failed > 0))
}

struct Report {
    prefix: &'static str,
    failed: u32,
}

impl Report {
    fn figure(&self, name: &str, value: impl std::fmt::Display) {
        println!("figure {}.{name} {value}", self.prefix);
    }

    /// A promise; the control makes none.
    fn promise(&mut self, name: &str, kept: bool) {
        if self.prefix == "control" {
            return;
        }
        println!("test counted::{name} ... {}", if kept { "ok" } else { "FAILED" });
        self.failed += u32::from(!kept);
    }
}

fn start(scheduled: bool) -> Host {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let path = folder.path().display();
    let text = format!(
        "[host]\ncores = [0]\nsocket = \"{path}/host.sock\"\nstate_dir = \"{path}/state\"\n"
    );
    let words: &[&str] = if scheduled { &[] } else { &["--no-scheduling"] };
    Host::start_with(folder, "none".to_owned(), &text, words)
}

fn contract(index: usize, extra: bool) -> String {
    let (_, period, slice) = CONTRACTS[index];
    format!("cpu = {{ period = \"{period}ms\", slice = \"{slice}ms\", extra = {extra} }}\n")
}

/// Boots a Linux tenant, with slack, because that takes less time; from then on without.
fn boot(host: &Host, index: usize) -> Guest<'_> {
    let name = CONTRACTS[index].0;
    let machine = Machine { more: contract(index, true), memory: "192M", ..Machine::default() };
    let guest = Guest::boot(host, name, &machine);
    set(host, name, "cpu.extra=false");
    progress(&format!("{name} has booted"));
    guest
}

/// So that a run that does not end shows where it stopped.
fn progress(what: &str) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    println!("# {}: {what}", uptime.split_whitespace().next().unwrap_or_default());
}

fn set(host: &Host, name: &str, change: &str) {
    let set = host.ask(&["set", name, change]);
    assert!(set.status.success(), "{}", moirai_tests::said(&set));
}

fn measure(report: &mut Report, scheduled: bool) {
    progress("begin");
    let host = start(scheduled);
    progress("the host service runs");
    let mut first = boot(&host, 0);
    wake(report, &mut first, "alone");
    let second = boot(&host, 1);
    second.start("/probe hog &");
    host.launch(&format!(
        "[[tenant]]\nname = \"libos\"\nimage = \"carnage\"\nmemory = \"16M\"\n{}",
        contract(2, false)
    ));
    first.run("/probe hog & sleep 2");
    shares(report, &host);
    wake(report, &mut first, "loaded");
    first.run("killall probe; sleep 1");
    wake(report, &mut first, "idle");
    first.run("/probe hog & sleep 1");
    if scheduled {
        slack(report, &host);
    }
    let gap = host.report("libos", "report")["longest_gap_us"].clone();
    // p + D - 2s + B + e, with a grain for e.
    let bound_us = (10 + 10 - 2) * 1000 + GRAIN_NS / 1000;
    report.promise(
        "no_blackout_is_longer_than_its_bound",
        gap.as_u64().is_some_and(|gap| gap <= bound_us),
    );
    report.figure("libos.longest_gap_us", gap);
}

/// Latencies of the periodic task.
fn wake(report: &mut Report, guest: &mut Guest<'_>, phase: &str) {
    let text = guest.run(WAKE);
    progress(phase);
    let late: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    for key in ["p50", "p99", "max"] {
        report.figure(&format!("wake.{phase}.{key}_ns"), &late[key]);
    }
}

/// One look at all counters.
fn look(host: &Host) -> Look {
    let stats = host.stats();
    let tenants = stats["tenants"].as_array().cloned().unwrap_or_default();
    let of = |name: &str, key: &str| {
        let tenant = tenants.iter().find(|tenant| tenant["name"] == name).expect("a tenant");
        tenant["parts"][0][key].as_u64().unwrap_or_default()
    };
    let read = |name| Tally {
        guaranteed: of(name, "guaranteed_ns"),
        extra: of(name, "extra_ns"),
        misses: of(name, "misses") + of(name, "misses_in_stall"),
        least: of(name, "least_slice_ns"),
    };
    Look {
        now: stats["now_ns"].as_u64().expect("a time"),
        tallies: CONTRACTS.map(|(name, ..)| read(name)),
        overhead: stats["cores"][0]["overhead_ns"].as_u64().unwrap_or_default(),
        rounds: stats["cores"][0]["decisions"].as_u64().unwrap_or_default(),
        idle: idle_ns(),
    }
}

struct Look {
    now: u64,
    tallies: [Tally; 3],
    overhead: u64,
    /// Decisions of the dispatcher.
    rounds: u64,
    idle: u64,
}

struct Tally {
    guaranteed: u64,
    extra: u64,
    misses: u64,
    least: u64,
}

/// Idle time of the machine, to 10 ms.
fn idle_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let field = stat.lines().next().and_then(|line| line.split_whitespace().nth(4));
    field.and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or_default() * 10_000_000
}

/// Millionths.
fn ppm(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 1_000_000 / u128::from(whole.max(1))).expect("a share")
}

/// What each got in every second, and the least in any period.
///
/// A look cuts a period in two. By then a tenant may have all of its slice or nothing of it, which
/// is up to `s - s*s/p` more or less than its part of that period; so two looks allow twice that,
/// and no more. What a single period got is `least_slice_ns`; it counts from the last change of the
/// contract.
fn shares(report: &mut Report, host: &Host) {
    for (name, _, slice) in CONTRACTS {
        // Any change makes the least slice count anew.
        set(host, name, &format!("cpu.slice={}us", slice * 1000 - 1));
        set(host, name, &format!("cpu.slice={slice}ms"));
    }
    let mut looks = vec![look(host)];
    for _ in 0..SECONDS {
        std::thread::sleep(Duration::from_secs(1));
        looks.push(look(host));
    }
    let (first, last) = (&looks[0], &looks[SECONDS]);
    let elapsed = last.now - first.now;
    report.figure("shares.overhead_ppm", ppm(last.overhead - first.overhead, elapsed));
    report.figure("shares.rounds", last.rounds - first.rounds);
    let (mut kept, mut whole, mut missed) = (true, true, 0);
    for (index, (name, period, slice)) in CONTRACTS.into_iter().enumerate() {
        for (second, pair) in looks.windows(2).enumerate() {
            let [before, after] = pair else { unreachable!("windows of two") };
            let (a, b) = (&before.tallies[index], &after.tallies[index]);
            let got = b.guaranteed + b.extra - a.guaranteed - a.extra;
            let elapsed = after.now - before.now;
            report.figure(&format!("{name}.second{second}.share_ppm"), ppm(got, elapsed));
            let owed = elapsed * slice / period;
            kept &= got.abs_diff(owed) <= 2 * (slice * 1_000_000 * (period - slice) / period);
        }
        let (first, last) = (&looks[0], &looks[SECONDS]);
        let (a, b) = (&first.tallies[index], &last.tallies[index]);
        missed += b.misses - a.misses;
        report.figure(&format!("{name}.misses"), b.misses - a.misses);
        report.figure(&format!("{name}.least_slice_ns"), b.least);
        whole &= b.least + GRAIN_NS >= slice * 1_000_000;
        report.figure(&format!("{name}.slice_ns"), slice * 1_000_000);
    }
    report.promise("contracts_are_delivered_in_every_second", kept);
    report.promise("no_period_misses_its_slice", missed == 0);
    report.promise("every_period_brings_the_slice_but_for_a_grain", whole);
}

/// The Linux tenants share what is left 2 to 1.
fn slack(report: &mut Report, host: &Host) {
    for (name, extra) in [("first", "cpu.extra=2"), ("second", "cpu.extra=1")] {
        set(host, name, extra);
    }
    std::thread::sleep(Duration::from_secs(1));
    let before = look(host);
    std::thread::sleep(Duration::from_secs(SECONDS as u64));
    let after = look(host);
    let elapsed = after.now - before.now;
    let got = |index: usize| after.tallies[index].extra - before.tallies[index].extra;
    let (first, second) = (got(0), got(1));
    report.figure("slack.first_ppm", ppm(first, elapsed));
    report.figure("slack.second_ppm", ppm(second, elapsed));
    // Jain's index of (first / 2, second / 1), in millionths.
    let (x, y) = (u128::from(first), u128::from(second) * 2);
    let jain = (x + y) * (x + y) * 1_000_000 / (2 * (x * x + y * y)).max(1);
    report.figure("slack.jain_ppm", jain);
    report.figure("slack.idle_ppm", ppm(after.idle - before.idle, elapsed));
    report.figure("slack.rounds", after.rounds - before.rounds);
    report.figure("slack.overhead_ppm", ppm(after.overhead - before.overhead, elapsed));
    report.promise("slack_is_shared_by_weight", jain >= 999_000);
    report.promise("no_time_is_left_while_somebody_wants_it", after.idle == before.idle);
}
