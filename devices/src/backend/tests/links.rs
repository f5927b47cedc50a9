//! TAPs in the kernel and loopbacks in memory.

use std::process::Command;

use super::*;
use crate::backend::faulty::{Fault, Faulty};
use crate::backend::tap::{Tap, TapError};
use crate::backend::{Link, loopback};
use crate::net::tx::{Frontend, Next, TxPacket};
use crate::net::{MacAddr, Nic, Offload, VNET_HEADER_LEN, VnetHeader};
use moirai_runtime::netns::in_netns;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A packet of a guest, in its memory in three pieces: broadcast, with this payload.
fn packet(payload: &[u8]) -> TxPacket {
    let mem = mock::memory(1 << 20);
    let bytes = [&[0; 12][..], &[0xff; 6], &MAC.0, &[0x88, 0xb5], payload].concat();
    mem.write_slice(&bytes, GuestAddress(DATA)).unwrap();
    let len = u32::try_from(bytes.len()).unwrap();
    let mut driver = Driver::new(Arc::clone(&mem), 0, 16);
    driver.post(&[readable(DATA, 12), readable(DATA + 12, 20), readable(DATA + 32, len - 32)]);
    let offload = Offload::TcpAndUdp;
    let mut frontend =
        Frontend::new(Nic { mac: MAC, mtu: 1500, queue_size: 16, pairs: 1, offload });
    match frontend.next_packet(&mem, &mut driver.queue()).unwrap() {
        Next::Packet(taken) => taken.packet,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_loopback_gives_out_what_the_other_end_sent_until_it_is_full() {
    let (mut one, mut other) = loopback::pair(2);
    let mut buffer = [0; 2000];
    assert_eq!(other.receive(&mut buffer).unwrap(), None);
    for payload in [&b"first packet"[..], b"second packet"] {
        assert!(one.send(&packet(payload)).unwrap());
    }
    assert!(!one.send(&packet(b"third packet")).unwrap());
    assert_eq!(other.receive(&mut buffer).unwrap(), Some(26 + 12));
    assert_eq!(&buffer[26..38], b"first packet");
    assert_eq!(one.receive(&mut buffer).unwrap(), None);
    assert_eq!(other.receive(&mut buffer[..30]).unwrap(), Some(30));
}

#[test]
fn a_faulty_link_fails_as_planned() {
    let (one, mut other) = loopback::pair(8);
    let plan = |number| match number {
        0 => Fault::Full,
        1 => Fault::Error(libc::EIO),
        _ => Fault::None,
    };
    let mut link = Faulty::new(one, plan);
    assert!(!link.send(&packet(b"nobody gets this")).unwrap());
    assert_eq!(link.send(&packet(b"nor this")).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(link.send(&packet(b"but this")).unwrap());
    assert_eq!(other.receive(&mut [0; 100]).unwrap(), Some(26 + 8));
}

#[test]
fn names_that_interfaces_cannot_have_are_refused() {
    for name in ["", ".", "..", "a/b", "a b", "sixteen-letters!", "tap%d", "t\u{e4}p"] {
        let error = Tap::open(name, Offload::Checksum).unwrap_err();
        assert!(matches!(error, TapError::BadName(_)), "{name}: {error}");
    }
}

#[test]
fn a_namespace_that_does_not_exist_is_an_error() {
    for name in ["", "..", "a/b", "moirai-there-is-none"] {
        assert!(in_netns(name, || ()).is_err(), "{name}");
    }
}

/// A network namespace that `ip` has made, deleted when dropped.
pub(super) struct Namespace(pub(super) String);

impl Namespace {
    pub(super) fn new(purpose: &str) -> Option<Self> {
        let name = format!("moirai-{purpose}-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        match made.map(|output| output.status.success()) {
            Ok(true) => Some(Self(name)),
            failed => {
                assert!(std::env::var_os("MOIRAI_REQUIRE_ROOT").is_none(), "netns: {failed:?}");
                eprintln!("NOT TESTED HERE: cannot make a network namespace: {failed:?}");
                None
            }
        }
    }

    /// Runs `ip` in the namespace.
    pub(super) fn ip(&self, arguments: &[&str]) -> String {
        let output = Command::new("ip").args(["-n", &self.0]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn open(&self, name: &str) -> Result<Tap, TapError> {
        self.open_with(name, Offload::Checksum)
    }

    pub(super) fn open_with(&self, name: &str, offload: Offload) -> Result<Tap, TapError> {
        in_netns(&self.0, || Tap::open(name, offload)).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "delete", &self.0]).status().unwrap();
    }
}

#[test]
fn a_tap_is_taken_by_one_only_and_goes_away_with_it() {
    let Some(namespace) = Namespace::new("taken") else { return };
    let tap = namespace.open("mtap0").unwrap();
    assert_eq!(tap.name(), "mtap0");
    assert!(namespace.ip(&["link", "show", "mtap0"]).contains("mtap0"));
    let taken = namespace.open("mtap0").unwrap_err();
    assert!(matches!(taken, TapError::Taken(_)), "{taken}");
    let wrong = namespace.open("lo").unwrap_err();
    assert!(matches!(wrong, TapError::NotATap(_)), "{wrong}");
    drop(tap);
    assert!(!namespace.ip(&["link", "show"]).contains("mtap0"));
    namespace.open("mtap0").unwrap();
}

#[test]
fn a_tap_has_the_offloads_that_it_was_asked_for() {
    let Some(namespace) = Namespace::new("offload") else { return };
    for offload in [Offload::None, Offload::Checksum, Offload::Tcp] {
        assert_eq!(namespace.open_with("mtap0", offload).unwrap().offload(), offload);
    }
    let most = namespace.open_with("mtap0", Offload::TcpAndUdp).unwrap().offload();
    if most == Offload::Tcp {
        assert!(std::env::var_os("MOIRAI_REQUIRE_KERNEL").is_none(), "no USO");
        eprintln!("NOT TESTED HERE: this kernel's TAPs do not cut UDP");
    }
    assert!(most.segments());
}

#[test]
fn packets_go_through_a_tap_in_both_directions() {
    let Some(namespace) = Namespace::new("both") else { return };
    let mut tap = namespace.open("mtap0").unwrap();
    assert!(tap.send(&packet(b"the interface is down")).is_err());
    namespace.ip(&["addr", "add", "10.9.0.1/24", "dev", "mtap0"]);
    namespace.ip(&["link", "set", "mtap0", "up"]);
    assert!(tap.send(&packet(b"from guest memory in pieces")).unwrap());
    let received = namespace.ip(&["-s", "link", "show", "mtap0"]);
    assert!(received.contains(" 41 "), "the kernel counts 41 bytes: {received}");

    // A ping to nobody makes the kernel ask for an address by ARP.
    in_netns(&namespace.0, || {
        let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"anybody there?", "10.9.0.2:9").unwrap();
    })
    .unwrap();
    let mut ring = Uring::new(2).unwrap();
    ring.poll_readable(tap.as_fd(), 1).unwrap();
    let mut buffer = [0; 2000];
    let arp = loop {
        match tap.receive(&mut buffer).unwrap() {
            Some(len) if buffer[24..26] == [8, 6] => break &buffer[..len],
            Some(_) => {}
            None => drop(wait(&mut ring)),
        }
    };
    let (vnet, frame) = arp.split_first_chunk::<VNET_HEADER_LEN>().unwrap();
    VnetHeader::parse(vnet, frame.len()).unwrap();
    assert_eq!((&frame[..6], frame.len() >= 42), (&[0xff; 6][..], true));
}
