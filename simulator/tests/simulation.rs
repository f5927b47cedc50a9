//! The simulator as a tool: reports, determinism, loads, pictures.
#![allow(clippy::unwrap_used, reason = "a broken helper is a failed test")]

use moirai_scheduler::{Amount, Contract, Moment, PolicyKind, Span, Weight};
use moirai_simulator::load::{Loads, Time};
use moirai_simulator::{Load, Resource, Scenario, SimulationError, Tenant, Use, gantt, run, trace};

const MS: u64 = 1_000_000;

fn contract(period: u64, slice: u64, extra: u32) -> Contract {
    Contract::new(
        Span::from_millis(period),
        Amount::from_millis(slice),
        Span::from_millis(period),
        Weight::new(extra),
    )
    .unwrap()
}

fn tenant(name: &str, uses: &[(&str, Contract, Load)]) -> Tenant {
    let uses = uses.iter().map(|(resource, contract, load)| Use {
        resource: (*resource).into(),
        contract: *contract,
        load: load.clone(),
    });
    Tenant { name: name.into(), uses: uses.collect() }
}

fn load(text: &str) -> Load {
    serde_json::from_str(text).unwrap()
}

/// A streamer with promises on everything beside tenants that take all they get.
fn cinema(policy: PolicyKind) -> Scenario {
    let film = load(r#"{"kind": "periodic", "period": "20ms", "work": "4ms"}"#);
    let burn = load(r#"{"kind": "busy"}"#);
    let thief = load(r#"{"kind": "random", "gap": "30ms", "work": "5ms"}"#);
    Scenario::new(
        vec![
            Resource::cpu("core", policy),
            Resource::disk("disk", policy, Amount::from_millis(1), 2),
            Resource::link("link", policy, Amount::from_nanos(MS / 10)),
        ],
        vec![
            tenant(
                "cinema",
                &["core", "disk", "link"].map(|r| (r, contract(20, 4, 0), film.clone())),
            ),
            tenant(
                "burn",
                &["core", "disk", "link"].map(|r| (r, contract(20, 0, 1), burn.clone())),
            ),
            tenant(
                "other",
                &["core", "disk", "link"].map(|r| (r, contract(50, 5, 3), thief.clone())),
            ),
        ],
    )
}

#[test]
fn the_film_is_never_late_under_atropos_and_ruined_under_fifo() {
    let report = run(&cinema(PolicyKind::Atropos), 10, 1).unwrap();
    let cinema_got = &report.tenants[0];
    for usage in [&cinema_got.cpu, &cinema_got.disk, &cinema_got.link] {
        let usage = usage.as_ref().unwrap();
        assert_eq!((usage.misses, usage.max_lateness_ns), (0, 0), "{usage:?}");
        assert_eq!(usage.guaranteed_ns, 2_000 * MS);
        assert!(usage.jobs > 0);
    }
    let control = run(&cinema(PolicyKind::Fifo), 10, 1).unwrap();
    let late = control.tenants[0].cpu.as_ref().unwrap();
    assert!(late.extra_ns <= 4 * MS, "the first come is never done: {late:?}");
    assert!(late.max_blackout_ns > 9_000 * MS);
}

#[test]
fn all_time_is_accounted_for() {
    for policy in PolicyKind::ALL {
        let mut scenario = cinema(policy);
        scenario.resources[0].switch = Span::from_micros(5);
        let report = run(&scenario, 5, 7).unwrap();
        for (i, resource) in report.resources.iter().enumerate() {
            let service: u64 = report
                .tenants
                .iter()
                .map(|tenant| {
                    let usage = [&tenant.cpu, &tenant.disk, &tenant.link][i].as_ref().unwrap();
                    usage.guaranteed_ns + usage.extra_ns
                })
                .sum();
            let sum = service + resource.idle_ns + resource.overhead_ns;
            let short = 5_000 * MS - sum;
            assert!(short <= 2 * MS, "{policy}: {short} ns of {} are missing", resource.name);
            assert!(i > 0 || short == 0, "{policy}: on a core nothing is in flight at the end");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let report = |seed| run(&cinema(PolicyKind::Atropos), 2, seed).unwrap();
    let (one, again, other) = (report(5), report(5), report(6));
    assert_eq!(one.to_json(), again.to_json());
    assert_eq!(trace::perfetto(&one), trace::perfetto(&again));
    assert_eq!(
        gantt::gantt(&one, Moment::ZERO, Moment::from_millis(100)),
        gantt::gantt(&again, Moment::ZERO, Moment::from_millis(100))
    );
    assert_ne!(one.to_json(), other.to_json());
}

#[test]
fn the_report_is_one_json_object_with_the_promised_keys() {
    let json = run(&cinema(PolicyKind::Atropos), 1, 1).unwrap().to_json();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    for key in ["decisions", "tenants", "idle_ns", "overhead_ns", "jain"] {
        assert!(!value[key].is_null(), "{key}");
    }
    for key in
        ["guaranteed_ns", "extra_ns", "misses", "max_lateness_ns", "max_blackout_ns", "wake_p99_ns"]
    {
        assert!(value["tenants"][0]["cpu"][key].is_u64(), "{key}");
    }
    assert_eq!(value["tenants"][1]["name"], "burn");
}

#[test]
fn pictures_and_traces_are_well_formed() {
    let report = run(&cinema(PolicyKind::Atropos), 1, 1).unwrap();
    let svg = gantt::gantt(&report, Moment::ZERO, Moment::from_millis(60));
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("cinema (core)") && svg.contains("burn (link)"));
    let trace: serde_json::Value = serde_json::from_str(&trace::perfetto(&report)).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 1000);
}

#[test]
fn every_load_runs_under_every_policy_on_every_resource() {
    let loads = [
        r#"{"kind": "idle"}"#,
        r#"{"kind": "busy"}"#,
        r#"{"kind": "periodic", "period": "10ms", "work": "2ms", "phase": 5, "unit": "100us"}"#,
        r#"{"kind": "bursty", "gap": "40ms", "count": 3, "work": "1ms"}"#,
        r#"{"kind": "on-off", "on": "15ms", "off": "25ms"}"#,
        r#"{"kind": "single", "work": "300us", "think": "1us"}"#,
        r#"{"kind": "random", "gap": "10ms", "work": "1ms"}"#,
        r#"{"kind": "latency-thief"}"#,
        r#"{"kind": "block-before-charge"}"#,
        r#"{"kind": "inflate"}"#,
        r#"{"kind": "small-packets", "unit": "5us"}"#,
        r#"{"kind": "host-stall", "gap": "300ms", "length": "70ms"}"#,
    ];
    for policy in PolicyKind::ALL {
        let uses =
            |text: &&str| ["core", "disk", "link"].map(|r| (r, contract(20, 1, 1), load(text)));
        let mut scenario = cinema(policy);
        scenario.tenants = loads.iter().map(|text| tenant(text, &uses(text))).collect();
        let report = run(&scenario, 1, 3).unwrap();
        for tenant in &report.tenants {
            let served = tenant.disk.as_ref().unwrap().jobs > 0;
            let silent = tenant.name.contains("idle") || tenant.name.contains("stall");
            if policy != PolicyKind::Fifo {
                assert_eq!(served, !silent, "{policy}: {}", tenant.name);
            }
        }
        assert!(report.resources[0].stalled_ns > 0);
    }
}

#[test]
fn unknown_names_are_refused() {
    let error = "lottery".parse::<PolicyKind>().unwrap_err();
    assert!(error.to_string().contains("`lottery`; known are atropos, nemesis"), "{error}");
    let mut scenario = cinema(PolicyKind::Atropos);
    scenario.tenants[0].uses[0].resource = "gpu".into();
    assert!(matches!(run(&scenario, 1, 1), Err(SimulationError::NoResource { .. })));
}

#[test]
fn loads_are_read_from_configurations() {
    let loads: Loads = serde_json::from_str(r#"{"cpu": {"kind": "latency-thief"}}"#).unwrap();
    assert_eq!(loads.cpu, Load::LatencyThief { work: None, pause: None });
    assert_eq!(loads.disk, Load::Busy { unit: None });
    assert_eq!(Time::parse("250us"), Ok(Time(250_000)));
    assert_eq!(Time::parse(" 3 s "), Ok(Time(3_000 * MS)));
    for bad in ["", "ms", "1.5ms", "-1ms", "99999999999999999999ns", "25h", "86401s"] {
        assert!(Time::parse(bad).is_err(), "{bad}");
    }
    for bad in [
        r#"{"kind": "tea"}"#,
        r#"{"kind": "busy", "colour": 1}"#,
        r#"{"kind": "periodic", "period": "10ms"}"#,
    ] {
        assert!(serde_json::from_str::<Load>(bad).is_err(), "{bad}");
    }
}

#[test]
fn nothing_breaks_at_the_ends_of_the_ranges() {
    let day = 86_400_000_000_000u64;
    let extremes = [
        format!(r#"{{"kind": "periodic", "period": 0, "work": {day}, "phase": {day}}}"#),
        r#"{"kind": "periodic", "period": 1000000, "work": 0}"#.into(),
        format!(r#"{{"kind": "bursty", "gap": 1000000, "count": 4294967295, "work": {day}}}"#),
        r#"{"kind": "on-off", "on": 0, "off": 0}"#.into(),
        r#"{"kind": "single", "work": 0, "think": 0}"#.into(),
        r#"{"kind": "inflate", "announced": 0, "unit": 0}"#.into(),
    ];
    let mut scenario = cinema(PolicyKind::Atropos);
    scenario.resources[1].depth = 0;
    scenario.resources[1].unit = Amount::ZERO;
    let uses = |text: &String| ["core", "disk"].map(|r| (r, contract(20, 1, 1), load(text)));
    scenario.tenants = extremes.iter().map(|text| tenant(text, &uses(text))).collect();
    scenario.window = Span::ZERO;
    scenario.segments = 0;
    let make = &mut |r: &Resource, n| moirai_scheduler::policy(r.policy, n);
    moirai_simulator::run_policy(&scenario, Span::from_millis(1), 1, make).unwrap();
}
