//! The counters over TCP, as Prometheus asks for them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::peer::{Host, status};

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_counters_and_nothing_else_are_served_over_tcp() {
    let host = Host::start();
    let address = host.scrape();
    let get = |path: &str| {
        ask(address, &format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"))
    };
    let counters = get("/metrics");
    assert!(status(&counters) == 200 && counters.ends_with("# EOF\n"), "{counters}");
    assert!(counters.contains("application/openmetrics-text"), "{counters}");
    for path in ["/", "/v1/host", "/v1/tenants", "/openapi.json"] {
        assert_eq!(status(&get(path)), 404, "{path}");
    }
    let posted = ask(
        address,
        "POST /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(status(&posted), 405, "{posted}");
}

#[test]
fn clients_that_say_nothing_do_not_keep_a_scrape_from_its_place() {
    let host = Host::start();
    let address = host.scrape();
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&answer), 200, "{answer}");
    drop(silent);
}
