//! The promises where users live, on this machine: sleepers in all phases, small readers beside
//! large ones, nappers. Tests in virtual time check what can be said to the nanosecond
//! (`simulator/tests/promise.rs`, the dispatcher's and the I/O domain's tests). Here the tests
//! allow for a shared machine that stands still now and then.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::path::Path;
use std::time::Duration;

use moirai_tests::{Host, core, cost_of_work, too_slow};
use serde_json::Value;

/// Of so many jobs one may be late: the machine stalls, and this test is not the only load on it.
/// Before slices belonged to wake-ups, all of those in other phases were. The periods of the
/// contracts are a little shorter than those of the tasks, as docs/scheduling.md says: after a
/// stall that has delayed a wake-up, the next one comes before its refill.
const ONE_IN: u64 = 10;

fn tenant(name: &str, image: &str, args: &str, keys: &str) -> String {
    format!(
        "[[tenant]]\nname = \"{name}\"\nimage = \"{image}\"\nargs = \"{args}\"\nmemory \
         = \"16M\"\ncore = {}\n{keys}\n",
        core()
    )
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("no {key} in {report}"))
}

/// Runs `pulse` with these words, every 20 ms in each of the phases (in microseconds), under a
/// contract, beside a hog with this contract and one that takes what is left.
fn on_time_in_phases(hog: &str, phases: &[u64], words: &str, contract: &str) {
    let host = Host::start();
    if let Some(why) = too_slow(cost_of_work(&host)) {
        eprintln!("NOT TESTED HERE: {why}");
        assert!(std::env::var_os("MOIRAI_REQUIRE_SPEED").is_none());
        return;
    }
    host.launch(&tenant("hog", "carnage", "", &format!("cpu = {{ {hog} }}")));
    host.launch(&tenant("greedy", "carnage", "", "cpu = { extra = true }"));
    for phase in phases {
        let args = format!("period_us=20000 {words} phase_us={phase} seconds=5");
        host.launch(&tenant(
            &format!("p{phase}"),
            "pulse",
            &args,
            &format!("cpu = {{ {contract} }}"),
        ));
    }
    for phase in phases {
        let report = host.report(&format!("p{phase}"), "total");
        let (jobs, late) = (number(&report, "jobs"), number(&report, "late"));
        eprintln!("phase {phase}: {report}");
        assert!(jobs > 200 && late * ONE_IN <= jobs, "phase {phase}: {report}");
        assert!(report["worst_us"].is_u64() && report["start_worst_us"].is_u64());
    }
}

/// shared/cases/promise/phases-short-deadline.toml: 1286 of 1286 jobs were late in every phase but
/// one.
#[test]
fn a_task_that_wakes_in_any_phase_is_on_time_beside_hogs() {
    let hog = "period = \"20ms\", slice = \"9ms\"";
    let contract = "period = \"19ms\", slice = \"1050us\", deadline = \"5ms\"";
    on_time_in_phases(hog, &[0, 5_000, 10_000, 15_000], "work_us=400 deadline_us=5000", contract);
}

/// phases-deadline-is-period.toml: 149 of 492 jobs were late.
#[test]
fn a_task_that_may_be_done_at_any_time_in_its_period_is_on_time_beside_hogs() {
    let hog = "period = \"20ms\", slice = \"11ms\"";
    let contract = "period = \"19ms\", slice = \"1700us\"";
    on_time_in_phases(hog, &[0, 10_000, 15_000], "work_us=900", contract);
}

/// Writes a volume, so that reads find blocks.
fn volume(folder: &Path, name: &str) {
    let block = vec![0x5a_u8; 1 << 20];
    let mut data = Vec::new();
    for _ in 0..64 {
        data.extend_from_slice(&block);
    }
    std::fs::write(folder.join(name), data).unwrap();
}

/// What a read was charged in the mean, in nanoseconds, and how many there were.
fn charge(host: &Host, name: &str) -> (u64, u64) {
    let part = host.part(name, "disk");
    let time = number(&part, "guaranteed_ns") + number(&part, "extra_ns");
    let completed = number(&part, "completed").max(1);
    (time / completed, completed)
}

/// small-beside-large-reads.toml: one 4 KiB read at a time was charged as much as the 1 MiB reads
/// beside it (598 us instead of 72), and there were 297 of them in a second.
#[test]
fn a_small_reader_pays_for_small_reads_beside_large_ones() {
    let host = Host::start();
    for name in ["a", "b"] {
        volume(host.folder(), name);
    }
    let disk = |volume: &str, contract: &str| {
        format!(
            "cpu = {{ period = \"10ms\", slice = \"2ms\", extra = true }}\n[[tenant.disk]]\ndisk \
             = \"disk\"\n\
             volume = \"{volume}\"\nreadonly = true\n{contract}"
        )
    };
    let large = "mode=read depth=32 size=1048576 pattern=random";
    host.launch(
        &tenant("large", "thrash", large, &disk("b", "extra = true")).replace("16M", "128M"),
    );
    let small = "mode=read depth=1 size=4096 pattern=random";
    let contract = disk("a", "period = \"100ms\"\nslice = \"30ms\"");
    host.launch(&tenant("small", "thrash", small, &contract).replace("16M", "64M"));
    std::thread::sleep(Duration::from_secs(4));
    let (small, reads) = charge(&host, "small");
    let (large, _) = charge(&host, "large");
    println!("a read of 4 KiB is charged {small} ns ({reads} of them), one of 1 MiB {large} ns");
    assert!(reads > 400, "{reads} reads in 4 s");
    assert!(small * 6 < large, "4 KiB: {small} ns, 1 MiB: {large} ns");
}

/// switch_thief.toml: a tenant with a tenth of the core that naps all the time takes a tenth of it.
#[test]
fn a_napper_takes_no_more_than_its_part() {
    let host = Host::start();
    host.launch(&tenant("victim", "carnage", "", "cpu = { period = \"10ms\", slice = \"6ms\" }"));
    let args = "period_us=200 work_us=10 seconds=60";
    let keys = "cpu = { period = \"10ms\", slice = \"1ms\", deadline = \"5ms\" }";
    host.launch(&tenant("napper", "pulse", args, keys));
    std::thread::sleep(Duration::from_secs(1));
    let time = |name| number(&host.part(name, "cpu"), "guaranteed_ns");
    let (from, before) = (number(&host.stats(), "now_ns"), [time("victim"), time("napper")]);
    std::thread::sleep(Duration::from_secs(4));
    let (to, after) = (number(&host.stats(), "now_ns"), [time("victim"), time("napper")]);
    let share = |place: usize| (after[place] - before[place]) * 1000 / (to - from);
    println!("per mille of the core: victim {}, napper {}", share(0), share(1));
    assert!(share(0) >= 570, "the victim's 60%: {} per mille", share(0));
    assert!(share(1) <= 110, "the napper's 10%: {} per mille", share(1));
}
