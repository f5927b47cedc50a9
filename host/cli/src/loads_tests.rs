//! `[tenant.load]`: every kind, and any text.

use moirai_simulator::load::{Load, Time};
use proptest::prelude::*;

use moirai_config::model::Config;
use moirai_config::{Report, check, parse};

use super::load as simulated;

fn configured(load: &str) -> Result<Config, Report> {
    let head = "[host]\ncores = [1]\n[[tenant]]\nname = \"a\"\nimage = \"i\"\n";
    let text = format!("{head}[tenant.load]\ncpu = {load}\n");
    let document = parse("load.toml", &text)?;
    check(&document).map_err(|problems| Report::locate("load.toml", &text, problems))
}

fn read(load: &str) -> Load {
    let config = configured(load).unwrap_or_else(|report| panic!("{load}\n{report}"));
    config.tenants.first().map(|tenant| simulated(tenant.loads.cpu)).expect("a tenant")
}

#[test]
fn every_kind_is_read_with_its_parameters() {
    const MS: u64 = 1_000_000;
    let (ms, some) = (|n| Time(n * MS), |n| Some(Time(n * MS)));
    for (text, load) in [
        ("{ kind = 'idle' }", Load::Idle {}),
        ("{ kind = 'busy' }", Load::Busy { unit: None }),
        ("{ kind = 'busy', unit = '1ms' }", Load::Busy { unit: some(1) }),
        (
            "{ kind = 'periodic', period = '9ms', work = '2ms', phase = '3ms', unit = '1ms' }",
            Load::Periodic { period: ms(9), work: ms(2), phase: ms(3), unit: some(1) },
        ),
        (
            "{ kind = 'bursty', gap = '9ms', count = 4, work = '2ms' }",
            Load::Bursty { gap: ms(9), count: 4, work: ms(2) },
        ),
        (
            "{ kind = 'on-off', on = '2ms', off = '3ms' }",
            Load::OnOff { on: ms(2), off: ms(3), unit: None },
        ),
        ("{ kind = 'single', work = '2ms' }", Load::Single { work: ms(2), think: ms(0) }),
        (
            "{ kind = 'random', gap = '9ms', work = 2000000 }",
            Load::Random { gap: ms(9), work: ms(2) },
        ),
        (
            "{ kind = 'latency-thief', pause = '7ms' }",
            Load::LatencyThief { work: None, pause: some(7) },
        ),
        ("{ kind = 'block-before-charge' }", Load::BlockBeforeCharge { work: None }),
        (
            "{ kind = 'inflate', announced = '1ms', unit = '2ms' }",
            Load::Inflate { announced: some(1), unit: some(2) },
        ),
        ("{ kind = 'small-packets' }", Load::SmallPackets { unit: None }),
        (
            "{ kind = 'writes', unit = '2ms', flush = '3ms' }",
            Load::Writes { unit: some(2), count: 8, flush: some(3) },
        ),
        (
            "{ kind = 'host-stall', gap = '9ms', length = '5ms' }",
            Load::HostStall { gap: ms(9), length: ms(5) },
        ),
    ] {
        assert_eq!(read(text), load, "{text}");
    }
}

#[test]
fn a_tenant_without_a_load_is_busy() {
    let text = "[host]\ncores = [1]\n[[tenant]]\nname = \"a\"\nimage = \"i\"\n";
    let config = check(&parse("load.toml", text).expect("a document")).expect("a configuration");
    let loads = config.tenants.first().map(|tenant| tenant.loads).expect("a tenant");
    assert_eq!((simulated(loads.cpu), simulated(loads.link)), (Load::default(), Load::default()));
}

/// Keys and values that a load may consist of, right and wrong ones.
fn load() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec![
        "idle",
        "busy",
        "periodic",
        "bursty",
        "on-off",
        "single",
        "random",
        "latency-thief",
        "block-before-charge",
        "inflate",
        "small-packets",
        "writes",
        "host-stall",
        "other",
    ]);
    let key = prop::sample::select(vec![
        "period",
        "work",
        "phase",
        "unit",
        "gap",
        "count",
        "on",
        "off",
        "think",
        "pause",
        "announced",
        "length",
        "flush",
    ]);
    let value = prop_oneof![
        Just("0".to_owned()),
        "-?[1-9][0-9]{0,19}",
        "\"[1-9][0-9]{0,7}(ns|us|ms|s|min|K)\"",
    ];
    let keys = prop::collection::btree_map(key, value, 0..5);
    (kind, keys).prop_map(|(kind, keys)| {
        let keys: String = keys.iter().map(|(key, value)| format!(", {key} = {value}")).collect();
        format!("{{ kind = \"{kind}\"{keys} }}")
    })
}

proptest! {
    #[test]
    fn any_load_is_read_or_refused_on_its_line_and_what_is_read_can_be_simulated(load in load()) {
        match configured(&load) {
            Err(report) => {
                let said = report.to_string();
                prop_assert!(said.contains("load.toml:7:"), "{load}\n{said}");
            }
            Ok(config) => {
                let tenant = config.tenants.first().expect("a tenant");
                let used = moirai_simulator::Use {
                    resource: "core".to_owned(),
                    contract: tenant.cpu,
                    load: simulated(tenant.loads.cpu),
                };
                let tenant = moirai_simulator::Tenant { name: "a".to_owned(), uses: vec![used] };
                let policy = moirai_scheduler::PolicyKind::Atropos;
                let core = moirai_simulator::Resource::cpu("core", policy);
                let scenario = moirai_simulator::Scenario::new(vec![core], vec![tenant]);
                let simulated = moirai_simulator::run_policy(
                    &scenario,
                    moirai_scheduler::Span::from_millis(20),
                    1,
                    &mut |resource, clients| moirai_scheduler::policy(resource.policy, clients),
                );
                prop_assert!(simulated.is_ok());
            }
        }
    }
}

#[test]
fn the_longest_time_is_the_same_for_those_who_check_and_those_who_simulate() {
    assert_eq!(moirai_config::load::TIME_MAX, moirai_simulator::load::TIME_MAX);
}
