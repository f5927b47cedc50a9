//! The API over a real unix socket: what it answers, and what a slow or hostile client may cost.
//!
//! The service has a core and at most a disk, so no guest image is needed; real-time priority and
//! KVM are: these tests run as root.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod exports;
mod failed;
mod letter;
mod peer;
mod routes;
mod scrape;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use peer::{Host, get, status};
use serde_json::Value;

#[test]
fn the_socket_is_for_its_user_alone() {
    let host = Host::start();
    let mode = std::fs::metadata(host.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_openapi_document_describes_every_path() {
    let host = Host::start();
    let document: Value = serde_json::from_str(&host.ask(&get("/openapi.json")).1).unwrap();
    let mut paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
    paths.sort();
    assert_eq!(
        paths,
        [
            "/metrics",
            "/v1/events",
            "/v1/exports",
            "/v1/exports/{name}",
            "/v1/exports/{name}/explain",
            "/v1/host",
            "/v1/plan",
            "/v1/stats",
            "/v1/tenants",
            "/v1/tenants/{name}",
            "/v1/tenants/{name}/console",
            "/v1/tenants/{name}/explain",
        ]
    );
    for kind in ["tenants", "exports"] {
        let change = &document["paths"][format!("/v1/{kind}/{{name}}")]["patch"];
        let body = &change["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(body, "#/components/schemas/Change", "{kind}: {change}");
    }
}

#[test]
fn an_idle_host_reports_its_resources() {
    let host = Host::start();
    let view: Value = serde_json::from_str(&host.ask(&get("/v1/host")).1).unwrap();
    assert_eq!(view["resources"][0]["capacity"], 950_000_000);
    assert_eq!(view["resources"][0]["reserved"], 0);
    let stats: Value = serde_json::from_str(&host.ask(&get("/v1/stats")).1).unwrap();
    assert_eq!(stats["tenants"], Value::Array(vec![]));
    assert!(host.ask(&get("/metrics")).1.ends_with("# EOF\n"));
    assert_eq!(host.ask(&get("/v1/events")), (200, "[]".to_owned()));
}

#[test]
fn what_is_not_there_is_said_in_json() {
    let host = Host::start();
    for path in [
        "/v1/tenants/nobody",
        "/v1/tenants/nobody/console",
        "/v1/tenants/nobody/explain",
        "/v1/exports/nobody/explain",
        "/v2",
    ] {
        let (status, body) = host.ask(&get(path));
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["kind"]), (404, &Value::from("unknown")), "{path}");
    }
}

#[test]
fn a_wrong_body_is_refused_with_its_place() {
    let host = Host::start();
    let body = r#"{"tenant": [{"name": "a", "image": "i", "cpu": {"period": "-5ms"}}]}"#;
    let (status, answer) = host.post("/v1/tenants", body);
    assert_eq!(status, 422);
    assert!(answer.contains("is negative"), "{answer}");
    let body = r#"{"tenant": [{"name": "a", "image": "i", "core": 4000}]}"#;
    let (status, answer) = host.post("/v1/tenants", body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["problems"][0]["path"]), (422, &Value::from("tenant[0].core")));
}

#[test]
fn a_missing_image_is_a_problem_at_its_key() {
    let host = Host::start();
    let body = r#"{"tenant": [{"name": "a", "image": "/nowhere/image"}]}"#;
    let (status, answer) = host.post("/v1/tenants", body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["problems"][0]["path"]), (422, &Value::from("tenant[0].image")));
    assert_eq!(host.ask(&get("/v1/tenants")).1, "[]");
}

#[test]
fn a_plan_is_answered_without_starting_anything() {
    let host = Host::start();
    let body = r#"{"host": {"cores": [0], "profile": "none"}, "tenant": [
        {"name": "a", "image": "i", "cpu": {"period": "10ms", "slice": "9ms"}},
        {"name": "b", "image": "i", "cpu": {"period": "10ms", "slice": "1ms"}}]}"#;
    let (status, answer) = host.post("/v1/plan", body);
    let plan: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &plan["admitted"]), (200, &Value::from(false)));
    assert_eq!(plan["tenants"][1]["refusals"][0]["nearest"]["slice_ns"], 500_000);
}

#[test]
fn a_plan_counts_with_what_the_first_start_measured() {
    let host = Host::start();
    let plan: Value = serde_json::from_str(&host.post("/v1/plan", "{}").1).unwrap();
    let stored = host.socket().with_file_name("state").join("core-costs.json");
    let stored: Value = serde_json::from_slice(&std::fs::read(stored).unwrap()).unwrap();
    assert_eq!(
        (&plan["core_costs"], &stored["costs"]["measured"]),
        (&stored["costs"], &true.into())
    );
}

#[test]
fn a_client_that_sends_half_a_request_and_stays_disturbs_nobody_and_is_dropped() {
    let host = Host::start();
    let mut halves: Vec<_> = (0..5).map(|_| host.connect()).collect();
    for half in &mut halves {
        half.write_all(b"GET /v1/host HTTP/1.1\r\nHost: mo").unwrap();
    }
    assert_eq!(host.ask(&get("/v1/host")).0, 200);
    for half in &mut halves {
        let mut answer = Vec::new();
        // The end of the stream: the server has closed the connection.
        half.read_to_end(&mut answer).unwrap();
    }
    assert_eq!(host.ask(&get("/v1/host")).0, 200);
}

#[test]
fn a_body_that_does_not_arrive_is_answered_with_a_timeout() {
    let host = Host::start();
    let mut half = host.connect();
    half.write_all(b"POST /v1/tenants HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\n{\"ten")
        .unwrap();
    assert_eq!(host.ask(&get("/v1/host")).0, 200);
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 408, "{answer}");
}

#[test]
fn more_clients_than_places_are_served_when_idle_ones_have_been_dropped() {
    let host = Host::start();
    let idle: Vec<_> = (0..100).map(|_| host.connect()).collect();
    assert_eq!(host.ask(&get("/v1/host")).0, 200);
    drop(idle);
}

/// The first key of the table would be the first item.
#[test]
fn a_list_in_place_of_a_table_is_refused_at_its_key() {
    let host = Host::start();
    let body = r#"{"tenant": [{"name": "a", "image": "i", "vsock": [3]}]}"#;
    let (status, answer) = host.post("/v1/tenants", body);
    assert_eq!(status, 422, "{answer}");
    assert!(answer.contains("tenant[0].vsock: `vsock` takes a table"), "{answer}");
}

#[test]
fn too_much_and_garbage_are_refused() {
    let host = Host::start();
    let huge = format!("{{\"tenant\": [], \"x\": \"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(host.post("/v1/tenants", &huge).0, 413);
    // Neither of them costs a stack: one is no JSON, the other deeper than any body.
    let deep = "[".repeat(100_000);
    assert_eq!(host.post("/v1/tenants", &deep).0, 400);
    assert_eq!(host.post("/v1/tenants", &(deep + &"]".repeat(100_000))).0, 400);
    let mut garbage = host.connect();
    garbage.write_all(&[0xff, 0, b'\r', b'\n', b'\r', b'\n']).unwrap();
    let mut answer = String::new();
    garbage.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), 400, "{answer}");
    let endless = format!("GET /v1/host HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    assert_eq!(host.ask(endless.as_bytes()).0 / 100, 4);
    assert_eq!(host.ask(&get("/v1/host")).0, 200);
}

#[test]
fn a_second_host_service_is_refused_and_the_first_one_stays() {
    let host = Host::start();
    let said = host.start_another();
    let line = format!("is served by process {} (", std::process::id());
    assert!(said.contains("host.cores[0]: core") && said.contains(&line), "{said}");
    assert_eq!(host.ask(&get("/v1/host")).0, 200);
}
