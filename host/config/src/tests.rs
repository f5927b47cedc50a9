//! What a configuration becomes, and what is said about bad ones.

use moirai_scheduler::{Amount, Contract, Span, Weight};
use proptest::prelude::*;

use super::*;

mod documents;
mod messages;

const GOOD: &str = include_str!("tests/good.toml");

fn checked(text: &str) -> Config {
    let document = parse("good.toml", text).expect("a document");
    check(&document).expect("a good configuration")
}

#[test]
fn rates_become_slices_and_defaults_are_filled_in() {
    let config = checked(GOOD);
    let [cinema, carnage] = config.tenants.as_slice() else { panic!("two tenants") };
    let contract = |period, slice, deadline, extra: u32| {
        let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
        Contract::new(period, Amount::from_nanos(slice), deadline, Weight::new(extra))
            .expect("a contract")
    };
    assert_eq!(cinema.cpu, contract(10_000_000, 3_000_000, 10_000_000, 0));
    let [volume] = cinema.volumes.as_slice() else { panic!("one volume") };
    assert_eq!(volume.contract, contract(100_000_000, 5_000_000, 100_000_000, 0));
    assert_eq!(volume.path, Path::new("/srv/volumes/film.ts"));
    let [net] = cinema.nets.as_slice() else { panic!("one interface") };
    assert_eq!(net.contract, contract(10_000_000, 2_000_000, 5_000_000, 3));
    assert_eq!(cinema.args, "ip=10.0.0.2/24 to=10.0.0.1:5004");
    assert_eq!(carnage.cpu, contract(10_000_000, 0, 10_000_000, 1));
    assert_eq!((carnage.cores.as_slice(), carnage.memory), ([1].as_slice(), 64 << 20));
    assert_eq!(config.links.first().map(|link| link.tap.as_str()), Some("mo-uplink"));
}

#[test]
fn the_memory_of_who_has_a_guarantee_on_a_device_is_touched_unless_it_says_no() {
    let touched = |text: &str| -> Vec<_> {
        checked(text).tenants.iter().map(|tenant| tenant.prefault).collect()
    };
    let unsaid = GOOD.replace("prefault = true\n", "");
    assert_eq!(touched(&unsaid), [true, false]);
    assert_eq!(touched(&GOOD.replace("prefault = true", "prefault = false")), [false, false]);
    let promises_nothing =
        unsaid.replace("rate = \"20MB/s\"", "").replace("rate = \"20Mbit/s\"", "");
    assert_eq!(touched(&promises_nothing), [false, false]);
}

#[test]
fn only_a_rate_in_bytes_is_held_against_the_bandwidth() {
    let bandwidth = |text: &str| {
        let config = checked(text);
        config.tenants.first().and_then(|it| it.volumes.first()).and_then(|it| it.bandwidth)
    };
    assert_eq!(bandwidth(GOOD), Some(400_000_000));
    assert_eq!(bandwidth(&GOOD.replace("20MB/s", "5%")), None);
}

#[test]
fn rates_are_rounded_up_to_whole_nanoseconds() {
    let text = GOOD.replace("20Mbit/s", "1bit/s");
    let slice = checked(&text).tenants.first().and_then(|t| t.nets.first()).map(|n| n.contract);
    assert_eq!(slice.map(|contract| contract.slice()), Some(Amount::ONE));
}

#[test]
fn a_tenant_without_an_address_gets_the_same_one_every_time() {
    let mac =
        |text: &str| checked(text).tenants.first().and_then(|t| t.nets.first()).map(|n| n.mac);
    assert_eq!(mac(GOOD), mac(GOOD));
    assert_ne!(mac(GOOD), mac(&GOOD.replace("cinema", "kino")));
}

#[test]
fn a_changed_slice_replaces_a_rate() {
    let table = |text: &str| toml::from_str::<document::ContractTable>(text).expect("a table");
    let old = table("period = \"10ms\"\nrate = \"10%\"\nextra = true");
    let new = old.changed(table("slice = \"2ms\""));
    assert_eq!(new, table("period = \"10ms\"\nslice = \"2ms\"\nextra = true"));
}

#[test]
fn the_written_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.schema.json");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    // Compared as values: the order of keys depends on how serde_json was built.
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let same = value(&written).is_some() && value(&written) == value(&json_schema());
    assert!(same, "run `moirai schema > docs/config.schema.json`");
}

#[test]
fn a_document_reads_back_from_its_own_json() {
    let document = parse("good.toml", GOOD).expect("a document");
    let json = serde_json::to_string(&document).expect("JSON");
    assert_eq!(serde_json::from_str::<Document>(&json).expect("a document"), document);
}

/// Lines that a configuration may consist of, right and wrong ones.
fn line() -> impl Strategy<Value = String> {
    let table = prop::sample::select(vec![
        "[host]",
        "[[disk]]",
        "[[link]]",
        "[[tenant]]",
        "[tenant.cpu]",
        "[[tenant.disk]]",
        "[[tenant.net]]",
        "[tenant.load.cpu]",
    ]);
    let key = prop::sample::select(vec![
        "name",
        "path",
        "rate",
        "image",
        "cores",
        "cpu_capacity",
        "period",
        "slice",
        "deadline",
        "extra",
        "disk",
        "link",
        "volume",
        "mtu",
        "memory",
        "vcpus",
        "core",
        "mac",
        "address",
    ]);
    let value = prop_oneof![
        Just("\"a\"".to_owned()),
        Just("true".to_owned()),
        "[0-9]{1,20}",
        "-?[0-9]{1,3}\\.[0-9]{1,3}",
        "\"[0-9]{1,22}(\\.[0-9]{1,3})?(ns|ms|s|min|K|G|%|Mbit/s|GB/s)\"",
        "\\[[0-9]{0,3}\\]",
    ];
    prop_oneof![
        1 => table.prop_map(str::to_owned),
        3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,200}") {
        if let Err(report) = parse("any.toml", &text) {
            prop_assert!(!report.to_string().is_empty());
        }
    }

    #[test]
    fn any_configuration_is_checked_or_refused_with_its_place(
        lines in prop::collection::vec(line(), 0..30),
    ) {
        let text = lines.join("\n");
        if let Ok(document) = parse("any.toml", &text)
            && let Err(problems) = check(&document)
        {
            prop_assert!(!problems.is_empty());
            let report = Report::locate("any.toml", &text, problems).to_string();
            prop_assert!(!report.is_empty());
        }
    }
}

#[test]
fn a_link_says_what_it_does_for_its_guests_and_an_interface_how_many_queues_it_has() {
    let what = |text: &str| {
        let config = checked(text);
        let link = config.links.first().expect("a link");
        let net = config.tenants.first().and_then(|tenant| tenant.nets.first()).expect("a card");
        (link.offload, link.largest_packet_time().as_nanos(), net.queues)
    };
    use document::OffloadName::{Checksum, Segmentation};
    // A frame of 1518 bytes and 24 of framing; 64 KiB in at most 128 segments.
    assert_eq!(what(GOOD), (Checksum, 123_360, 1));
    let text = GOOD.replace("[[tenant.net]]", "[[tenant.net]]\nqueues = 7");
    let text = text.replace("[[link]]", "[[link]]\noffload = \"segmentation\"");
    assert_eq!(what(&text), (Segmentation, 6_790_480, 7));
    for queues in ["0", "8"] {
        let text = GOOD.replace("[[tenant.net]]", &format!("[[tenant.net]]\nqueues = {queues}"));
        let problems =
            check(&parse("bad.toml", &text).expect("a document")).expect_err("a problem");
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(problem.path, "tenant[0].net[0].queues");
        assert_eq!(problem.message, format!("{queues} pairs of queues are not 1 to 7"));
    }
    let text = GOOD.replace("[[link]]", "[[link]]\noffload = \"all\"");
    let said = parse("bad.toml", &text).expect_err("no such offload").to_string();
    assert!(said.contains("expected one of `none`, `checksum`, `segmentation`"), "{said}");
}
