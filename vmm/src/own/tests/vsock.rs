//! Streams, with the test as host service.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use moirai_devices::mock::{readable, writable};
use moirai_devices::vsock::packet::{HEADER_BYTES, Header, NO_RECEIVE, NO_SEND, Op, STREAM};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vm_memory::{Bytes, GuestAddress};

use super::{BUFFER, Guest};
use moirai_launch::OwnDevice;
use moirai_launch::channel::Channel;
use moirai_launch::handover::{FromTenant, HostHandover, ToTenant};

const CID: u32 = 3;
const RX: usize = 0;
const TX: usize = 1;
const RX_BUFFER: u64 = BUFFER + 0x1000;

fn guest() -> (Guest, HostHandover) {
    let flags = SocketFlags::CLOEXEC;
    let (host, tenant) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let (guest, _) = Guest::new(OwnDevice::Vsock { cid: CID }, vec![tenant]);
    (guest, Channel::new(host))
}

fn send(guest: &mut Guest, op: Op, (host, port): (u32, u32), flags: u32, payload: &[u8]) {
    let header = Header {
        src_cid: CID.into(),
        dst_cid: 2,
        src_port: port,
        dst_port: host,
        len_bytes: u32::try_from(payload.len()).unwrap(),
        socket_type: STREAM,
        op: Some(op),
        flags,
        buf_alloc: 1 << 20,
        fwd_cnt: 0,
    };
    let bytes = [&header.to_bytes(), payload].concat();
    guest.mem.write_slice(&bytes, GuestAddress(BUFFER)).unwrap();
    guest.drivers[TX].post(&[readable(BUFFER, u32::try_from(bytes.len()).unwrap())]);
    guest.kick(TX);
    guest.used(TX);
}

fn receive(guest: &mut Guest) -> (Header, Vec<u8>) {
    guest.drivers[RX].post(&[writable(RX_BUFFER, 2048)]);
    guest.kick(RX);
    let (_, len) = guest.used(RX);
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    guest.mem.read_slice(&mut bytes, GuestAddress(RX_BUFFER)).unwrap();
    let payload = bytes.split_off(HEADER_BYTES);
    (Header::parse(bytes.first_chunk().unwrap()), payload)
}

#[test]
fn a_client_is_handed_over_echoed_and_hung_up_on() {
    let (mut guest, host) = guest();
    let (mut client, theirs) = UnixStream::pair().unwrap();
    host.send(&ToTenant::Connect { port: 7 }, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let (request, _) = receive(&mut guest);
    assert_eq!((request.op, request.dst_port), (Some(Op::Request), 7));
    let ports = (request.src_port, 7);
    send(&mut guest, Op::Response, ports, 0, &[]);
    let greeting = format!("OK {}\n", request.src_port);
    let mut seen = vec![0; greeting.len()];
    client.read_exact(&mut seen).unwrap();
    assert_eq!(seen, greeting.as_bytes());
    client.write_all(b"echo").unwrap();
    let (data, payload) = receive(&mut guest);
    assert_eq!((data.op, payload.as_slice()), (Some(Op::Data), b"echo".as_slice()));
    send(&mut guest, Op::Data, ports, 0, &payload);
    send(&mut guest, Op::Shutdown, ports, NO_SEND | NO_RECEIVE, &[]);
    assert_eq!(receive(&mut guest).0.op, Some(Op::Reset));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"echo");
}

#[test]
fn a_client_that_leaves_is_seen_by_the_guest() {
    let (mut guest, host) = guest();
    let (client, theirs) = UnixStream::pair().unwrap();
    host.send(&ToTenant::Connect { port: 7 }, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let (request, _) = receive(&mut guest);
    send(&mut guest, Op::Response, (request.src_port, 7), 0, &[]);
    drop(client);
    let mut flags = 0;
    while flags != NO_SEND | NO_RECEIVE {
        let (shutdown, _) = receive(&mut guest);
        assert_eq!(shutdown.op, Some(Op::Shutdown));
        flags = shutdown.flags;
    }
}

#[test]
fn the_guest_asks_for_a_port_of_the_host() {
    let (mut guest, host) = guest();
    send(&mut guest, Op::Request, (80, 1000), 0, &[]);
    let (FromTenant::Open { port, id }, _) = host.receive().unwrap();
    assert_eq!(port, 80);
    let (mut server, theirs) = UnixStream::pair().unwrap();
    host.send(&ToTenant::Opened { id }, &[theirs.as_fd()]).unwrap();
    assert_eq!(receive(&mut guest).0.op, Some(Op::Response));
    send(&mut guest, Op::Data, (80, 1000), 0, b"get");
    let mut seen = [0; 3];
    server.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"get");
    send(&mut guest, Op::Request, (81, 1000), 0, &[]);
    let (FromTenant::Open { port: 81, id }, _) = host.receive().unwrap() else { panic!("port") };
    host.send(&ToTenant::Opened { id }, &[]).unwrap();
    assert_eq!(receive(&mut guest).0.op, Some(Op::Reset));
}

#[test]
fn a_reset_hangs_up_and_without_a_driver_nobody_is_let_in() {
    let (mut guest, host) = guest();
    let connect = || {
        let (client, theirs) = UnixStream::pair().unwrap();
        host.send(&ToTenant::Connect { port: 7 }, &[theirs.as_fd()]).unwrap();
        client
    };
    let mut client = connect();
    receive(&mut guest);
    guest.part.backend.stop().unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(connect().read(&mut [0; 8]).unwrap(), 0);
    guest.start();
    let _client = connect();
    assert_eq!(receive(&mut guest).0.op, Some(Op::Request));
}

#[test]
fn a_host_that_goes_refuses_what_it_had_not_answered() {
    let (mut guest, host) = guest();
    send(&mut guest, Op::Request, (80, 1000), 0, &[]);
    drop(host);
    assert_eq!(receive(&mut guest).0.op, Some(Op::Reset));
}

#[test]
fn a_host_that_is_gone_refuses_everything() {
    let (mut guest, host) = guest();
    drop(host);
    send(&mut guest, Op::Request, (80, 1000), 0, &[]);
    assert_eq!(receive(&mut guest).0.op, Some(Op::Reset));
}
