//! Neighbours on a link: who says to be another one is not heard, and a flood that comes in makes
//! no stream late. The kernel's own table of neighbours and its sockets are the judges.

use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moirai_devices::mock::{Guest, readable, writable};
use moirai_runtime::netns::in_netns;
use moirai_tests::{Host, program, wait_for};
use vm_memory::{Bytes as _, GuestAddress};

use super::{export, port, socket};

const HONEST: &str = "52:54:00:00:00:01";
const LIAR: &str = "52:54:00:00:00:02";
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const BROADCAST: [u8; 6] = [0xff; 6];

/// A guest of an export, with a driver that sends what it is told.
struct Neighbour {
    guest: Guest,
    mac: [u8; 6],
}

impl Neighbour {
    fn connect(host: &Host, name: &str, last: u8) -> Self {
        let stream = UnixStream::connect(socket(host, name)).unwrap();
        Self { guest: Guest::boot(stream, 2, 0, false), mac: [0x52, 0x54, 0, 0, 0, last] }
    }

    fn send(&mut self, to: [u8; 6], kind: u16, payload: &[u8]) {
        let slot = (0..10_000).find_map(|_| {
            while self.guest.returned(TRANSMIT).is_some() {}
            let slot = self.guest.free_slot(TRANSMIT);
            if slot.is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            slot
        });
        let slot = slot.expect("a packet comes back");
        let (header, data) = (self.guest.header(TRANSMIT, slot), self.guest.data(TRANSMIT, slot));
        let frame = [&to[..], &self.mac, &kind.to_be_bytes(), payload].concat();
        self.guest.memory.write_slice(&[0; 12], GuestAddress(header)).unwrap();
        self.guest.memory.write_slice(&frame, GuestAddress(data)).unwrap();
        let length = u32::try_from(frame.len()).unwrap();
        self.guest.post(TRANSMIT, slot, &[readable(header, 12), readable(data, length)]);
        self.guest.kick(TRANSMIT);
    }

    /// Asks for the host's address, and says to be 10.77.0.`last` at `hardware`.
    fn arp(&mut self, hardware: [u8; 6], last: u8) {
        let head = [0, 1, 8, 0, 6, 4, 0, 1];
        let sender = [10, 77, 0, last];
        let packet = [&head[..], &hardware, &sender, &[0; 6], &[10, 77, 0, 1]].concat();
        self.send(BROADCAST, 0x0806, &packet);
    }

    /// A UDP packet from 10.77.0.`last` to the host.
    fn udp(&mut self, to: [u8; 6], last: u8, payload: &[u8]) {
        let length = u16::try_from(payload.len()).unwrap();
        let mut header = vec![0x45, 0];
        header.extend((28 + length).to_be_bytes());
        header.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, last, 10, 77, 0, 1]);
        let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum = words.sum::<u32>();
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let ports = [5004_u16, 5004, 8 + length, 0].map(u16::to_be_bytes).concat();
        self.send(to, 0x0800, &[&header[..], &ports, payload].concat());
    }

    fn give_buffers(&mut self) {
        while self.guest.returned(RECEIVE).is_some() {}
        while let Some(slot) = self.guest.free_slot(RECEIVE) {
            let data = self.guest.data(RECEIVE, slot);
            self.guest.post(RECEIVE, slot, &[writable(data, 2048)]);
        }
    }
}

fn hosts_mac(host: &Host) -> [u8; 6] {
    let said = program(&["ip", "-n", &host.netns, "-o", "link", "show", "moirai0"]);
    let text = said.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    let bytes: Vec<_> = text.split(':').map(|it| u8::from_str_radix(it, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// Where the host's kernel sends what is for 10.77.0.2.
fn takes_over(host: &Host) -> String {
    program(&["ip", "-n", &host.netns, "neigh", "show", "10.77.0.2"])
}

fn spoofed(host: &Host, export: &str, why: &str) -> u64 {
    host.part(export, "link")["spoofed"][why].as_u64().unwrap()
}

#[test]
fn who_says_to_be_its_neighbour_does_not_get_its_traffic() {
    let host = Host::start();
    export(&host, &port("honest", HONEST, "extra = true"));
    export(&host, &port("liar", LIAR, "extra = true"));
    let mut honest = Neighbour::connect(&host, "honest", 1);
    let mut liar = Neighbour::connect(&host, "liar", 2);
    honest.arp(honest.mac, 2);
    wait_for("the host knows who is 10.77.0.2", || takes_over(&host).contains(HONEST));

    // The three frames: ARP in its own name, in the other's, and a packet from its address.
    liar.arp(liar.mac, 2);
    liar.arp([0x52, 0x54, 0, 0, 0, 1], 2);
    liar.arp(liar.mac, 1);
    let to = hosts_mac(&host);
    let ears = in_netns(&host.netns, || UdpSocket::bind("10.77.0.1:5004")).unwrap().unwrap();
    ears.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    liar.udp(to, 2, b"I am your neighbour");
    wait_for("all are counted", || {
        spoofed(&host, "export/liar", "arp") == 3 && spoofed(&host, "export/liar", "ip") == 1
    });
    assert!(takes_over(&host).contains(HONEST), "{}", takes_over(&host));
    assert!(ears.recv(&mut [0; 64]).is_err(), "a packet from its neighbour's address");
    let log = host.log();
    assert_eq!(log.matches("packets are dropped").count(), 1, "once in a while: {log}");
    // What is its own, it may say; and the honest one did no wrong.
    liar.udp(to, 3, b"myself");
    let mut heard = [0; 64];
    let length = ears.recv(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"myself");
    assert_eq!(host.part("export/honest", "link")["dropped_tx"], 0);
    let metrics = program(&[
        "curl",
        "-s",
        "--unix-socket",
        &host.folder().join("host.sock").to_string_lossy(),
        "http://localhost/metrics",
    ]);
    let series =
        "moirai_spoofed_arp_total{tenant=\"export/liar\",resource=\"link/link\",part=\"0\"} 3";
    assert!(metrics.contains(series), "{metrics}");
}

/// The same frames with the check switched off: the test sees what it is there for.
#[test]
fn a_port_that_may_spoof_does_and_is_shown_as_such() {
    let host = Host::start();
    export(&host, &port("honest", HONEST, "extra = true"));
    export(&host, &port("router", LIAR, "extra = true\nspoofing = \"allow\""));
    let mut honest = Neighbour::connect(&host, "honest", 1);
    honest.arp(honest.mac, 2);
    wait_for("the host knows who is 10.77.0.2", || takes_over(&host).contains(HONEST));
    // The kernel keeps what it has just learned for a second.
    std::thread::sleep(Duration::from_millis(1500));
    let mut router = Neighbour::connect(&host, "router", 2);
    router.arp(router.mac, 2);
    wait_for("the host believes the other one", || takes_over(&host).contains(LIAR));
    let shown = String::from_utf8(host.ask(&["exports"]).stdout).unwrap();
    assert_eq!(shown.matches("spoofing: allow").count(), 1, "{shown}");
}

#[test]
fn declared_addresses_are_one_ports_and_no_other_one_is_its_own() {
    let host = Host::start();
    export(&host, &port("honest", HONEST, "extra = true\naddresses = [\"10.77.0.2\"]"));
    export(&host, &port("liar", LIAR, "extra = true"));
    for (key, why) in [("10.77.0.2", "another device's"), ("10.77.0.1", "the host's")] {
        let table = port("third", "52:54:00:00:00:03", &format!("addresses = [\"{key}\"]"));
        let answer = super::try_export(&host, &table);
        let said = moirai_tests::said(&answer);
        assert!(!answer.status.success() && said.contains(why), "{said}");
    }
    // Before the one that it belongs to has said a word.
    let mut liar = Neighbour::connect(&host, "liar", 2);
    liar.arp(liar.mac, 2);
    wait_for("it is counted", || spoofed(&host, "export/liar", "arp") == 1);
    let mut honest = Neighbour::connect(&host, "honest", 1);
    honest.arp(honest.mac, 5);
    wait_for("it is counted", || spoofed(&host, "export/honest", "arp") == 1);
    honest.arp(honest.mac, 2);
    wait_for("the host knows who is 10.77.0.2", || takes_over(&host).contains(HONEST));
}

/// It raised I/O time from 0.3 to 2.6 s in 9 s and made 3,042 of 7,700 film packets late.
#[test]
fn a_broadcast_flood_makes_no_stream_late() {
    const PACKETS: u32 = 3_000;
    const LATE: Duration = Duration::from_millis(5);
    let host = Host::start();
    let table = port("stream", HONEST, "period = \"10ms\"\nslice = \"3ms\"\nextra = true");
    export(&host, &table);
    export(&host, &port("other", LIAR, "extra = true"));
    let mut stream = Neighbour::connect(&host, "stream", 1);
    let mut other = Neighbour::connect(&host, "other", 2);
    let to = hosts_mac(&host);
    let ears = in_netns(&host.netns, || UdpSocket::bind("10.77.0.1:5004")).unwrap().unwrap();
    ears.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let before = io_time(&host);
    let (over, begin) = (AtomicBool::new(false), Instant::now());
    let (late, heard, sent, elapsed) = std::thread::scope(|scope| {
        let mouth = in_netns(&host.netns, || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        mouth.set_broadcast(true).unwrap();
        let over = &over;
        let flood = scope.spawn(move || {
            let mut sent = 0_u64;
            while !over.load(Ordering::Relaxed) {
                sent += u64::from(mouth.send_to(&[7; 200], "10.77.0.255:9").is_ok());
            }
            sent
        });
        let judge = scope.spawn(move || {
            before_others();
            let (mut late, mut heard, mut took) = (0, 0, Vec::new());
            let mut packet = [0; 2048];
            while ears.recv(&mut packet).is_ok() {
                let at = u64::from_ne_bytes(packet[..8].try_into().unwrap());
                heard += 1;
                took.push(begin.elapsed().saturating_sub(Duration::from_nanos(at)));
                late += u32::from(took.last().is_some_and(|took| *took > LATE));
            }
            took.sort();
            let at = |permille: usize| took.get(took.len() * permille / 1000);
            println!("{:?} {:?} {:?} {:?}", at(500), at(900), at(990), took.last());
            (late, heard)
        });
        before_others();
        for number in 0..PACKETS {
            let due = Duration::from_millis(number.into());
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            let at = u64::try_from(begin.elapsed().as_nanos()).unwrap();
            stream.udp(to, 2, &[&at.to_ne_bytes()[..], &[0; 992]].concat());
            stream.give_buffers();
            other.give_buffers();
        }
        let elapsed = begin.elapsed();
        over.store(true, Ordering::Relaxed);
        let (late, heard) = judge.join().unwrap();
        let sent = flood.join().unwrap();
        println!("in {elapsed:?}: {late} of {heard} late, {sent} in the flood");
        (late, heard, sent, elapsed)
    });
    let link = host.stats()["links"][0].clone();
    let (used, part) = (io_time(&host) - before, host.part("export/other", "link"));
    println!("the loop took {} us, {link}, {part}", used / 1_000);
    let policed = link["policed"].as_u64().unwrap();
    let received = link["receive_cpu_ns"].as_u64().unwrap();
    let share = received * 100 / u64::try_from(elapsed.as_nanos()).unwrap();
    assert!(share <= 30, "receiving took {share} hundredths of the time");
    assert_eq!(heard, PACKETS, "packets were lost");
    assert!(late * 50 <= PACKETS, "{late} of {PACKETS} packets were late by {LATE:?}");
    assert!(sent > 20_000 && policed > 0, "{sent} packets are no flood, {policed} were too much");
    assert_eq!(host.part("export/stream", "link")["misses"], 0);
}

/// This thread waits for none of the fair class: what is late is late in the host service.
fn before_others() {
    /// SCHED_FIFO of the kernel.
    const FIFO: i32 = 1;
    let placed = moirai_runtime::set_scheduler(0, FIFO, 20);
    placed.expect("the tests run as root");
}

/// CPU time of all event loops.
fn io_time(host: &Host) -> u64 {
    let stats = host.stats();
    let loops = stats["domains"].as_array().unwrap();
    loops.iter().map(|it| it["cpu_ns"].as_u64().unwrap()).sum()
}
