//! What others do to a host service on purpose: clients of its API and peers of an export.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::super::random::Chance;
use super::super::world::{PREY, World};

/// Clients that ask and do not read, or do not end their question.
const CLIENTS: u64 = 200;
/// A host service that is flooded answers an operator within this time.
const ANSWERS: Duration = Duration::from_secs(2);
const PEERS: u64 = 8;
const MESSAGES: u64 = 200;
const TIMEOUT: Duration = Duration::from_millis(500);

/// Clients that follow a console and do not read, that never end their question, that ask for
/// nothing that is there; then an operator's question.
pub(super) fn api_flood(world: &World, chance: &mut Chance) -> Result<(), String> {
    let questions = [
        "GET /v1/tenants/cinema/console?follow=true HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/stats HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/stats HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /v1/tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n[[",
        "GET /v1/",
        "\u{0}\u{ff}\u{1}\r\n\r\n",
    ];
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        // Those that find no place are turned away, which is right.
        let Ok(mut client) = UnixStream::connect(world.api()) else { continue };
        let _ = client.set_nonblocking(true);
        let _ = client.write(chance.pick(&questions).as_bytes());
        clients.push(client);
    }
    let begin = Instant::now();
    let answered = world.ask(&["list"])?;
    let took = begin.elapsed();
    drop(clients);
    match (answered.status.success(), took <= ANSWERS) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("no answer in an API flood: {}", crate::said(&answered))),
        (true, false) => Err(format!("an answer in an API flood took {took:?}")),
    }
}

/// Peers of an export that say anything: known requests with random bodies, with files that are
/// memory or not, memory that is cut short, half messages.
pub(super) fn hostile(world: &World, chance: &mut Chance) -> Result<(), String> {
    let path = world.socket(PREY);
    for _ in 0..PEERS {
        peer(&path, chance).map_err(|error| format!("a hostile peer: {error}"))?;
    }
    Ok(())
}

fn peer(path: &Path, chance: &mut Chance) -> std::io::Result<()> {
    let mut peer = UnixStream::connect(path)?;
    peer.set_write_timeout(Some(TIMEOUT))?;
    peer.set_read_timeout(Some(TIMEOUT))?;
    let memory = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, 1 << 20)?;
    if chance.below(2) == 0 {
        fcntl_add_seals(&memory, SealFlags::SHRINK)?;
    }
    let (pipe, _writer) = std::io::pipe()?;
    for _ in 0..chance.below(MESSAGES) {
        let (request, body) = message(chance);
        let files: &[BorrowedFd<'_>] = match chance.below(4) {
            0 => &[pipe.as_fd()],
            1 => &[],
            _ => &[memory.as_fd()],
        };
        if !say(&peer, request, &body, files) {
            break;
        }
    }
    // It succeeds if the memory is not sealed: then there is a hole where a ring may lie.
    let _ = ftruncate(&memory, 0);
    let _ = peer.write(&[0xff; 7]);
    let _ = peer.read(&mut [0; 512]);
    Ok(())
}

/// A request of vhost-user's 43, most often with a body of a right size.
fn message(chance: &mut Chance) -> (u32, Vec<u8>) {
    const SET_MEM_TABLE: u32 = 5;
    let request = u32::try_from(chance.below(43)).unwrap_or(0);
    if request == SET_MEM_TABLE {
        let longs = [0, 1 << 20, 0x1000_0000, 0_u64];
        let longs = longs.iter().flat_map(|long| long.to_ne_bytes());
        return (request, [1_u32, 0].iter().flat_map(|it| it.to_ne_bytes()).chain(longs).collect());
    }
    let length = chance.pick(&[0, 8, 8, 8, 12, 24, 40, 40, 264]);
    let small = chance.below(3) != 0;
    let byte = |place: usize, byte: u64| if small && place % 4 != 0 { 0 } else { byte % 256 };
    let bytes = (0..length).map(|place| byte(place, chance.draw()));
    (request, bytes.map(|it| u8::try_from(it).unwrap_or(0)).collect())
}

fn say(peer: &UnixStream, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> bool {
    let length = u32::try_from(body.len()).unwrap_or(0);
    let header = [request, 1, length].map(u32::to_ne_bytes).concat();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    let pieces = [std::io::IoSlice::new(&header), std::io::IoSlice::new(body)];
    sendmsg(peer, &pieces, &mut control, SendFlags::NOSIGNAL).is_ok()
}
