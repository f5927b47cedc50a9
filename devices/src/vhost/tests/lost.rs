//! Peers whose files fail when they are accessed, or could make us wait.

use std::fs::File;
use std::io::{self, Write as _};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::memory::faults;
use SessionError as E;

const BYTES: u64 = 1 << 20;
const HUGE: u64 = 2 << 20;

fn memfd(flags: MemfdFlags, bytes: u64, seals: SealFlags) -> io::Result<File> {
    let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("guest", flags)?);
    file.set_len(bytes)?;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

fn trusting() -> DeviceProfile {
    DeviceProfile { allow_unsealed_memory: true, ..profile() }
}

/// A session that has this file as its guest's memory.
fn with(file: &File, bytes: u64, profile: DeviceProfile) -> Result<Peer, SessionError> {
    let mut peer = Peer::new(profile);
    peer.tell(FrontendReq::SET_MEM_TABLE, &table(&[(0, bytes, USER, 0)]), &[file.as_fd()])?;
    Ok(peer)
}

fn read(peer: &Peer, at: u64) -> u8 {
    let memory = peer.session.memory().unwrap();
    memory.read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn a_file_that_is_cut_short_fails_its_session_and_no_other() {
    let neighbour = memfd(MemfdFlags::empty(), BYTES, SealFlags::SHRINK).unwrap();
    let neighbour = with(&neighbour, BYTES, profile()).unwrap();
    let file = memfd(MemfdFlags::empty(), BYTES, SealFlags::empty()).unwrap();
    let peer = with(&file, BYTES, trusting()).unwrap();
    peer.session.memory().unwrap().write_obj(7_u8, GuestAddress(0)).unwrap();
    assert!(!peer.session.has_lost_memory());
    file.set_len(4096).unwrap();
    assert_eq!(read(&peer, 0), 7, "what is there can be read");
    assert!(!peer.session.has_lost_memory());
    let before = faults();
    assert_eq!(read(&peer, 8192), 0);
    assert!(faults() > before);
    assert!(peer.session.has_lost_memory());
    assert_eq!(read(&peer, 0), 0, "all of it is lost");
    assert!(!neighbour.session.has_lost_memory());
    assert_eq!(read(&neighbour, 8192), 0);
}

#[test]
fn many_threads_may_meet_the_same_fault() {
    let file = memfd(MemfdFlags::empty(), BYTES, SealFlags::empty()).unwrap();
    let peer = with(&file, BYTES, trusting()).unwrap();
    let memory = std::sync::Arc::clone(peer.session.memory().unwrap());
    file.set_len(0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let memory = &memory;
            scope.spawn(move || {
                for page in 0..BYTES / 4096 {
                    let at = GuestAddress((page * 8 + thread) * 512 % BYTES);
                    let _: u8 = memory.read_obj(at).unwrap();
                }
            });
        }
    });
    assert!(peer.session.has_lost_memory());
}

#[test]
fn the_notes_of_requests_in_flight_may_fail_as_well() {
    let file = memfd(MemfdFlags::empty(), BYTES, SealFlags::empty()).unwrap();
    let mut peer = Peer::new(trusting());
    let payload = [u64s(&[4096, 0]), [1_u16, 16].map(u16::to_ne_bytes).concat()].concat();
    peer.tell(FrontendReq::SET_INFLIGHT_FD, &payload, &[file.as_fd()]).unwrap();
    assert!(!peer.session.has_lost_memory());
    file.set_len(0).unwrap();
    peer.session.queue(0).unwrap().note_taken(3);
    assert!(peer.session.has_lost_memory());
    assert!(peer.session.forget().is_some());
    assert!(!peer.session.has_lost_memory());
}

#[test]
fn holes_punched_into_sealed_memory_are_zeros_and_no_fault() {
    let file = memfd(MemfdFlags::empty(), BYTES, SealFlags::SHRINK).unwrap();
    let peer = with(&file, BYTES, profile()).unwrap();
    peer.session.memory().unwrap().write_obj(7_u8, GuestAddress(8192)).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, hole, 0, BYTES).unwrap();
    assert_eq!(read(&peer, 8192), 0);
    assert!(!peer.session.has_lost_memory());
}

/// A hugetlb memfd can be sealed, and still fails when no huge page is free.
#[test]
fn huge_pages_are_taken_from_trusted_peers_only_and_may_be_missing() {
    let file = match memfd(MemfdFlags::HUGETLB, HUGE, SealFlags::SHRINK) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("NOT TESTED HERE: no memfd with huge pages: {error}");
            assert!(std::env::var_os("MOIRAI_REQUIRE_HUGETLB").is_none());
            return;
        }
    };
    let error = with(&file, HUGE, profile()).err().unwrap();
    assert!(matches!(error, E::Memory(MemoryError::NotOrdinary(0))), "{error}");
    let peer = with(&file, HUGE, trusting()).unwrap();
    // Whether there are huge pages is the machine's business: reading works, or fails as it should.
    let before = faults();
    let _ = read(&peer, 4096);
    assert_eq!(peer.session.has_lost_memory(), faults() > before);
}

#[test]
fn a_peer_with_as_many_tables_in_use_as_there_may_be_is_heard_when_one_is_given_back() {
    let mut peer = Peer::new(profile());
    let mut held = Vec::new();
    let file = || memfd(MemfdFlags::empty(), BYTES, SealFlags::SHRINK).unwrap();
    let one = table(&[(0, BYTES, USER, 0)]);
    for _ in 0..8 {
        assert!(!peer.session.ready().unwrap().pause);
        peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[file().as_fd()]).unwrap();
        held.push(std::sync::Arc::clone(peer.session.memory().unwrap()));
    }
    peer.send(FrontendReq::SET_MEM_TABLE, &one, &[file().as_fd()]);
    let ready = peer.session.ready().unwrap();
    assert!(ready.pause && ready.events.is_empty());
    held.remove(3);
    let ready = peer.session.ready().unwrap();
    assert!(matches!(ready.events[..], [Event::Memory(_)]), "{ready:?}");
    // Without requests in flight there is no end.
    drop((held, ready));
    for _ in 0..100 {
        peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[file().as_fd()]).unwrap();
    }
}

/// Closing a file can wait for ever for whoever serves its file system.
#[test]
fn files_that_could_make_us_wait_are_given_away_to_be_closed_elsewhere() {
    let zero = File::options().read(true).write(true).open("/dev/zero").unwrap();
    let (pipe, mut writer) = std::io::pipe().unwrap();
    let one = table(&[(0, 4096, USER, 0)]);
    let mut peer = Peer::new(profile());
    let error = peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[zero.as_fd()]).unwrap_err();
    assert!(matches!(error, E::StrangeFile), "{error}");
    let mut peer = Peer::new(profile());
    let error = peer.tell(FrontendReq::SET_VRING_KICK, &u64s(&[0]), &[pipe.as_fd()]).unwrap_err();
    assert!(matches!(error, E::StrangeFile), "{error}");
    let left_behind = peer.session.forget();
    drop((peer, pipe));
    writer.write_all(b"the session's end is open as long as nobody has closed it").unwrap();
    drop(left_behind);
    assert!(writer.write_all(b"closed").is_err());
}
