//! The kernel as the judge of our offloads: two network stacks, each behind a TAP, talk to each
//! other through a guest's rings. What one of them leaves undone, the other has to accept, as it is
//! or after our code has done it.
#![allow(unsafe_code, reason = "a socket option that no library knows")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Instant;

use super::links::Namespace;
use super::*;
use crate::backend::Link;
use crate::backend::tap::Tap;
use crate::net::{MacAddr, Nic, Offload, VNET_HEADER_LEN, VnetHeader, rx, tx};
use moirai_runtime::netns::in_netns;

const PATIENCE: Duration = Duration::from_secs(60);
const MTU: u16 = 1500;
const ADDRESSES: [&str; 2] = ["10.9.7.1", "10.9.7.2"];
/// Where a guest's packets lie, and its receive buffers.
const PACKET: u64 = 0x10_0000;
const BUFFER: u64 = 2048;
const BUFFERS: u64 = 128;
const MRG_RXBUF: u64 = 1 << 15;

/// A network stack of its own behind a TAP.
struct Stack {
    namespace: Namespace,
    tap: Tap,
    mac: MacAddr,
}

impl Stack {
    fn new(purpose: &str, number: usize) -> Option<Self> {
        let namespace = Namespace::new(&format!("{purpose}{number}"))?;
        let tap = namespace.open_with("mtap0", Offload::TcpAndUdp).unwrap();
        let mac = MacAddr([2, 0, 0, 0, 7, u8::try_from(number).unwrap()]);
        let address = format!("{}/24", ADDRESSES[number]);
        namespace.ip(&["link", "set", "mtap0", "address", &mac.to_string()]);
        namespace.ip(&["addr", "add", &address, "dev", "mtap0"]);
        namespace.ip(&["link", "set", "mtap0", "up"]);
        Some(Self { namespace, tap, mac })
    }

    /// Runs `f` on a thread of its own in this stack.
    fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let name = self.namespace.0.clone();
        std::thread::spawn(move || in_netns(&name, f).unwrap())
    }
}

/// What went from one stack to the other.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Packets that were to be cut.
    uncut: u64,
    /// Frames that a guest without any offload received.
    frames: u64,
}

/// A guest that hands on what it receives. With `plain` it has agreed to no offload when it
/// receives, so all that its stack left undone is done by us.
struct Relay {
    mem: Arc<GuestMemory>,
    sender: Driver,
    send_queue: virtio_queue::Queue,
    tx: tx::Frontend,
    receiver: Driver,
    receive_queue: virtio_queue::Queue,
    rx: rx::Frontend,
    plain: bool,
    seen: Seen,
}

impl Relay {
    fn new(mac: MacAddr, plain: bool) -> Self {
        let mem = mock::memory(2 << 20);
        let sender = Driver::new(Arc::clone(&mem), 0, 16);
        let mut receiver = Driver::new(Arc::clone(&mem), mock::RING_BYTES, 128);
        for n in 0..BUFFERS {
            receiver.post(&[writable(0x10000 + n * BUFFER, u32::try_from(BUFFER).unwrap())]);
        }
        let offload = Offload::TcpAndUdp;
        let nic = Nic { mac, mtu: MTU, queue_size: 128, pairs: 1, offload };
        let mut tx = tx::Frontend::new(nic.clone());
        tx.set_features(nic.features());
        let (send_queue, receive_queue) = (sender.queue(), receiver.queue());
        let rx = rx::Frontend::new(MRG_RXBUF);
        Self {
            mem,
            sender,
            send_queue,
            tx,
            receiver,
            receive_queue,
            rx,
            plain,
            seen: Seen::default(),
        }
    }

    /// Hands on what waits; whether there was something.
    fn hand_on(&mut self, from: &mut Tap, to: &mut Tap) -> bool {
        let mut buffer = vec![0; 70_000];
        let Some(len) = from.receive(&mut buffer).unwrap() else { return false };
        let (vnet, frame) = buffer[..len].split_first_chunk::<VNET_HEADER_LEN>().unwrap();
        let header = VnetHeader::parse(vnet, frame.len()).unwrap();
        self.seen.uncut += u64::from(header.segmentation.is_some());
        if !self.plain {
            self.send(&buffer[..len], to);
            return true;
        }
        let delivery = self.rx.deliver(&self.mem, &mut self.receive_queue, &header, frame).unwrap();
        assert_eq!(delivery, rx::Delivery::Delivered, "{header:?}");
        while let Some((head, len)) = self.receiver.used() {
            let addr = 0x10000 + u64::from(head) * BUFFER;
            let mut bytes = vec![0; usize::try_from(len).unwrap()];
            self.mem.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
            self.receiver.post(&[writable(addr, u32::try_from(BUFFER).unwrap())]);
            // Nothing is left undone, and one buffer held it.
            assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            assert!(bytes.len() <= 12 + 14 + usize::from(MTU));
            self.seen.frames += 1;
            self.send(&bytes, to);
        }
        true
    }

    /// Sends a packet with its header as a guest does.
    fn send(&mut self, packet: &[u8], to: &mut Tap) {
        self.mem.write_slice(packet, GuestAddress(PACKET)).unwrap();
        // In two pieces, as drivers do it: headers first.
        let len = u32::try_from(packet.len()).unwrap();
        self.sender.post(&[readable(PACKET, 40), readable(PACKET + 40, len - 40)]);
        self.sender.used();
        match self.tx.next_packet(&self.mem, &mut self.send_queue).unwrap() {
            tx::Next::Packet(tx::Taken { chain, packet }) => {
                assert!(to.send(&packet).unwrap());
                self.tx.complete(&self.mem, &mut self.send_queue, chain).unwrap();
            }
            _ => panic!("refused: {:?}", self.tx.last_drop()),
        }
    }
}

/// Two stacks, connected until both conversations are over.
fn connect<A: Send + 'static, B: Send + 'static>(
    purpose: &str,
    plain: bool,
    one: impl FnOnce() -> A + Send + 'static,
    other: impl FnOnce() -> B + Send + 'static,
) -> Option<(A, B, [Seen; 2])> {
    let (mut left, mut right) = (Stack::new(purpose, 0)?, Stack::new(purpose, 1)?);
    let mut relays = [left.mac, right.mac].map(|mac| Relay::new(mac, plain));
    let (one, other) = (left.run(one), right.run(other));
    let begin = Instant::now();
    while !(one.is_finished() && other.is_finished()) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", relays.map(|relay| relay.seen));
        let [there, back] = &mut relays;
        let busy = there.hand_on(&mut left.tap, &mut right.tap)
            | back.hand_on(&mut right.tap, &mut left.tap);
        if !busy {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Some((one.join().unwrap(), other.join().unwrap(), relays.map(|relay| relay.seen)))
}

const BYTES: usize = 3 << 20;

fn pattern() -> Vec<u8> {
    (0..BYTES).map(|n| u8::try_from(n / 1000 % 251).unwrap()).collect()
}

/// Waits for somebody and sends; connects, receives everything, says whether it was right.
fn stream_over(purpose: &str, plain: bool) -> Option<[Seen; 2]> {
    let serve = || {
        let listener = TcpListener::bind((ADDRESSES[0], 99)).unwrap();
        listener.accept().unwrap().0.write_all(&pattern()).unwrap();
    };
    let fetch = || {
        let mut stream = loop {
            match TcpStream::connect((ADDRESSES[0], 99)) {
                Ok(stream) => break stream,
                // Nobody listens yet.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes == pattern()
    };
    let ((), right, seen) = connect(purpose, plain, serve, fetch)?;
    assert!(right, "what arrived is not what was sent");
    Some(seen)
}

#[test]
fn a_tcp_stream_passes_uncut_from_one_kernel_to_another() {
    let Some([there, _]) = stream_over("uncut", false) else { return };
    assert!(there.uncut > 10, "{there:?}");
    assert_eq!(there.frames, 0);
}

#[test]
fn a_tcp_stream_that_we_cut_and_summed_is_accepted_by_the_kernel() {
    let Some([there, _]) = stream_over("cut", true) else { return };
    assert!(there.uncut > 10 && there.frames > 2000, "{there:?}");
}

#[test]
fn datagrams_that_were_sent_as_one_arrive_one_by_one() {
    const SEGMENT: libc::c_int = 1000;
    for (purpose, plain) in [("udp", false), ("udpcut", true)] {
        let send = || {
            let socket = UdpSocket::bind((ADDRESSES[0], 0)).unwrap();
            let value = std::ptr::from_ref(&SEGMENT).cast();
            // SAFETY: `setsockopt` reads as many bytes as it is told at the address of a constant.
            let result = unsafe {
                let (fd, level, name) = (socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT);
                libc::setsockopt(fd, level, name, value, 4)
            };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
            for round in 0..20_u8 {
                let parts = (0..10).flat_map(|part| [round * 10 + part; 1000]);
                socket.send_to(&parts.collect::<Vec<_>>()[..9_500], (ADDRESSES[1], 98)).unwrap();
                // The receiver's buffer is small.
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        let receive = || {
            let socket = UdpSocket::bind((ADDRESSES[1], 98)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0; 65_536];
            // The first ones may come before the socket was there.
            while seen.last() != Some(&(199, 500)) {
                let len = socket.recv(&mut buffer).unwrap();
                assert!(buffer[..len].iter().all(|byte| *byte == buffer[0]));
                seen.push((buffer[0], len));
            }
            seen
        };
        let Some(((), seen, [there, _])) = connect(purpose, plain, send, receive) else { return };
        assert!(seen.len() > 100, "{seen:?}");
        for (value, len) in seen {
            assert_eq!(len, if value % 10 == 9 { 500 } else { 1000 }, "datagram {value}");
        }
        assert!(there.uncut > 10, "{there:?}");
    }
}
