//! Peers that break the protocol, one rule at a time.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;
use SessionError as E;

/// Memory of 1 MiB, sealed or not.
fn memfd(sealed: bool) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("guest", flags).unwrap());
    file.set_len(1 << 20).unwrap();
    if sealed {
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    }
    file
}

/// The error that one message ends a fresh session with.
fn error_of(request: FrontendReq, payload: &[u8], files: &[BorrowedFd<'_>]) -> SessionError {
    Peer::new(profile()).tell(request, payload, files).unwrap_err()
}

fn memory_error(regions: &[(u64, u64, u64, u64)], file: &File) -> String {
    let files = vec![file.as_fd(); regions.len()];
    match error_of(FrontendReq::SET_MEM_TABLE, &table(regions), &files) {
        E::Memory(error) => format!("{error:?}").split(['(', ' ']).next().unwrap().to_owned(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_peer_that_stops_in_mid_message_holds_nothing_up() {
    let mut peer = Peer::new(profile());
    let whole = message(FrontendReq::GET_FEATURES.into(), 0x1, &[]);
    for byte in &whole[..whole.len() - 1] {
        peer.send_raw(&[*byte], &[]);
        assert!(peer.session.ready().unwrap().events.is_empty());
        assert!(peer.reply().is_none());
    }
    peer.send_raw(&whole[whole.len() - 1..], &[]);
    peer.session.ready().unwrap();
    assert!(peer.reply().is_some());
    peer.send_raw(&whole[..5], &[]);
    let Peer { mut session, socket } = peer;
    drop(socket);
    assert!(matches!(session.ready().unwrap().events[..], [Event::Closed]));
    assert!(session.ready().unwrap().events.is_empty(), "it is reported once");
}

#[test]
fn many_messages_in_one_go_are_handled_in_turns() {
    let mut peer = Peer::new(profile());
    for _ in 0..100 {
        peer.send(FrontendReq::SET_OWNER, &[], &[]);
    }
    assert!(peer.session.ready().unwrap().again);
    assert!(!peer.session.ready().unwrap().again);
}

#[test]
fn a_peer_that_does_not_read_its_replies_is_given_up() {
    let mut peer = Peer::new(profile());
    let error = (0..100_000).find_map(|_| {
        peer.send(FrontendReq::GET_FEATURES, &[], &[]);
        peer.session.ready().err()
    });
    assert!(matches!(error, Some(E::RepliesNotRead)), "{error:?}");
}

#[test]
fn bad_headers_end_the_session_before_their_payload_is_awaited() {
    for (request, flags, size) in [(1, 0x0, 0), (1, 0x2, 0), (1, 0x5, 0), (1, 0x11, 0)] {
        let mut peer = Peer::new(profile());
        peer.send_raw(&u32s(&[request, flags, size]), &[]);
        assert!(matches!(peer.session.ready(), Err(E::BadHeader { .. })), "{flags:#x}");
    }
    let mut peer = Peer::new(profile());
    peer.send_raw(&u32s(&[5, 0x1, u32::MAX]), &[]);
    assert!(matches!(peer.session.ready(), Err(E::TooLong { size: u32::MAX, .. })));
}

#[test]
fn payloads_of_the_wrong_length_are_refused() {
    for request in [
        FrontendReq::SET_FEATURES,
        FrontendReq::SET_PROTOCOL_FEATURES,
        FrontendReq::SET_OWNER,
        FrontendReq::SET_VRING_NUM,
        FrontendReq::SET_VRING_ADDR,
        FrontendReq::SET_VRING_BASE,
        FrontendReq::GET_VRING_BASE,
        FrontendReq::SET_VRING_ENABLE,
        FrontendReq::SET_VRING_KICK,
        FrontendReq::SET_VRING_CALL,
        FrontendReq::SET_VRING_ERR,
        FrontendReq::SET_MEM_TABLE,
        FrontendReq::GET_CONFIG,
    ] {
        let error = error_of(request, &[0; 5], &[]);
        assert!(matches!(error, E::WrongSize { got: 5, .. }), "{request:?}: {error}");
    }
    let many = u32s(&[u32::MAX, 0]);
    assert!(matches!(error_of(FrontendReq::SET_MEM_TABLE, &many, &[]), E::WrongSize { .. }));
    let none = u32s(&[0, 0]);
    assert!(matches!(error_of(FrontendReq::SET_MEM_TABLE, &none, &[]), E::WrongSize { .. }));
}

#[test]
fn descriptors_that_do_not_match_are_refused() {
    let file = memfd(true);
    let one = table(&[(0, 1 << 20, USER, 0)]);
    let wrong = error_of(FrontendReq::SET_MEM_TABLE, &one, &[]);
    assert!(matches!(wrong, E::WrongFiles { got: 0, expected: 1, .. }));
    let wrong = error_of(FrontendReq::SET_MEM_TABLE, &one, &[file.as_fd(), file.as_fd()]);
    assert!(matches!(wrong, E::WrongFiles { got: 2, expected: 1, .. }));
    let wrong = error_of(FrontendReq::SET_VRING_KICK, &u64s(&[0]), &[]);
    assert!(matches!(wrong, E::WrongFiles { got: 0, expected: 1, .. }));
    let wrong = error_of(FrontendReq::SET_VRING_CALL, &u64s(&[0x100]), &[file.as_fd()]);
    assert!(matches!(wrong, E::WrongFiles { got: 1, expected: 0, .. }));
    let many = vec![file.as_fd(); 40];
    assert!(matches!(error_of(FrontendReq::SET_MEM_TABLE, &one, &many), E::TooManyFiles));
    let mut peer = Peer::new(profile());
    for byte in message(FrontendReq::SET_MEM_TABLE.into(), 1, &one) {
        peer.send_raw(&[byte], &[file.as_fd(); 20]);
    }
    assert!(matches!(peer.session.ready(), Err(E::TooManyFiles)));
}

#[test]
fn only_eventfds_are_taken_for_kicks_and_calls() {
    let memory = memfd(true);
    for request in
        [FrontendReq::SET_VRING_KICK, FrontendReq::SET_VRING_CALL, FrontendReq::SET_VRING_ERR]
    {
        assert!(matches!(error_of(request, &u64s(&[1]), &[memory.as_fd()]), E::NotEventfd(1)));
    }
    assert!(matches!(error_of(FrontendReq::SET_VRING_KICK, &u64s(&[0x100]), &[]), E::NoKick(0)));
}

#[test]
fn queues_that_do_not_exist_are_refused() {
    let eventfd = event();
    for request in [
        FrontendReq::SET_VRING_NUM,
        FrontendReq::SET_VRING_BASE,
        FrontendReq::GET_VRING_BASE,
        FrontendReq::SET_VRING_ENABLE,
    ] {
        for index in [2, u32::MAX] {
            let error = error_of(request, &u32s(&[index, 1]), &[]);
            assert!(matches!(error, E::NoSuchQueue(i) if i == index), "{request:?}: {error}");
        }
    }
    let error = error_of(FrontendReq::SET_VRING_ADDR, &ring_at(7, USER), &[]);
    assert!(matches!(error, E::NoSuchQueue(7)));
    let error = error_of(FrontendReq::SET_VRING_KICK, &u64s(&[9]), &[eventfd.as_fd()]);
    assert!(matches!(error, E::NoSuchQueue(9)));
    let error = error_of(FrontendReq::SET_VRING_KICK, &u64s(&[1 << 40]), &[eventfd.as_fd()]);
    assert!(matches!(error, E::BadValue { .. }));
}

#[test]
fn values_out_of_range_are_refused() {
    for size in [0, 3, 128, 65536 + 16, u32::MAX] {
        let error = error_of(FrontendReq::SET_VRING_NUM, &u32s(&[0, size]), &[]);
        assert!(matches!(error, E::BadQueueSize { index: 0, .. }), "{size}: {error}");
    }
    let error = error_of(FrontendReq::SET_VRING_BASE, &u32s(&[0, 1 << 16]), &[]);
    assert!(matches!(error, E::BadValue { value: 0x10000, .. }));
    let error = error_of(FrontendReq::SET_VRING_ENABLE, &u32s(&[0, 2]), &[]);
    assert!(matches!(error, E::BadValue { value: 2, .. }));
    let error = error_of(FrontendReq::SET_FEATURES, &u64s(&[VERSION_1 | 1]), &[]);
    assert!(matches!(error, E::BadFeatures { .. }));
    let error = error_of(FrontendReq::SET_PROTOCOL_FEATURES, &u64s(&[1 << 63]), &[]);
    assert!(matches!(error, E::BadFeatures { .. }));
}

#[test]
fn requests_that_were_not_negotiated_end_the_session_or_are_declined() {
    for request in [FrontendReq::SET_LOG_BASE, FrontendReq::IOTLB_MSG, FrontendReq::SET_STATUS] {
        assert!(matches!(error_of(request, &[], &[]), E::Unsupported(_)), "{request:?}");
    }
    let mut peer = Peer::new(profile());
    peer.send_raw(&message(4242, 0x1, &[]), &[]);
    assert!(matches!(peer.session.ready(), Err(E::Unsupported(4242))));
    // With acknowledgements, a frontend may try what it likes.
    let mut peer = Peer::new(profile());
    peer.tell(FrontendReq::SET_PROTOCOL_FEATURES, &u64s(&[0x8]), &[]).unwrap();
    peer.send_raw(&message(4242, 0x9, &[]), &[]);
    peer.session.ready().unwrap();
    assert_eq!(peer.reply().unwrap(), (4242, 0x5, u64s(&[1])));
    peer.send_raw(&message(FrontendReq::SET_OWNER.into(), 0x9, &[]), &[]);
    peer.session.ready().unwrap();
    assert_eq!(peer.reply().unwrap().2, u64s(&[0]));
}

#[test]
fn a_refused_request_is_acknowledged_as_failed_before_the_session_ends() {
    let mut peer = Peer::new(profile());
    peer.tell(FrontendReq::SET_PROTOCOL_FEATURES, &u64s(&[0x8]), &[]).unwrap();
    peer.send_raw(&message(FrontendReq::SET_VRING_NUM.into(), 0x9, &u32s(&[0, 3])), &[]);
    assert!(peer.session.ready().is_err());
    assert_eq!(peer.reply().unwrap().2, u64s(&[1]));
}

#[test]
fn configuration_is_read_within_its_bounds() {
    let mut peer = Peer::new(profile());
    let read = |peer: &mut Peer, offset, size: u32, len: u32| {
        let payload = [u32s(&[offset, size, 0]), vec![0; len as usize]].concat();
        peer.ask(FrontendReq::GET_CONFIG, &payload)[12..].to_vec()
    };
    assert_eq!(read(&mut peer, 0, 60, 60), profile().config);
    assert_eq!(read(&mut peer, 58, 4, 4), [58, 59, 0, 0]);
    assert_eq!(read(&mut peer, u32::MAX, 4, 4), [0; 4]);
    assert!(read(&mut peer, 0, 8, 4).is_empty());
    assert!(read(&mut peer, 0, 257, 257).is_empty());
}

#[test]
fn memory_tables_that_lie_are_refused() {
    let file = memfd(true);
    assert_eq!(memory_error(&[(0, 0, USER, 0)], &file), "BadRange");
    assert_eq!(memory_error(&[(u64::MAX, 4096, USER, 0)], &file), "BadRange");
    assert_eq!(memory_error(&[(0, 4096, u64::MAX, 0)], &file), "BadRange");
    assert_eq!(memory_error(&[(0, 4096, USER, 100)], &file), "Unaligned");
    assert_eq!(memory_error(&[(0, 1 << 31, USER, 0)], &file), "TooLarge");
    assert_eq!(memory_error(&[(0, (1 << 20) + 1, USER, 0)], &file), "FileTooShort");
    assert_eq!(memory_error(&[(0, 1 << 20, USER, 4096)], &file), "FileTooShort");
    let overlap = [(0, 8192, USER, 0), (4096, 8192, USER + (1 << 30), 0)];
    assert_eq!(memory_error(&overlap, &file), "Overlap");
    let overlap = [(0, 8192, USER, 0), (1 << 30, 8192, USER + 4096, 0)];
    assert_eq!(memory_error(&overlap, &file), "Overlap");
    let unsealed = memfd(false);
    assert_eq!(memory_error(&[(0, 4096, USER, 0)], &unsealed), "NotSealed");
}

#[test]
fn more_regions_than_a_message_can_carry_descriptors_are_refused() {
    let file = memfd(true);
    let regions = |count: u64| (0..count).map(|n| (n << 20, 4096, USER + (n << 20), 0));
    let thirty_two: Vec<_> = regions(32).collect();
    let mut peer = Peer::new(profile());
    let files = vec![file.as_fd(); 32];
    peer.tell(FrontendReq::SET_MEM_TABLE, &table(&thirty_two), &files).unwrap();
    let thirty_three: Vec<_> = regions(33).collect();
    let files = vec![file.as_fd(); 33];
    let error = error_of(FrontendReq::SET_MEM_TABLE, &table(&thirty_three), &files);
    assert!(matches!(error, E::TooManyFiles), "{error}");
    let error = error_of(FrontendReq::SET_MEM_TABLE, &table(&thirty_two), &files[..8]);
    assert!(matches!(error, E::WrongFiles { got: 8, expected: 32, .. }), "{error}");
}

#[test]
fn memory_that_could_shrink_is_taken_only_from_trusted_peers() {
    let file = memfd(false);
    let one = table(&[(0, 1 << 20, USER, 0)]);
    assert_eq!(memory_error(&[(0, 1 << 20, USER, 0)], &file), "NotSealed");
    let mut peer = Peer::new(DeviceProfile { allow_unsealed_memory: true, ..profile() });
    peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[file.as_fd()]).unwrap();
    // Trusted or not: another file system could let us wait for ever.
    let zero = File::options().read(true).write(true).open("/dev/zero").unwrap();
    let error = peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[zero.as_fd()]).unwrap_err();
    assert!(matches!(error, E::StrangeFile), "{error}");
    let read_only = File::open(format!("/proc/self/fd/{}", {
        use std::os::fd::AsRawFd;
        file.as_raw_fd()
    }))
    .unwrap();
    let mut peer = Peer::new(DeviceProfile { allow_unsealed_memory: true, ..profile() });
    let error = peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[read_only.as_fd()]).unwrap_err();
    assert!(matches!(error, E::Memory(MemoryError::Map { .. })), "{error}");
}

#[test]
fn regions_of_one_file_are_mapped_where_the_guest_expects_them() {
    let file = memfd(true);
    file.write_all_at(b"low", 0).unwrap();
    file.write_all_at(b"high", 8192).unwrap();
    let regions = [(1 << 32, 4096, USER + (1 << 40), 8192), (0, 8192, USER, 0)];
    let mut peer = Peer::new(profile());
    peer.tell(FrontendReq::SET_MEM_TABLE, &table(&regions), &[file.as_fd(), file.as_fd()]).unwrap();
    let mem = std::sync::Arc::clone(peer.session.memory().unwrap());
    let mut bytes = [0; 4];
    vm_memory::Bytes::read_slice(&*mem, &mut bytes, vm_memory::GuestAddress(1 << 32)).unwrap();
    assert_eq!(&bytes, b"high");
}

#[test]
fn rings_outside_the_memory_are_refused_whenever_that_becomes_known() {
    let file = memfd(true);
    for address in [USER - 16, USER + (1 << 20), !0xf, 0, USER + 8] {
        let mut peer = Peer::new(profile());
        peer.introduce(file.as_fd(), 1 << 20);
        let error = peer.tell(FrontendReq::SET_VRING_ADDR, &ring_at(0, address), &[]).unwrap_err();
        assert!(matches!(error, E::RingOutsideMemory { index: 0 }), "{address:#x}: {error}");
        // The same with the addresses first.
        let mut peer = Peer::new(profile());
        peer.tell(FrontendReq::SET_VRING_ADDR, &ring_at(0, address), &[]).unwrap();
        let one = table(&[(0, 1 << 20, USER, 0)]);
        let error = peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[file.as_fd()]).unwrap_err();
        assert!(matches!(error, E::RingOutsideMemory { index: 0 }), "{address:#x}: {error}");
    }
    // Begins inside, ends outside.
    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), 0x3010);
    for (request, payload) in [
        (FrontendReq::SET_VRING_NUM, u32s(&[0, 64])),
        (FrontendReq::SET_VRING_ADDR, ring_at(0, USER + 0x1000)),
        (FrontendReq::SET_VRING_ENABLE, u32s(&[0, 1])),
    ] {
        peer.tell(request, &payload, &[]).unwrap();
    }
    let kick = event();
    let error = peer.tell(FrontendReq::SET_VRING_KICK, &u64s(&[0]), &[kick.as_fd()]).unwrap_err();
    assert!(matches!(error, E::RingOutsideMemory { index: 0 }));
}

#[test]
fn a_running_queue_cannot_be_resized_nor_lose_its_memory() {
    let file = memfd(true);
    let kick = event();
    let running = || {
        let mut peer = Peer::new(profile());
        peer.introduce(file.as_fd(), 1 << 20);
        peer.start(0, 0x8000, kick.as_fd());
        peer
    };
    for request in [FrontendReq::SET_VRING_NUM, FrontendReq::SET_VRING_BASE] {
        let error = running().tell(request, &u32s(&[0, 8]), &[]).unwrap_err();
        assert!(matches!(error, E::QueueRunning { index: 0, .. }));
    }
    let small = table(&[(0, 0x9000, USER, 0)]);
    let error = running().tell(FrontendReq::SET_MEM_TABLE, &small, &[file.as_fd()]).unwrap_err();
    assert!(matches!(error, E::RingOutsideMemory { index: 0 }));
    let error = running().tell(FrontendReq::SET_FEATURES, &u64s(&[0]), &[]).unwrap_err();
    assert!(matches!(error, E::BadFeatures { .. }));
    // Another table that still holds the ring is fine, and the old one lives as long as its users.
    let mut peer = running();
    let old = std::sync::Arc::clone(peer.session.memory().unwrap());
    let one = table(&[(0, 1 << 19, USER, 0)]);
    let events = peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[file.as_fd()]).unwrap();
    assert!(matches!(events[..], [Event::Memory(_)]));
    assert_eq!(std::sync::Arc::strong_count(&old), 1);
}

#[test]
fn a_table_that_is_known_is_not_mapped_again() {
    let (file, other) = (memfd(true), memfd(true));
    let half = 1 << 19;
    let one = [(0, half, USER, 0), (half, half, USER + half, half)];
    let mut peer = Peer::new(profile());
    let mut events = |regions: &[(u64, u64, u64, u64)], files: [&File; 2]| {
        let files = files.map(AsFd::as_fd);
        peer.tell(FrontendReq::SET_MEM_TABLE, &table(regions), &files).unwrap()
    };
    assert!(matches!(events(&one, [&file, &file])[..], [Event::Memory(_)]));
    // The same file by another descriptor.
    let again = file.try_clone().unwrap();
    for _ in 0..3 {
        assert!(events(&one, [&file, &again]).is_empty());
    }
    // Whatever differs makes it another table.
    let [low, high] = one;
    assert!(!events(&one, [&file, &other]).is_empty());
    assert!(!events(&[low, (half, half, USER + half, 0)], [&file, &file]).is_empty());
    assert!(!events(&[low, (half, half - 4096, USER + half, half)], [&file, &file]).is_empty());
    assert!(!events(&[low, (half, half, USER + 2 * half, half)], [&file, &file]).is_empty());
    assert!(!events(&[(0, half, USER, 0), high], [&file, &file]).is_empty());
}

#[test]
fn a_legacy_driver_is_refused() {
    let file = memfd(true);
    let mut peer = Peer::new(profile());
    peer.tell(FrontendReq::SET_FEATURES, &u64s(&[0]), &[]).unwrap();
    let one = table(&[(0, 1 << 20, USER, 0)]);
    peer.tell(FrontendReq::SET_MEM_TABLE, &one, &[file.as_fd()]).unwrap();
    peer.tell(FrontendReq::SET_VRING_ADDR, &ring_at(0, USER), &[]).unwrap();
    let error = peer.tell(FrontendReq::SET_VRING_KICK, &u64s(&[0]), &[event().as_fd()]);
    assert!(matches!(error.unwrap_err(), E::LegacyDriver));
}
