//! The demo, briefly: its report has the form that others rely on, and the promise holds.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use moirai_tests::{last_json, moirai, said, too_slow};

const SECONDS: u64 = 8;
const NOISE_US: u64 = 300;

/// What a job of `pulse` took of the core in the control, where no contract cuts it, in us.
fn cost_without(report: &serde_json::Value) -> u64 {
    let pulse = &report["without"]["tenants"][1];
    assert_eq!(pulse["name"], "pulse");
    let used = pulse["cpu"]["extra"].as_u64().unwrap();
    let said = &report["without"]["pulse"];
    used * said["t_ms"].as_u64().unwrap() / 1_000_000 / said["jobs"].as_u64().unwrap().max(1)
}

/// What is late in a stall is excused: in a run that is made of stalls nothing is late, with
/// scheduling or without. And where one timer in a hundred of the highest priority is late by more
/// than [`NOISE_US`], what is late below that priority says nothing of Moirai.
fn stood_still(report: &serde_json::Value) -> Option<String> {
    let share = report["stalled_share"].as_f64().unwrap();
    let late = report["noise_floor_us"]["p99"].as_u64().unwrap();
    let still = || format!("the machine stood still for {:.0}% of the run", share * 100.0);
    let noisy = || format!("the best timer of the machine is {late} us late at p99");
    (share > 0.25).then(still).or_else(|| (late > NOISE_US).then(noisy))
}

#[test]
fn the_film_arrives_on_time_with_scheduling_and_is_ruined_without() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("arrivals.svg");
    let svg = svg.to_str().unwrap();
    let output = moirai(&["demo", "--seconds", &SECONDS.to_string(), "--json", "--svg", svg]);
    let report = last_json(&output);
    println!("{}", said(&output));
    assert_eq!(report["payload_copies"], 0);
    for run in ["with", "without"] {
        assert_eq!(report[run]["tenants"].as_array().unwrap().len(), 5);
        assert!(report[run]["pulse"]["jobs"].as_u64().unwrap() > 0);
        assert_eq!(report[run]["receivers"].as_array().unwrap().len(), 4);
        for receiver in report[run]["receivers"].as_array().unwrap() {
            assert!(receiver["packets"].as_u64().unwrap() > 0, "{receiver} received nothing");
        }
    }
    if let Some(why) = too_slow(cost_without(&report)).or_else(|| stood_still(&report)) {
        eprintln!("NOT TESTED HERE: {why}");
        assert!(std::env::var_os("MOIRAI_REQUIRE_SPEED").is_none());
        return;
    }
    let jobs = report["with"]["pulse"]["jobs"].as_u64().unwrap();
    assert!(jobs > 300, "50 jobs a second for {SECONDS} s: {jobs}");
    assert_eq!(report["kept"], true, "{report}");
    assert_eq!(report["control_failed"], true, "the load is too weak: {report}");
    assert_eq!(output.status.code(), Some(0));
}
