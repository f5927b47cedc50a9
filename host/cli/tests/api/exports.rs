//! Changes of an export over the API: what admission lets in, and what changes nothing.

use serde_json::Value;

use super::peer::{Host, get};

const CONTRACT: &str = r#""period": "100ms", "slice": "30ms""#;

/// A host with an export `db` under [`CONTRACT`].
fn host_with_export() -> Host {
    let host = Host::with_disk();
    let (status, said) = export(&host, "db", CONTRACT);
    assert_eq!(status, 200, "{said}");
    host
}

fn export(host: &Host, name: &str, contract: &str) -> (u16, String) {
    let folder = host.folder().display();
    std::fs::write(host.folder().join(format!("{name}.img")), [0; 4096]).unwrap();
    let body = format!(
        r#"{{"export": [{{"name": "{name}", "socket": "{folder}/{name}.sock",
            "disk": {{"disk": "disk", "volume": "{name}.img", {contract}}}}}]}}"#
    );
    host.post("/v1/exports", &body)
}

fn change(host: &Host, name: &str, body: &str) -> (u16, Value) {
    let (status, body) = host.send("PATCH", &format!("/v1/exports/{name}"), body);
    (status, serde_json::from_str(&body).unwrap())
}

fn read(host: &Host, path: &str) -> Value {
    serde_json::from_str(&host.ask(&get(path)).1).unwrap()
}

/// Everything that shows the contract of the only export: period and slice in the list and in the
/// counters, what is reserved of the disk, what is reserved for it.
fn shown(host: &Host) -> [u64; 6] {
    let view = &read(host, "/v1/exports")[0];
    let stats = read(host, "/v1/stats");
    let part = &stats["tenants"][0]["parts"][0];
    let resources = stats["resources"].as_array().unwrap();
    let disk = resources.iter().find(|resource| resource["name"] == "disk/disk").unwrap();
    assert_eq!(stats["tenants"][0]["name"], "export/db");
    [
        &view["device"]["contract"]["period_ns"],
        &view["device"]["contract"]["slice_ns"],
        &part["contract"]["period_ns"],
        &part["contract"]["slice_ns"],
        &disk["reserved"],
        &part["reserved"],
    ]
    .map(|value| value.as_u64().unwrap())
}

const BEFORE: [u64; 6] =
    [100_000_000, 30_000_000, 100_000_000, 30_000_000, 300_000_000, 300_000_000];

#[test]
fn an_admitted_change_of_an_export_is_shown_wherever_its_contract_is() {
    let host = host_with_export();
    assert_eq!(shown(&host), BEFORE);
    let (status, view) = change(&host, "db", r#"{"disk": {"0": {"slice": "10ms"}}}"#);
    assert_eq!((status, &view["device"]["contract"]["slice_ns"]), (200, &10_000_000.into()));
    assert_eq!((&view["table"]["disk"]["slice"], &view["name"]), (&"10ms".into(), &"db".into()));
    let after = [100_000_000, 10_000_000, 100_000_000, 10_000_000, 100_000_000, 100_000_000];
    assert_eq!(shown(&host), after);
    let series = "moirai_reserved_nanoseconds_per_second{tenant=\"export/db\",\
                  resource=\"disk/disk\",part=\"0\"} 100000000";
    let metrics = host.ask(&get("/metrics")).1;
    assert!(metrics.contains(series), "{metrics}");
    let explained = read(&host, "/v1/exports/db/explain");
    let part = &explained["parts"][0];
    assert_eq!(
        (&part["contract"]["slice_ns"], &part["reserved"]),
        (&10_000_000.into(), &100_000_000.into())
    );
    assert_eq!((&part["got"]["kept"], &part["got"]["because"]), (&true.into(), &"".into()));
    let view = &read(&host, "/v1/exports")[0];
    assert_eq!((&view["kept"], &view["because"]), (&true.into(), &"".into()));
    // What it gave back can be had by others.
    let (status, said) = export(&host, "more", r#""period": "100ms", "slice": "60ms""#);
    assert_eq!(status, 200, "{said}");
}

#[test]
fn a_change_of_an_export_that_does_not_fit_changes_nothing() {
    let host = host_with_export();
    let change = |slice: &str| {
        change(&host, "db", &format!(r#"{{"disk": {{"disk": {{"slice": "{slice}"}}}}}}"#))
    };
    let (status, refusal) = change("100ms");
    assert_eq!((status, &refusal["kind"]), (409, &"refused".into()), "{refusal}");
    let plan = &refusal["refused"][0];
    assert_eq!((&plan["name"], &plan["admitted"]), (&"export/db".into(), &false.into()));
    assert_eq!(plan["refusals"][0]["resource"], "disk/disk");
    assert_eq!(shown(&host), BEFORE);
    // Its own reservation does not stand in its way.
    let nearest = &plan["refusals"][0]["nearest"]["slice_ns"];
    assert!(nearest.as_u64() > Some(70_000_000), "{refusal}");
    assert_eq!(change(&format!("{nearest}ns")).0, 200);
}

#[test]
fn a_change_that_is_none_of_an_export_is_said_at_its_key_and_changes_nothing() {
    let host = host_with_export();
    let (status, answer) = change(&host, "nobody", r#"{"disk": {"0": {"slice": "1ms"}}}"#);
    assert_eq!((status, &answer["kind"]), (404, &"unknown".into()));
    assert!(answer["error"].as_str().unwrap().contains("no export named \"nobody\""), "{answer}");
    for (body, path, said) in [
        (r#"{"net": {"0": {"slice": "1ms"}}}"#, "net.0", "export/db has no net"),
        (r#"{"disk": {"ssd": {"slice": "1ms"}}}"#, "disk.ssd", "export/db has no disk"),
        (r#"{"cpu": {"slice": "1ms"}}"#, "cpu", "export/db has no cpu"),
        (r#"{"memory": "64M"}"#, "memory", "export/db has no memory"),
        (r#"{"disk": {"0": {"slice": "0ms"}}}"#, "export[0].disk.slice", "a slice of zero"),
        (r#"{"disk": {"0": {"slice": "1s"}}}"#, "export[0].disk.slice", "longer than its period"),
    ] {
        let (status, answer) = change(&host, "db", body);
        assert_eq!((status, &answer["problems"][0]["path"]), (422, &path.into()), "{answer}");
        let message = answer["problems"][0]["message"].as_str().unwrap();
        assert!(message.contains(said), "{said}: {message}");
    }
    assert_eq!(change(&host, "db", r#"{"disk": {"0": {"speed": 1}}}"#).0, 422);
    assert_eq!(shown(&host), BEFORE);
}
