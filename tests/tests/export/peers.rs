//! Hostile peers: each loses its own session, and the host service, which serves the others,
//! neither ends nor waits.

use std::fs::File;
use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use moirai_tests::{Host, said, wait_for};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{disk, export, socket, try_export};

const SET_FEATURES: u32 = 2;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const VERSION_1: u64 = 1 << 32;
/// Where the peer says that it has its memory.
const USER: u64 = 0x1000_0000;
const BYTES: u64 = 1 << 20;

/// A connection on which anything can be said.
struct Peer(UnixStream);

impl Peer {
    fn connect(path: &Path) -> Self {
        let peer = UnixStream::connect(path).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        peer.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(peer)
    }

    /// One message. False if the other side has hung up.
    fn say(&self, request: u32, payload: &[u8], files: &[BorrowedFd<'_>]) -> bool {
        let size = u32::try_from(payload.len()).unwrap();
        let header = [request, 1, size].map(u32::to_ne_bytes).concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let pieces = [IoSlice::new(&header), IoSlice::new(payload)];
        sendmsg(&self.0, &pieces, &mut control, SendFlags::NOSIGNAL).is_ok()
    }

    fn set_memory(&self, file: &File) -> bool {
        self.set_bytes(file, BYTES)
    }

    fn set_bytes(&self, file: &File, bytes: u64) -> bool {
        let table = [words(&[1, 0]), longs(&[0, bytes, USER, 0])].concat();
        self.say(SET_MEM_TABLE, &table, &[file.as_fd()])
    }

    /// Sets up a ring of 16 at the start of the memory; returns what it is kicked by.
    fn start(&self, call: BorrowedFd<'_>) -> OwnedFd {
        let kick = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let ring = [words(&[0, 0]), longs(&[USER, USER + 0x2000, USER + 0x1000, 0])].concat();
        assert!(self.say(SET_VRING_NUM, &words(&[0, 16]), &[]));
        assert!(self.say(SET_VRING_ADDR, &ring, &[]));
        assert!(self.say(SET_VRING_CALL, &longs(&[0]), &[call]));
        assert!(self.say(SET_VRING_KICK, &longs(&[0]), &[kick.as_fd()]));
        kick
    }

    /// Waits until the other side hangs up.
    fn expect_hang_up(mut self) {
        let end = self.0.read(&mut [0; 64]);
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(matches!(&end, Ok(0)) || end.as_ref().is_err_and(reset), "{end:?}");
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

fn memory(sealed: bool) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("peer", flags).unwrap());
    file.set_len(BYTES).unwrap();
    if sealed {
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    }
    file
}

/// The host service has no trouble: it answers soon, and serves the next peer of this export.
fn is_well(host: &Host, name: &str) {
    let begin = Instant::now();
    let _ = host.json(&["exports"]);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    wait_for("its place is free", || {
        let exports = host.json(&["exports"]);
        let all = exports.as_array().unwrap();
        all.iter().any(|export| export["name"] == name && export["peer"].is_null())
    });
    let peer = Peer::connect(&socket(host, name));
    let call = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    assert!(peer.say(SET_FEATURES, &longs(&[VERSION_1]), &[]));
    assert!(peer.set_memory(&memory(true)));
    let kick = peer.start(call.as_fd());
    wait_for("the peer is served", || {
        rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
        let exports = host.json(&["exports"]);
        let all = exports.as_array().unwrap();
        all.iter().any(|export| export["name"] == name && !export["peer"].is_null())
    });
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

fn entries(host: &Host, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{}/{what}", host.pid())).map_or(0, Iterator::count)
}

#[test]
fn memory_that_fails_and_files_that_could_make_us_wait_cost_a_peer_its_session() {
    let host = Host::start();
    let trusted = "[export.disk]".to_owned();
    let text = disk(&host, "db", "extra = true");
    let text = text.replace(&trusted, &format!("unsealed_memory = true\n{trusted}"));
    export(&host, &text);
    let path = socket(&host, "db");

    // Its memory is cut short while a ring lies in it.
    let peer = Peer::connect(&path);
    let call = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let file = memory(false);
    assert!(peer.say(SET_FEATURES, &longs(&[VERSION_1]), &[]));
    assert!(peer.set_memory(&file));
    let kick = peer.start(call.as_fd());
    std::thread::sleep(Duration::from_millis(100));
    file.set_len(0).unwrap();
    rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
    peer.expect_hang_up();
    is_well(&host, "db");
    assert!(host.log().contains("could not be accessed"), "{}", host.log());
}

#[test]
fn a_file_that_is_neither_memory_nor_an_eventfd_ends_the_session() {
    let host = Host::start();
    export(&host, &disk(&host, "db", "extra = true"));
    let (pipe, _writer) = std::io::pipe().unwrap();
    let peer = Peer::connect(&socket(&host, "db"));
    assert!(peer.say(SET_VRING_KICK, &longs(&[0]), &[pipe.as_fd()]));
    peer.expect_hang_up();
    is_well(&host, "db");
}

/// 832 memory tables made 773 real-time threads and 6,143 descriptors; the link fell silent.
#[test]
fn a_storm_of_memory_tables_makes_neither_threads_nor_descriptors() {
    const TABLES: usize = 3000;
    let host = Host::start();
    export(&host, &disk(&host, "db", "extra = true"));
    let (threads, files) = (entries(&host, "task"), entries(&host, "fd"));
    let peer = Peer::connect(&socket(&host, "db"));
    let (mut most_threads, mut most_files) = (0, 0);
    for number in 0..TABLES {
        let file = memory(true);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BYTES).unwrap();
        assert!(peer.set_memory(&file), "hung up on after {number}\n{}", host.log());
        if number % 50 == 0 {
            most_threads = most_threads.max(entries(&host, "task"));
            most_files = most_files.max(entries(&host, "fd"));
        }
    }
    assert!(most_threads <= threads + 16, "{threads} threads became {most_threads}");
    assert!(most_files <= files + 64, "{files} descriptors became {most_files}");
    drop(peer);
    is_well(&host, "db");
}

/// What the pages of a sparse file cost is charged to whoever touches them first, and that is our
/// I/O.
#[test]
fn a_peer_cannot_hand_over_more_memory_than_its_export_may() {
    let host = Host::start();
    let device = "[export.disk]";
    let text = disk(&host, "db", "extra = true");
    export(&host, &text.replace(device, &format!("memory = \"4M\"\n{device}")));
    let huge =
        text.replace("\"db", "\"huge").replace(device, &format!("memory = \"1024G\"\n{device}"));
    std::fs::write(host.folder().join("huge.img"), vec![0; 1 << 20]).unwrap();
    let refused = try_export(&host, &huge);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("memory"), "{}", said(&refused));

    let peer = Peer::connect(&socket(&host, "db"));
    let file = memory(true);
    file.set_len(1 << 40).unwrap();
    assert!(peer.set_bytes(&file, 4 << 20), "{}", host.log());
    // Sparse, and the biggest that any guest of ours can have.
    assert!(peer.set_bytes(&file, 1 << 40));
    peer.expect_hang_up();
    assert!(host.log().contains("exceeds the limit of 4194304"), "{}", host.log());
    is_well(&host, "db");
}

/// Between a look whether it fits and the write, a peer can fill its eventfd.
#[test]
fn an_eventfd_that_its_peer_fills_and_makes_blocking_stops_nobody() {
    let host = Host::start();
    export(&host, &disk(&host, "db", "extra = true"));
    let peer = Peer::connect(&socket(&host, "db"));
    let call = eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    assert!(peer.say(SET_FEATURES, &longs(&[VERSION_1]), &[]));
    let file = memory(true);
    assert!(peer.set_memory(&file));
    let _kick = peer.start(call.as_fd());
    // A running queue is told of its new call descriptor at once.
    for _ in 0..200 {
        assert!(peer.say(SET_VRING_CALL, &longs(&[0]), &[call.as_fd()]));
    }
    drop(peer);
    is_well(&host, "db");
}
