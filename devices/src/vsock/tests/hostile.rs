//! Drivers that break rules.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::super::packet::{Header, Op};
use super::super::{BUFFER_BYTES, MAX_CONNECTIONS, MAX_RESETS, Mux};
use super::{CID, Guest, SIZE, pair};
use crate::fault::Fault;
use crate::mock::{self, Driver, readable, writable};

#[test]
fn packets_that_belong_to_no_stream_are_refused_but_a_refusal_is_not() {
    let mut guest = Guest::new();
    guest.send(Op::Data, (1, 2), 0, b"stray");
    guest.expect(Op::Reset);
    guest.send(Op::Reset, (1, 2), 0, &[]);
    assert!(guest.receive().is_none());
    let request = guest.header(Op::Request, 1, 2);
    for strange in [
        Header { socket_type: 2, ..request },
        Header { dst_cid: 3, ..request },
        Header { op: None, ..request },
    ] {
        assert!(guest.send_raw(&strange, &[]).unwrap());
        guest.expect(Op::Reset);
    }
    assert!(guest.send_raw(&Header { src_cid: 3, ..request }, &[]).unwrap());
    assert!(guest.receive().is_none(), "a forged sender gets no answer");
    assert!(guest.asked.is_empty());
}

#[test]
fn a_guest_that_takes_no_answers_is_not_listened_to() {
    let mut guest = Guest::new();
    let stray = guest.header(Op::Data, 1, 2);
    let taken = (0..MAX_RESETS + 10).take_while(|_| guest.send_raw(&stray, &[]).unwrap()).count();
    assert_eq!(taken, MAX_RESETS);
    guest.expect(Op::Reset);
    assert!(guest.send_raw(&stray, &[]).unwrap());
}

#[test]
fn packets_that_do_not_fit_their_chains_are_faults() {
    let mut guest = Guest::new();
    let long = Header { len_bytes: 5, ..guest.header(Op::Data, 1, 2) };
    assert!(matches!(guest.send_raw(&long, b"four"), Err(Fault::Length { .. })));
    for chain in [readable(0x10000, 43), writable(0x10000, 64), readable(0x80000, 64)] {
        let mut guest = Guest::new();
        guest.tx.post(&[chain]);
        let result = guest.mux.transmit(&guest.mem, &mut guest.tx_queue, |_, _| true);
        assert!(result.is_err(), "{chain:?}");
    }
    for chain in [writable(0x10000, 44), readable(0x10000, 4096), writable(0x80000, 4096)] {
        let mut guest = Guest::new();
        guest.send(Op::Data, (1, 2), 0, &[]);
        guest.rx.post(&[chain]);
        assert!(guest.mux.receive(&guest.mem, &mut guest.rx_queue).is_err(), "{chain:?}");
    }
}

#[test]
fn a_guest_that_opens_and_aborts_without_end_leaves_nothing_behind() {
    let mut guest = Guest::new();
    for port in 0..5000 {
        guest.send(Op::Request, (80, port), 0, &[]);
        let (id, _) = guest.asked.pop().unwrap();
        let (_server, stream) = pair();
        assert!(guest.mux.opened(id, Some(stream)));
        guest.send(Op::Reset, (80, port), 0, &[]);
    }
    assert_eq!(guest.mux.held(), (0, 0, 0, 0));
    assert!(guest.receive().is_none());
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    Packet { op: u16, host: u32, guest: u32, flags: u32, fwd_cnt: u32, alloc: u32, len: u16 },
    Receive,
    Connect,
    Opened(u64, bool),
    Client(usize, u8),
    Changed(u64, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0_u64..12;
    let packet = (
        0_u16..9,
        prop_oneof![0_u32..3, (1_u32 << 30)..(1 << 30) + 4],
        prop_oneof![Just(5_u32), 0_u32..3],
        0_u32..4,
        prop_oneof![Just(0_u32), 0_u32..10_000, any::<u32>()],
        prop_oneof![Just(0x4_0000_u32), any::<u32>()],
        prop_oneof![Just(0_u16), Just(20_000), any::<u16>()],
    );
    let packet = packet.prop_map(|(op, host, guest, flags, fwd_cnt, alloc, len)| Step::Packet {
        op,
        host,
        guest,
        flags,
        fwd_cnt,
        alloc,
        len,
    });
    let step = prop_oneof![
        4 => packet,
        3 => Just(Step::Receive),
        1 => Just(Step::Connect),
        1 => (id.clone(), any::<bool>()).prop_map(|(id, some)| Step::Opened(id, some)),
        1 => (0_usize..8, any::<u8>()).prop_map(|(client, what)| Step::Client(client, what)),
        1 => (id, any::<bool>()).prop_map(|(id, gone)| Step::Changed(id, gone)),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// Whatever guest and clients do, in whatever order: no panic, and everything held is bounded.
    #[test]
    fn nothing_that_anybody_does_makes_it_grow(steps in steps()) {
        let mut guest = Guest::new();
        let mut clients = Vec::new();
        for step in steps {
            match step {
                Step::Packet { op, host, guest: port, flags, fwd_cnt, alloc, len } => {
                    let mut bytes = Header {
                        flags,
                        fwd_cnt,
                        buf_alloc: alloc,
                        len_bytes: len.into(),
                        ..guest.header(Op::Data, host, port)
                    }.to_bytes();
                    bytes[30..32].copy_from_slice(&op.to_le_bytes());
                    let header = Header::parse(&bytes);
                    let _ = guest.send_raw(&header, &vec![1; len.into()]).unwrap();
                }
                Step::Receive => { guest.receive(); }
                Step::Connect => {
                    let (client, stream) = pair();
                    guest.mux.connect(5, stream);
                    clients.push(client);
                }
                Step::Opened(id, some) => {
                    let stream = some.then(|| { let (c, s) = pair(); clients.push(c); s });
                    guest.mux.opened(id, stream);
                }
                Step::Client(which, what) => if which < clients.len() {
                    let mut client = &clients[which];
                    match what % 3 {
                        0 => drop(clients.swap_remove(which)),
                        1 => { let _ = client.write(&[1; 5000]); }
                        _ => { let _ = client.read(&mut [0; 50_000]); }
                    }
                },
                Step::Changed(id, gone) => guest.mux.socket_changed(id, gone),
            }
            let (connections, waiting, resets, buffered) = guest.mux.held();
            prop_assert!(connections <= MAX_CONNECTIONS && waiting <= connections);
            prop_assert!(resets <= MAX_RESETS + MAX_CONNECTIONS);
            prop_assert!(buffered <= connections * BUFFER_BYTES as usize);
        }
    }

    /// All that a guest can write is random; both queues serve or fail, and end.
    #[test]
    fn random_rings_never_panic_nor_loop(
        bytes in proptest::collection::vec(any::<u8>(), 0x3000),
        available in 0_u16..=SIZE,
    ) {
        let mem = mock::memory(0x4000);
        mem.write_slice(&bytes, GuestAddress(0)).unwrap();
        let driver = Driver::new(Arc::clone(&mem), 0, SIZE);
        mem.write_obj(available, GuestAddress(driver.addresses()[1] + 2)).unwrap();
        let mut mux = Mux::new(CID);
        let mut queue = driver.queue();
        let sent = (0..64).take_while(|_| {
            mux.transmit(&mem, &mut queue, |_, _| true).unwrap_or(false)
        });
        prop_assert!(sent.count() < 64);
        let (_client, stream) = pair();
        mux.connect(5, stream);
        let mut queue = driver.queue();
        let got = (0..64).take_while(|_| mux.receive(&mem, &mut queue).unwrap_or(false));
        prop_assert!(got.count() < 64);
    }
}
