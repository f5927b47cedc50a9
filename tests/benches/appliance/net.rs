//! UDP packets per second from a guest to a TAP, beside loops of the host itself that send the same
//! frames: one through a TAP of its own, one through a socket over veth. All of them end in the
//! same network namespace, in sockets that are full.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use moirai_devices::backend::tap::Tap;
use moirai_devices::net::Offload;
use moirai_runtime::netns::in_netns;
use rustix::io::writev;

use crate::children::run;
use crate::load::Load;
use crate::options::Options;
use crate::pair::Pairs;
use crate::report::{Goal, Report};
use crate::server::Server;

const DEVICES: &str = "[[tenant.net]]\nlink = \"link\"\n";
const PATIENCE: Duration = Duration::from_secs(10);
/// UDP payload of a packet.
const PAYLOAD: usize = 1400;
/// The host's own TAP and the address behind it.
const TAP: &str = "bench-tap";
const TAP_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x77, 0x01];
const TAP_ADDRESS: [u8; 4] = [10, 78, 0, 1];
/// Looks at the clock after so many packets.
const BATCH: u32 = 256;

/// Measures the guest beside each of the loops.
pub(crate) fn measure(report: &mut Report, options: &Options) {
    let mut server = Server::start();
    let netns = server.netns();
    let (tap, socket) = (own_tap(&netns), veth(&netns));
    let _sinks = [server.sink("10.77.0.1:9"), server.sink("10.78.0.1:9")];
    let mut guest = |busy: &mut String| {
        let words = format!("ip=10.77.0.2/24 to=10.77.0.1:9 size={PAYLOAD}");
        let tenant = server.launch("flood", &words, DEVICES);
        tenant.settle();
        let load = Load::of(&tenant, "link", options.run);
        *busy = load.busy();
        load.rate() / 1000.0
    };
    let mut busy = String::new();
    let frame = Frame::new(&[], PAYLOAD);
    let by_tap = Pairs::take(
        options.pairs,
        || guest(&mut busy),
        || per_second(options.run, || frame.write(&tap, &[0; PAYLOAD])) / 1000.0,
    );
    let by_socket = Pairs::take(
        options.pairs,
        || guest(&mut busy),
        || per_second(options.run, || send(&socket, &[0; PAYLOAD])) / 1000.0,
    );
    let name = "UDP packets of 1400 bytes";
    report.compare(name, "k/s", "host, writev to a TAP", by_tap, Goal::None);
    report.compare(name, "k/s", "host, sendto over veth", by_socket, Goal::None);
    report.note(format!("{name}: {busy}"));
}

fn per_second(time: Duration, mut send: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut count = 0u32;
    while begin.elapsed() < time {
        for _ in 0..BATCH {
            send();
        }
        count += BATCH;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

/// A TAP of the host's own in the namespace. It goes when it is closed.
pub(crate) fn own_tap(netns: &str) -> Tap {
    let tap =
        in_netns(netns, || Tap::open(TAP, Offload::None)).expect("the namespace").expect("a TAP");
    let mac = TAP_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let address = format!("{}/24", TAP_ADDRESS.map(|byte| byte.to_string()).join("."));
    ip(netns, &["link", "set", TAP, "address", &mac, "up"]);
    ip(netns, &["addr", "add", &address, "dev", TAP]);
    tap
}

/// A socket that sends over a pair of virtual Ethernet devices; they go with the namespace.
pub(crate) fn veth(netns: &str) -> UdpSocket {
    let far = "02:00:00:00:00:02";
    ip(netns, &["link", "add", "bench-near", "type", "veth", "peer", "name", "bench-far"]);
    ip(netns, &["link", "set", "bench-far", "address", far, "up"]);
    ip(netns, &["link", "set", "bench-near", "up"]);
    ip(netns, &["addr", "add", "10.79.0.1/24", "dev", "bench-near"]);
    ip(netns, &["neigh", "add", "10.79.0.2", "lladdr", far, "dev", "bench-near"]);
    let socket = in_netns(netns, || {
        let socket = UdpSocket::bind("10.79.0.1:0")?;
        socket.connect("10.79.0.2:9").map(|()| socket)
    });
    socket.expect("the namespace").expect("a socket")
}

fn ip(netns: &str, words: &[&str]) {
    let _ = run(PATIENCE, "ip", &[&["-n", netns], words].concat());
}

/// Sends one datagram; a full queue is waited for by the kernel.
pub(crate) fn send(socket: &UdpSocket, payload: &[u8]) {
    assert_eq!(socket.send(payload).expect("a datagram can be sent"), payload.len());
}

/// Bytes of the Ethernet, IPv4 and UDP headers, which are as the guest's link gets them.
const UDP_LEN: usize = 8;
const IP_LEN: usize = 20 + UDP_LEN;

/// The headers of a packet: vnet, Ethernet, IPv4, UDP with its checksum left to the receiver, as a
/// guest does it, and what the application puts in front of the payload.
#[derive(Debug)]
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    /// Headers for so many bytes of payload.
    pub(crate) fn new(application: &[u8], payload: usize) -> Self {
        let [a, b, c, _] = TAP_ADDRESS;
        let addresses = [[a, b, c, 2], TAP_ADDRESS].concat();
        let length = |headers: usize| {
            u16::try_from(headers + application.len() + payload).expect("a packet").to_be_bytes()
        };
        // NEEDS_CSUM, from byte 34 on, to byte 6 of the UDP header.
        let vnet = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
        let ethernet = [&TAP_MAC[..], &[0x02, 0, 0, 0, 0x77, 0x02, 0x08, 0]].concat();
        let mut ip = [&[0x45, 0][..], &length(IP_LEN), &[0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
        ip.extend(&addresses);
        let sum = !sum_of(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let partial = sum_of(&[&addresses[..], &[0, 17], &length(UDP_LEN)].concat());
        let udp = [[0, 9], [0, 9], length(UDP_LEN), partial.to_be_bytes()].concat();
        Self([&vnet[..], &ethernet, &ip, &udp, application].concat())
    }

    /// Writes the packet to the TAP, headers and payload from where they are.
    pub(crate) fn write(&self, tap: &Tap, payload: &[u8]) {
        let parts = [IoSlice::new(&self.0), IoSlice::new(payload)];
        let written = writev(tap, &parts).expect("the TAP takes a packet");
        assert_eq!(written, self.0.len() + payload.len());
    }
}

/// The ones' complement sum of RFC 1071, not complemented.
fn sum_of(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("it is folded")
}
