//! Clients that hold their connections and do nothing with them shut nobody out.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::ends::host_and;

/// More than are served at a time.
const CROWD: usize = 400;
/// Far less than such a client may stay.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn a_crowd_of_clients_that_hang_or_do_not_read_keeps_nobody_from_being_answered() {
    let _turn = super::turn();
    let (mut host, mut command) = host_and(&["list", "--json"]);
    let ask = "GET /v1/stats HTTP/1.1\r\nHost: moirai\r\n\r\n".repeat(1000);
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let mut client = UnixStream::connect(host.socket()).unwrap();
        client.set_nonblocking(true).unwrap();
        if number % 2 == 0 {
            // As much as its socket takes; the answers are never read.
            let _ = client.write(ask.as_bytes());
        }
        crowd.push(client);
    }
    for _ in 0..3 {
        let begin = moirai_runtime::instant();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}\n{}", host.said());
        let took = moirai_runtime::since(begin);
        assert!(took < SOON, "{took:?}");
    }
    drop(crowd);
    assert_eq!(host.ends(true), 0);
}
