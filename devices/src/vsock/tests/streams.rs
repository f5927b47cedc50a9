//! Connecting, talking, closing.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use super::super::MAX_CONNECTIONS;
use super::super::packet::{NO_RECEIVE, NO_SEND, Op};
use super::{Guest, pair};

fn read(client: &mut impl Read) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    let len = client.read(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

#[test]
fn a_client_of_the_host_talks_to_the_guest() {
    let mut guest = Guest::new();
    let (mut client, id, ports) = guest.client();
    assert!(guest.receive().is_none());
    client.write_all(b"ping").unwrap();
    guest.mux.socket_changed(id, false);
    assert_eq!(guest.expect(Op::Data).1, b"ping");
    guest.send(Op::Data, ports, 0, b"pong");
    assert_eq!(read(&mut client), b"pong");
}

#[test]
fn a_client_that_the_guest_refuses_is_hung_up_on() {
    let mut guest = Guest::new();
    let (mut client, stream) = pair();
    guest.mux.connect(5, stream).unwrap();
    let (request, _) = guest.receive().unwrap();
    guest.send(Op::Reset, (request.src_port, 5), 0, &[]);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    assert!(guest.mux.is_empty());
    assert!(guest.receive().is_none());
}

#[test]
fn a_client_that_leaves_before_the_guest_answers_is_forgotten() {
    let mut guest = Guest::new();
    let (client, stream) = pair();
    let early = guest.mux.connect(5, stream).unwrap();
    drop(client);
    guest.mux.socket_changed(early, true);
    assert!(guest.mux.is_empty() && guest.receive().is_none());
    let (client, stream) = pair();
    let id = guest.mux.connect(5, stream).unwrap();
    guest.expect(Op::Request);
    drop(client);
    guest.mux.socket_changed(id, true);
    guest.expect(Op::Reset);
    assert!(guest.mux.is_empty());
}

#[test]
fn the_guest_talks_to_a_listener_of_the_host() {
    let mut guest = Guest::new();
    guest.send(Op::Request, (80, 1000), 0, &[]);
    let (id, port) = guest.asked[0];
    assert_eq!(port, 80);
    assert!(guest.receive().is_none());
    let (mut server, stream) = pair();
    assert!(guest.mux.opened(id, Some(stream)));
    guest.expect(Op::Response);
    guest.send(Op::Data, (80, 1000), 0, b"get");
    assert_eq!(read(&mut server), b"get");
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    let mut guest = Guest::new();
    guest.send(Op::Request, (80, 1000), 0, &[]);
    let (id, _) = guest.asked[0];
    assert!(!guest.mux.opened(id, None));
    guest.expect(Op::Reset);
    guest.may_open = false;
    guest.send(Op::Request, (80, 1000), 0, &[]);
    guest.expect(Op::Reset);
    assert!(guest.mux.is_empty());
}

#[test]
fn a_listener_that_answers_too_late_is_hung_up_on() {
    let mut guest = Guest::new();
    guest.send(Op::Request, (80, 1000), 0, &[]);
    guest.send(Op::Reset, (80, 1000), 0, &[]);
    let (id, _) = guest.asked[0];
    let (mut server, stream) = pair();
    assert!(!guest.mux.opened(id, Some(stream)));
    assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_client_that_has_said_everything_still_gets_the_answer() {
    let mut guest = Guest::new();
    let (mut client, id, ports) = guest.client();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    guest.mux.socket_changed(id, false);
    assert_eq!(guest.expect(Op::Data).1, b"question");
    assert_eq!(guest.expect(Op::Shutdown).0, NO_SEND);
    guest.send(Op::Data, ports, 0, b"answer");
    assert_eq!(read(&mut client), b"answer");
    guest.send(Op::Shutdown, ports, NO_SEND | NO_RECEIVE, &[]);
    guest.expect(Op::Reset);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    assert!(guest.mux.is_empty());
}

#[test]
fn a_guest_that_has_said_everything_still_gets_the_answer() {
    let mut guest = Guest::new();
    let (mut client, id, ports) = guest.client();
    guest.send(Op::Data, ports, 0, b"question");
    guest.send(Op::Shutdown, ports, NO_SEND, &[]);
    assert_eq!(read(&mut client), b"question");
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    client.write_all(b"answer").unwrap();
    drop(client);
    guest.mux.socket_changed(id, true);
    assert_eq!(guest.expect(Op::Data).1, b"answer");
    assert_eq!(guest.expect(Op::Shutdown).0, NO_SEND | NO_RECEIVE);
    guest.send(Op::Reset, ports, 0, &[]);
    assert!(guest.mux.is_empty());
}

#[test]
fn what_the_guest_sent_before_it_closed_is_delivered() {
    let mut guest = Guest::new();
    let (mut client, id, ports) = guest.client();
    let mut sent = 0;
    // More than the socket takes.
    while guest.mux.buffered(id) < 50_000 {
        guest.send(Op::Data, ports, 0, &[b'x'; 10_000]);
        sent += 10_000;
        while guest.receive().is_some() {}
    }
    guest.send(Op::Shutdown, ports, NO_SEND | NO_RECEIVE, &[]);
    guest.expect(Op::Reset);
    // The ports are free again at once.
    guest.send(Op::Request, ports, 0, &[]);
    assert_eq!(guest.mux.len(), 2);
    let mut total = 0;
    loop {
        match client.read(&mut [0; 1 << 16]) {
            Ok(0) => break,
            Ok(len) => total += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        guest.mux.socket_changed(id, false);
    }
    assert_eq!((total, guest.mux.len()), (sent, 1));
}

#[test]
fn there_is_an_end_to_the_number_of_streams() {
    let mut guest = Guest::new();
    for port in 0..u32::try_from(MAX_CONNECTIONS).unwrap() {
        guest.send(Op::Request, (80, port), 0, &[]);
    }
    assert!(guest.receive().is_none());
    guest.send(Op::Request, (80, 100_000), 0, &[]);
    guest.expect(Op::Reset);
    let (mut client, stream) = pair();
    assert!(guest.mux.connect(5, stream).is_none());
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    guest.send(Op::Reset, (80, 0), 0, &[]);
    guest.send(Op::Request, (80, 100_000), 0, &[]);
    assert!(guest.receive().is_none());
}

#[test]
fn a_reset_of_the_device_hangs_up_on_everybody() {
    let mut guest = Guest::new();
    let (mut client, id, ports) = guest.client();
    client.write_all(b"lost").unwrap();
    guest.mux.reset();
    assert!(client.read(&mut [0; 8]).is_ok_and(|len| len == 0) || client.write(b"x").is_err());
    guest.mux.socket_changed(id, false);
    assert!(guest.receive().is_none());
    guest.send(Op::Data, ports, 0, b"who?");
    guest.expect(Op::Reset);
}
