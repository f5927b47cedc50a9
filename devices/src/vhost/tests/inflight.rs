//! Memory for requests in flight: asked for, handed back to another session, and misused.

use std::sync::Arc;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::*;
use crate::blk::{self, Next};
use crate::mock::{Driver, readable, shared_memory, writable};
use SessionError as E;

const MEMORY: usize = 1 << 20;

/// Payload for one queue of so many descriptors, padded as QEMU does.
fn description(size: u64, queues: u16, queue_size: u16) -> Vec<u8> {
    let counts = [queues.to_ne_bytes(), queue_size.to_ne_bytes()].concat();
    [u64s(&[size, 0]), counts, vec![0; 4]].concat()
}

/// Asks for the memory: the payload of the reply and its descriptor.
fn ask(peer: &mut Peer) -> (Vec<u8>, OwnedFd) {
    peer.tell(FrontendReq::GET_INFLIGHT_FD, &description(0, 1, 16), &[]).unwrap();
    let mut bytes = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [std::io::IoSliceMut::new(&mut bytes)];
    let got = recvmsg(&peer.socket, &mut pieces, &mut control, RecvFlags::empty()).unwrap();
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    (bytes[12..got.bytes].to_vec(), file.expect("a descriptor"))
}

fn disk() -> blk::Disk {
    blk::Disk {
        capacity_sectors: 1 << 20,
        read_only: false,
        block_size: 512,
        topology: blk::Topology {
            physical_block_bytes: 4096,
            optimal_io_bytes: 0,
            discard_align_bytes: 512,
        },
        discard: false,
        write_zeroes: false,
        queues: 1,
        queue_size: 16,
        id: [0; 20],
    }
}

/// What a session takes from the ring, with a note of each: the sectors that are asked for.
fn take(peer: &mut Peer, frontend: &mut blk::Frontend) -> Vec<(u64, blk::TakenChain)> {
    let vring = peer.session.queue(0).unwrap();
    let mut taken = Vec::new();
    loop {
        let unfinished = vring.next_unfinished();
        let (mem, queue) = vring.parts().unwrap();
        let next = match unfinished {
            Some(head) => frontend.request_again(mem, queue, head),
            None => frontend.next_request(mem, queue),
        };
        let Next::Request(blk::Taken { chain, request }) = next.unwrap() else { return taken };
        vring.note_taken(chain.head());
        let blk::Op::Read { offset_bytes } = request.op else { panic!("{:?}", request.op) };
        taken.push((offset_bytes / 512, chain));
    }
}

fn complete(peer: &mut Peer, frontend: &mut blk::Frontend, chain: blk::TakenChain) {
    let vring = peer.session.queue(0).unwrap();
    let head = chain.head();
    let (mem, queue) = vring.parts().unwrap();
    frontend.complete(mem, queue, chain, blk::Outcome::Ok).unwrap();
    vring.note_returned(Some(head));
}

#[test]
fn what_one_session_did_not_return_the_next_one_serves_again() {
    let (mem, file) = shared_memory(MEMORY);
    let mut driver = Driver::new(Arc::clone(&mem), 0x1000, 16);
    for sector in [10_u64, 20, 30, 40] {
        let place = 0x8000 + sector * 0x100;
        vm_memory::Bytes::write_obj(&*mem, 0_u64, vm_memory::GuestAddress(place)).unwrap();
        vm_memory::Bytes::write_obj(&*mem, sector, vm_memory::GuestAddress(place + 8)).unwrap();
        driver.post(&[readable(place, 16), writable(0x20000, 512), writable(place + 32, 1)]);
    }
    let kick = event();
    let mut first = Peer::new(profile());
    first.introduce(file.as_fd(), MEMORY as u64);
    let (payload, notes) = ask(&mut first);
    first.tell(FrontendReq::SET_INFLIGHT_FD, &payload, &[notes.as_fd()]).unwrap();
    first.start(0, 0x1000, kick.as_fd());
    let mut frontend = blk::Frontend::new(disk());
    let mut taken = take(&mut first, &mut frontend);
    assert_eq!(taken.iter().map(|(sector, _)| *sector).collect::<Vec<_>>(), [10, 20, 30, 40]);
    let (_, chain) = taken.remove(1);
    complete(&mut first, &mut frontend, chain);
    drop(first);

    let mut second = Peer::new(profile());
    second.introduce(file.as_fd(), MEMORY as u64);
    second.tell(FrontendReq::SET_INFLIGHT_FD, &payload, &[notes.as_fd()]).unwrap();
    // The peer's own count is of no use: it says 0, although four were taken.
    second.start(0, 0x1000, kick.as_fd());
    let mut frontend = blk::Frontend::new(disk());
    let again = take(&mut second, &mut frontend);
    assert_eq!(again.iter().map(|(sector, _)| *sector).collect::<Vec<_>>(), [10, 30, 40]);
    again.into_iter().for_each(|(_, chain)| complete(&mut second, &mut frontend, chain));
    let used: Vec<u32> = std::iter::from_fn(|| driver.used()).map(|(head, _)| head).collect();
    assert_eq!(used, [3, 0, 6, 9], "each chain is returned once");
    assert!(second.session.queue(0).unwrap().next_unfinished().is_none());
}

#[test]
fn in_flight_memory_that_cannot_be_right_is_refused() {
    let refused = |payload: &[u8], files: &[BorrowedFd<'_>]| {
        Peer::new(profile()).tell(FrontendReq::SET_INFLIGHT_FD, payload, files).unwrap_err()
    };
    let (_, sealed) = shared_memory(MEMORY);
    let good = description(MEMORY as u64, 1, 16);
    assert!(matches!(refused(&good, &[]), E::WrongFiles { got: 0, expected: 1, .. }));
    assert!(matches!(refused(&good[..19], &[sealed.as_fd()]), E::WrongSize { .. }));
    for (queues, size) in [(0, 16), (3, 16), (1, 0), (1, QUEUE_SIZE + 1)] {
        let error = refused(&description(MEMORY as u64, queues, size), &[sealed.as_fd()]);
        assert!(matches!(error, E::BadValue { .. }), "{queues} of {size}: {error}");
    }
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let unsealed = rustix::fs::memfd_create("notes", flags).unwrap();
    rustix::fs::ftruncate(&unsealed, MEMORY as u64).unwrap();
    let error = refused(&good, &[unsealed.as_fd()]);
    assert!(matches!(error, E::Memory(MemoryError::NotSealed(_))), "{error}");
}

#[test]
fn a_queue_that_has_no_room_in_the_notes_does_not_start_and_a_running_one_keeps_its_own() {
    let (_, file) = shared_memory(MEMORY);
    let kick = event();
    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), MEMORY as u64);
    let (_, notes) = ask(&mut peer);
    let small = description(MEMORY as u64, 1, 8);
    peer.tell(FrontendReq::SET_INFLIGHT_FD, &small, &[file.as_fd()]).unwrap();
    let number = u64s(&[0]);
    peer.tell(FrontendReq::SET_VRING_NUM, &u32s(&[0, 16]), &[]).unwrap();
    peer.tell(FrontendReq::SET_VRING_ADDR, &ring_at(0, USER + 0x1000), &[]).unwrap();
    peer.tell(FrontendReq::SET_VRING_KICK, &number, &[kick.as_fd()]).unwrap();
    let error = peer.tell(FrontendReq::SET_VRING_ENABLE, &u32s(&[0, 1]), &[]).unwrap_err();
    assert!(matches!(error, E::InflightTooSmall { index: 0, size: 16 }), "{error}");

    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), MEMORY as u64);
    peer.start(0, 0x1000, kick.as_fd());
    let error = peer
        .tell(FrontendReq::SET_INFLIGHT_FD, &description(400, 1, 16), &[notes.as_fd()])
        .unwrap_err();
    assert!(matches!(error, E::QueueRunning { index: 0, .. }), "{error}");
}
