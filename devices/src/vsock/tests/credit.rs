//! Nobody sends what the other side has no room for.

use std::io::{Read, Write};

use super::super::BUFFER_BYTES;
use super::super::packet::{Header, Op};
use super::Guest;

#[test]
fn a_host_that_never_reads_costs_one_buffer() {
    let mut guest = Guest::new();
    let (_client, id, ports) = guest.client();
    // An honest guest counts what it may send.
    let (mut sent, mut forwarded, mut alloc) = (0_u32, 0_u32, BUFFER_BYTES);
    while alloc - (sent - forwarded) >= 4096 {
        guest.send(Op::Data, ports, 0, &[1; 4096]);
        sent += 4096;
        while let Some((update, _)) = guest.receive() {
            assert_eq!(update.op, Some(Op::CreditUpdate));
            (forwarded, alloc) = (update.fwd_cnt, update.buf_alloc);
        }
    }
    assert!(guest.mux.buffered(id) <= BUFFER_BYTES as usize);
    assert!(guest.mux.buffered(id) >= BUFFER_BYTES as usize / 2);
    // One that does not count loses the stream.
    while guest.mux.stream(id).is_some() && guest.receive().is_none() {
        guest.send(Op::Data, ports, 0, &[1; 4096]);
        assert!(guest.mux.buffered(id) <= BUFFER_BYTES as usize);
    }
    guest.send(Op::Data, ports, 0, &[1; 4096]);
    guest.expect(Op::Reset);
}

#[test]
fn the_guest_hears_when_there_is_room_again() {
    let mut guest = Guest::new();
    let (mut client, id, ports) = guest.client();
    while guest.mux.buffered(id) < BUFFER_BYTES as usize - 4096 {
        guest.send(Op::Data, ports, 0, &[1; 4096]);
        while guest.receive().is_some() {}
    }
    assert!(guest.receive().is_none());
    let mut bytes = vec![0; 1 << 20];
    let _ = client.read(&mut bytes).unwrap();
    guest.mux.socket_changed(id, false);
    guest.expect(Op::CreditUpdate);
}

#[test]
fn a_guest_that_asks_for_credit_is_told_once() {
    let mut guest = Guest::new();
    let (_client, _, ports) = guest.client();
    for _ in 0..100 {
        guest.send(Op::CreditRequest, ports, 0, &[]);
    }
    guest.expect(Op::CreditUpdate);
    assert!(guest.receive().is_none());
}

#[test]
fn the_guest_is_sent_no_more_than_it_has_room_for() {
    let mut guest = Guest::new();
    guest.alloc = 6000;
    let (mut client, id, ports) = guest.client();
    client.write_all(&[7; 20_000]).unwrap();
    guest.mux.socket_changed(id, false);
    let mut got = guest.expect(Op::Data).1.len();
    got += guest.expect(Op::Data).1.len();
    assert_eq!(got, 6000);
    guest.expect(Op::CreditRequest);
    assert!(guest.receive().is_none(), "credit is asked for once");
    guest.mux.socket_changed(id, false);
    assert!(guest.receive().is_none());
    guest.taken = 6000;
    guest.send(Op::CreditUpdate, ports, 0, &[]);
    let more = guest.expect(Op::Data).1.len() + guest.expect(Op::Data).1.len();
    assert_eq!(more, 6000);
}

#[test]
fn a_guest_that_lies_about_its_room_gets_nothing_rather_than_everything() {
    let mut guest = Guest::new();
    let (mut client, id, (host, port)) = guest.client();
    // It claims to have taken what was never sent.
    let lie = Header { fwd_cnt: 1000, ..guest.header(Op::CreditUpdate, host, port) };
    assert!(guest.send_raw(&lie, &[]).unwrap());
    client.write_all(&[7; 100]).unwrap();
    guest.mux.socket_changed(id, false);
    guest.expect(Op::CreditRequest);
    assert!(guest.receive().is_none());
}
