//! HTTP by the letter: every answer has its status, its content type and the documented body.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use serde_json::Value;

use super::peer::{Host, get, status};

/// The whole answer to `request`, head and body.
pub(super) fn answer(host: &Host, request: &[u8]) -> String {
    let mut stream = host.connect();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

pub(super) fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Checks that the answer has that status, kind, and the documented body; returns its head.
pub(super) fn refused(answer: &str, wanted: u16, kind: &str) -> String {
    assert_eq!(status(answer), wanted, "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-type: application/json"), "{answer}");
    let body: Value = serde_json::from_str(body).expect(answer);
    assert_eq!(body["kind"], kind, "{answer}");
    assert!(!body["error"].as_str().unwrap().is_empty(), "{answer}");
    head
}

#[test]
fn every_refusal_has_its_status_and_the_documented_body() {
    let host = Host::start();
    let json = "Content-Type: application/json\r\n";
    let text = "Content-Type: text/plain\r\n";
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let packed = "Content-Encoding: gzip\r\n";
    let cases = [
        ("GET", "/v1/tenants/%ff", "", "", 400, "malformed"),
        ("GET", "/v1/tenants/a/console?follow=maybe", "", "", 400, "malformed"),
        ("GET", "/v1/tenants/a/console?folow=true", "", "", 400, "malformed"),
        ("DELETE", "/v1/tenants/a?now=1", "", "", 400, "malformed"),
        ("DELETE", "/v1/tenants/a?nwo=true", "", "", 400, "malformed"),
        ("DELETE", "/v1/tenants/a?now=true&now=false", "", "", 400, "malformed"),
        ("POST", "/v1/tenants", json, "{\"tenant\": [", 400, "malformed"),
        ("POST", "/v1/plan", "", "", 400, "malformed"),
        ("POST", "/v1/tenants", text, "{\"tenant\": []}", 415, "media_type"),
        ("POST", "/v1/plan", form, "{}", 415, "media_type"),
        ("PATCH", "/v1/tenants/a", packed, "{}", 415, "media_type"),
        ("POST", "/v1/tenants", json, "{\"tenant\": 5}", 422, "bad"),
        ("POST", "/v1/tenants", json, "[]", 422, "bad"),
        ("POST", "/v1/exports", json, "{}", 422, "bad"),
        ("PATCH", "/v1/exports/a", json, "{\"disk\": {\"0\": {\"extra\": 1.5}}}", 422, "bad"),
        ("DELETE", "/v1/tenants/a?now=true", "", "", 404, "unknown"),
        ("BREW", "/v1/pot", "", "", 404, "unknown"),
    ];
    for (method, path, headers, body, wanted, kind) in cases {
        refused(&answer(&host, &request(method, path, headers, body)), wanted, kind);
    }
    let suffix = "Content-Type: application/vnd.moirai+json; charset=utf-8\r\n";
    for headers in ["", json, suffix] {
        let answer = answer(&host, &request("POST", "/v1/plan", headers, "{}"));
        assert_eq!(status(&answer), 200, "{answer}");
    }
}

#[test]
fn a_method_that_a_path_has_not_is_answered_with_those_that_it_has() {
    let host = Host::start();
    for (method, path, allowed) in [
        ("PUT", "/v1/tenants", vec!["get", "post"]),
        ("POST", "/v1/stats", vec!["get"]),
        ("GET", "/v1/plan", vec!["post"]),
        ("DELETE", "/metrics", vec!["get"]),
        ("BREW", "/v1/tenants/a", vec!["get", "patch", "delete"]),
        ("PUT", "/openapi.json", vec!["get"]),
    ] {
        let head = refused(&answer(&host, &request(method, path, "", "{}")), 405, "method");
        let allow = head.lines().find_map(|line| line.strip_prefix("allow: ")).expect(&head);
        for wanted in allowed {
            assert!(allow.split(',').any(|method| method.trim() == wanted), "{path}: {allow}");
        }
    }
}

#[test]
fn what_is_too_large_is_said_also_to_who_sends_all_of_it_first() {
    let host = Host::start();
    for length in [(1 << 20) + 1, 3 << 20] {
        let body = "x".repeat(length);
        for path in ["/v1/tenants", "/v1/tenants/a/console"] {
            refused(&answer(&host, &request("POST", path, "", &body)), 413, "too_large");
        }
        refused(&answer(&host, &request("POST", "/nowhere", "", &body)), 404, "unknown");
    }
    // Nothing of it is sent: it would not be waited for.
    let head = "POST /v1/tenants HTTP/1.1\r\nHost: m\r\nContent-Length: 99999999999\r\n\r\n";
    refused(&answer(&host, head.as_bytes()), 413, "too_large");
    let head = "POST /v1/tenants HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\n\
                Content-Length: 2000000\r\n\r\n";
    refused(&answer(&host, head.as_bytes()), 413, "too_large");
}

#[test]
fn what_is_no_http_is_answered_with_the_documented_body() {
    let host = Host::start();
    refused(&answer(&host, b"\xff\0\r\n\r\n"), 400, "malformed");
    refused(&answer(&host, b"GET / HTTP/9.9\r\n\r\n"), 400, "malformed");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    refused(&answer(&host, many.as_bytes()), 431, "too_large");
    let long = format!("GET /{} HTTP/1.1\r\nHost: m\r\n\r\n", "x".repeat(70_000));
    refused(&answer(&host, long.as_bytes()), 414, "too_large");
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_our_own_words() {
    let host = Host::start();
    let head = "POST /v1/plan HTTP/1.1\r\nHost: m\r\nConnection: close\r\n";
    for (rest, said) in [
        ("Content-Length: -1\r\n\r\n", "Content-Length \"-1\" is no length"),
        ("Content-Length: x\r\n\r\n", "Content-Length \"x\" is no length"),
        ("Content-Length: 2\r\ncontent-length: 3\r\n\r\n{}", "more than once"),
        ("Content-Length: 0\r\n\r\n", "the body is empty"),
        ("Content-Length: 4\r\n\r\n{\"a\"", "it ends within a value"),
        ("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", "its chunks"),
        ("Content-Length: 9\r\n\r\n{}", "broke off"),
        ("Ho", "ended within its head"),
        ("Host", "ended within its head"),
    ] {
        let mut stream = host.connect();
        stream.write_all(format!("{head}{rest}").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        refused(&answer, 400, "malformed");
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(said), "{rest:?}: {answer}");
        assert!(!error.contains("EOF") && !error.contains("connection"), "{error}");
    }
}

#[test]
fn a_client_that_has_said_everything_and_closes_its_half_is_answered() {
    let host = Host::start();
    let requests = [
        (get("/v1/host"), 200),
        (get("/v1/tenants/nobody"), 404),
        (request("POST", "/v1/plan", "", "{\"host\": {\"cores\": [0]}}"), 200),
        (b"GET /metrics HTTP/1.1\r\nHost: m\r\n\r\n".to_vec(), 200),
        (b"GET /v1/host HTTP/1.0\r\n\r\n".to_vec(), 200),
    ];
    for (request, wanted) in requests {
        let mut stream = host.connect();
        stream.write_all(&request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), wanted, "{answer}");
    }
}

#[test]
fn clients_that_have_gone_give_their_places_back() {
    let host = Host::start();
    for _ in 0..100 {
        let mut stream = host.connect();
        stream
            .write_all(b"POST /v1/plan HTTP/1.1\r\nHost: m\r\nContent-Length: 9\r\n\r\n")
            .unwrap();
    }
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(host.ask(&get("/v1/host")).0, 200);
}
