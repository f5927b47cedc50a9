//! Every route that the OpenAPI document names, asked in every way that is not right. A new route
//! is asked as well, without a line here.

use std::io::{Read, Write};

use serde_json::Value;

use super::letter::{answer, refused, request};
use super::peer::{Host, get, status};

/// All methods that a router may know, and one that none does.
const METHODS: [&str; 8] = ["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];

/// A documented operation.
struct Operation {
    method: String,
    /// With a name that nobody has.
    path: String,
    takes_json: bool,
    queries: Vec<String>,
}

fn document(host: &Host) -> Value {
    serde_json::from_str(&host.ask(&get("/openapi.json")).1).unwrap()
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let queries = parameters.filter(|it| it["in"] == "query");
            found.push(Operation {
                method: method.to_uppercase(),
                path: path.replace("{name}", "nobody"),
                takes_json: !operation["requestBody"]["content"]["application/json"].is_null(),
                queries: queries.map(|it| it["name"].as_str().unwrap().to_owned()).collect(),
            });
        }
    }
    assert!(found.len() > 14, "{}", found.len());
    let queries: Vec<_> = found.iter().flat_map(|it| it.queries.clone()).collect();
    assert!(["now", "follow"].iter().all(|key| queries.iter().any(|it| it == key)), "{queries:?}");
    found
}

#[test]
fn no_route_takes_a_query_that_it_does_not_know_or_twice() {
    let host = Host::start();
    for Operation { method, path, queries, .. } in operations(&document(&host)) {
        let ask = |query: &str| {
            let said = answer(&host, &request(&method, &format!("{path}?{query}"), "", "{}"));
            refused(&said, 400, "malformed");
            said
        };
        let said = ask("nonsense=1");
        assert!(said.contains("nonsense"), "{said}");
        for known in &queries {
            assert!(said.contains(known.as_str()), "{method} {path}: {said}");
            assert!(ask(&format!("{known}=true&{known}=true")).contains("more than once"));
            ask(&format!("{known}=true&%ff"));
        }
        assert!(queries.is_empty() == said.contains("takes no query"), "{said}");
        // An empty one says nothing.
        assert_ne!(status(&answer(&host, &request(&method, &format!("{path}?"), "", "{}"))), 400);
    }
    refused(&answer(&host, &request("GET", "/openapi.json?a", "", "")), 400, "malformed");
    refused(
        &answer(&host, &request("HEAD", "/nowhere?a", "", "")).replace("\r\n\r\n", HELD),
        404,
        "unknown",
    );
}

/// Stands for the body that an answer to HEAD has not.
const HELD: &str = "\r\n\r\n{\"kind\": \"unknown\", \"error\": \"?\"}";

#[test]
fn every_method_that_a_route_has_not_is_answered_with_those_that_it_has() {
    let host = Host::start();
    let document = document(&host);
    for (path, item) in document["paths"].as_object().unwrap() {
        let has: Vec<String> =
            item.as_object().unwrap().keys().map(|it| it.to_uppercase()).collect();
        let path = path.replace("{name}", "nobody");
        for method in METHODS.iter().filter(|method| !has.iter().any(|it| it == *method)) {
            let head = refused(&answer(&host, &request(method, &path, "", "{}")), 405, "method");
            let allow = head.lines().find_map(|line| line.strip_prefix("allow: ")).expect(&head);
            let allowed: Vec<_> = allow.split(',').map(|it| it.trim().to_uppercase()).collect();
            assert!(has.iter().all(|it| allowed.contains(it)), "{method} {path}: {allow}");
            assert!(!allowed.iter().any(|it| it == method), "{method} {path}: {allow}");
        }
    }
}

#[test]
fn no_body_of_another_kind_is_taken_by_any_route() {
    let host = Host::start();
    let json = "Content-Type: application/json\r\n";
    let kinds = [
        "Content-Type: text/plain\r\n",
        "Content-Type: application/json; charset=utf-16\r\n",
        "Content-Type: application/json; charset=\"latin1\"\r\n",
        "Content-Type: application/json; charset\r\n",
        "Content-Type: application/json\r\nContent-Type: application/json\r\n",
        "Content-Encoding: gzip\r\n",
        "Content-Encoding: identity\r\nContent-Encoding: br\r\n",
    ];
    for Operation { method, path, .. } in
        operations(&document(&host)).into_iter().filter(|it| it.takes_json)
    {
        let ask = |headers: &str, body: &str, wanted, kind| {
            refused(&answer(&host, &request(&method, &path, headers, body)), wanted, kind)
        };
        for headers in kinds {
            ask(headers, "{}", 415, "media_type");
        }
        for body in [
            "[]",
            "null",
            "5",
            "\"x\"",
            "true",
            "[{}]",
            "{\"a\": 1, \"a\": 1}",
            "{\"no such key\": 1}",
        ] {
            ask(json, body, 422, "bad");
        }
        for body in ["", "{", "{}{}", "\u{feff}{}", "\0"] {
            ask(json, body, 400, "malformed");
        }
        ask(json, &"x".repeat((1 << 20) + 1), 413, "too_large");
        for headers in [
            "Content-Type: application/json; charset=\"UTF-8\"\r\n",
            "Content-Type: Application/JSON ; a=b\r\n",
        ] {
            assert_ne!(status(&answer(&host, &request(&method, &path, headers, "{}"))), 415);
        }
    }
    // What is typed is bytes of any kind, but not packed ones.
    let typed = request("POST", "/v1/tenants/nobody/console", "Content-Encoding: gzip\r\n", "x");
    refused(&answer(&host, &typed), 415, "media_type");
}

#[test]
fn lists_in_the_place_of_tables_are_refused_at_their_key() {
    let host = Host::start();
    for (method, path, body, key) in [
        ("PATCH", "/v1/tenants/nobody", "{\"cpu\": []}", "cpu"),
        ("PATCH", "/v1/exports/nobody", "{\"disk\": {\"0\": [\"1ms\", \"1ms\"]}}", "disk.0"),
        ("POST", "/v1/plan", "{\"host\": []}", "host"),
        ("POST", "/v1/tenants", "{\"tenant\": [[\"a\", \"i\"]]}", "tenant[0]"),
    ] {
        let said = answer(&host, &request(method, path, "", body));
        refused(&said, 422, "bad");
        assert!(said.contains(&format!("\"path\":\"{key}\"")), "{body}: {said}");
    }
}

#[test]
fn a_request_names_one_host_unless_it_is_older_than_that() {
    let host = Host::start();
    let ask = |head: &str| answer(&host, format!("{head}\r\n").as_bytes());
    let close = "Connection: close\r\n";
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: /run/moirai.sock\r\n",
        "Host: a b\r\n",
        "Host: u@a\r\n",
    ] {
        for path in ["/v1/host", "/nowhere", "/v1/plan", "/metrics"] {
            refused(&ask(&format!("GET {path} HTTP/1.1\r\n{hosts}{close}")), 400, "malformed");
        }
    }
    for hosts in
        ["Host:\r\n", "Host: localhost\r\n", "Host: [::1]:9000\r\n", "Host: 10.0.0.1:80\r\n"]
    {
        assert_eq!(
            status(&ask(&format!("GET /v1/host HTTP/1.1\r\n{hosts}{close}"))),
            200,
            "{hosts}"
        );
    }
    assert_eq!(status(&ask("GET /v1/host HTTP/1.0\r\n")), 200);
    assert_eq!(status(&ask(&format!("GET http://h/v1/host HTTP/1.1\r\nHost: h\r\n{close}"))), 200);
}

#[test]
fn whoever_frames_a_request_in_two_ways_is_not_heard_again() {
    let host = Host::start();
    let hidden = "GET /v1/host HTTP/1.1\r\nHost: m\r\n\r\n";
    for frame in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let sent = format!(
            "POST /v1/plan HTTP/1.1\r\nHost: m\r\n{frame}\r\n2\r\n{{}}\r\n0\r\n\r\n{hidden}"
        );
        let said = answer(&host, sent.as_bytes());
        assert_eq!(status(&said), 200, "{said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
    }
}

#[test]
fn whoever_asks_before_sending_a_body_is_told_at_once() {
    let host = Host::start();
    let mut stream = host.connect();
    let head = "POST /v1/plan HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\n\
                Connection: close\r\nContent-Length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!(status(&said), 200, "{said}");
}
