//! A film is read through everything: the `vhost` crate's frontend, session, block frontend, ring,
//! volume and io_uring.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::backend::Ring as _;
use crate::backend::Volume;
use crate::backend::uring::Uring;
use crate::backend::{Job, Step, Storage};
use crate::blk;
use crate::mock::{Driver, readable, writable};

const MEMORY: usize = 1 << 20;

/// Serves a session until its peer is gone: what the I/O domain does, in a page.
fn serve(mut session: Session, mut volume: Volume) -> Vec<String> {
    let mut ring = Uring::new(16).unwrap();
    let mut frontend = blk::Frontend::new(volume.disk(1, QUEUE_SIZE));
    let mut log = Vec::new();
    let wait = Timespec { tv_sec: 20, tv_nsec: 0 };
    loop {
        let ready = session.ready().unwrap();
        for event in ready.events {
            log.push(format!("{event:?}").split([' ', '(']).next().unwrap().to_owned());
            match event {
                Event::Closed => return log,
                Event::QueueStopped { index, drain: true } => {
                    assert_eq!(frontend.in_flight(), 0);
                    session.drained(index).unwrap();
                }
                _ => {}
            }
        }
        let vring = session.queue(0).unwrap();
        vring.drain_kick().unwrap();
        if vring.is_running() {
            while let Some((mem, queue)) = vring.parts() {
                match frontend.next_request(mem, queue).unwrap() {
                    blk::Next::Request(blk::Taken { chain, request }) => {
                        let mut job = Job::new(request);
                        let mut step = volume.submit(&mut ring, 1, &mut job).unwrap();
                        while step == Step::Pending {
                            ring.submit_and_wait(Some(Duration::from_secs(20))).unwrap();
                            let Some(done) = ring.next_completion() else { continue };
                            step = volume.completed(&mut ring, 1, &mut job, done.result).unwrap();
                        }
                        let Step::Done(outcome) = step else { panic!("still pending") };
                        frontend.complete(mem, queue, chain, outcome).unwrap();
                    }
                    blk::Next::Answered => {}
                    blk::Next::Empty => break,
                }
            }
            vring.signal().unwrap();
            if vring.enable_kicks().unwrap() {
                continue;
            }
        }
        let kick = session.queue(0).unwrap().kick().map(|kick| kick.try_clone_to_owned().unwrap());
        let mut fds = vec![PollFd::new(&session, PollFlags::IN)];
        fds.extend(kick.iter().map(|kick| PollFd::new(kick, PollFlags::IN)));
        assert!(poll(&mut fds, Some(&wait)).unwrap() > 0, "nothing happens: {log:?}");
    }
}

/// What a VMM does between two boots of its guest: one start and one stop of the queue.
fn run_guest(frontend: &mut Frontend, film: &[u8]) {
    let (mem, file) = mock::shared_memory(MEMORY);
    let host = mem.get_host_address(GuestAddress(0)).unwrap() as u64;
    frontend.set_features(VERSION_1 | EVENT_IDX | PROTOCOL_FEATURES).unwrap();
    frontend
        .set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: host,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        }])
        .unwrap();
    let mut driver = Driver::new(Arc::clone(&mem), 0x1000, QUEUE_SIZE);
    let [descriptors, available, used] = driver.addresses().map(|address| host + address);
    let addresses = VringConfigData {
        queue_max_size: QUEUE_SIZE,
        queue_size: QUEUE_SIZE,
        flags: 0,
        desc_table_addr: descriptors,
        used_ring_addr: used,
        avail_ring_addr: available,
        log_addr: None,
    };
    let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    frontend.set_vring_num(0, QUEUE_SIZE).unwrap();
    frontend.set_vring_base(0, 0).unwrap();
    frontend.set_vring_addr(0, &addresses).unwrap();
    frontend.set_vring_call(0, &call).unwrap();
    frontend.set_vring_kick(0, &kick).unwrap();
    frontend.set_vring_enable(0, true).unwrap();

    for sector in [0_u64, 8, 1000] {
        mem.write_obj(0_u64, GuestAddress(0x8000)).unwrap();
        mem.write_obj(sector, GuestAddress(0x8008)).unwrap();
        mem.write_obj(0xaa_u8, GuestAddress(0x8100)).unwrap();
        driver.post(&[readable(0x8000, 16), writable(0x10000, 8192), writable(0x8100, 1)]);
        kick.write(1).unwrap();
        call.read().unwrap();
        assert_eq!(driver.used().map(|(_, len)| len), Some(8193));
        assert_eq!(mem.read_obj::<u8>(GuestAddress(0x8100)).unwrap(), 0);
        let mut got = vec![0; 8192];
        mem.read_slice(&mut got, GuestAddress(0x10000)).unwrap();
        let start = usize::try_from(sector * 512).unwrap();
        assert_eq!(got, film[start..start + 8192]);
        driver.set_used_event(mem.read_obj(GuestAddress(used - host + 2)).unwrap());
    }
    assert_eq!(frontend.get_vring_base(0).unwrap(), 3);
}

#[test]
fn a_guest_behind_the_vhost_crate_reads_a_film_boots_again_and_leaves() {
    let film: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_ne_bytes).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("film");
    std::fs::write(&path, &film).unwrap();
    let volume = Volume::open(&path, true).unwrap();
    let profile = volume.disk(1, QUEUE_SIZE).profile();
    let config = profile.config.clone();
    let offered = profile.features;

    let (ours, theirs) = UnixStream::pair().unwrap();
    let session = Session::new(ours, profile).unwrap();
    let device = std::thread::spawn(move || serve(session, volume));

    let mut frontend = Frontend::from_stream(theirs, 1);
    frontend.set_owner().unwrap();
    assert_eq!(frontend.get_features().unwrap(), offered | PROTOCOL_FEATURES);
    frontend.set_features(VERSION_1 | PROTOCOL_FEATURES).unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    let wanted = VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
    assert_eq!(protocol, wanted);
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(frontend.get_queue_num().unwrap(), 1);
    let (_, space) = frontend.get_config(0, 60, VhostUserConfigFlags::empty(), &[0; 60]).unwrap();
    assert_eq!(space, config);
    assert!(frontend.set_config(32, VhostUserConfigFlags::WRITABLE, &[1]).is_err());
    for _ in 0..2 {
        run_guest(&mut frontend, &film);
    }
    drop(frontend);
    let log = device.join().unwrap();
    assert_eq!(log.iter().filter(|event| *event == "QueueStarted").count(), 2, "{log:?}");
    assert_eq!(log.last().map(String::as_str), Some("Closed"));
}

#[test]
fn a_queue_of_the_vhost_crate_without_protocol_features_is_born_enabled() {
    let (mem, file) = mock::shared_memory(MEMORY);
    let mut peer = Peer::new(profile());
    peer.tell(FrontendReq::SET_FEATURES, &u64s(&[VERSION_1]), &[]).unwrap();
    peer.tell(FrontendReq::SET_MEM_TABLE, &table(&[(0, 1 << 20, USER, 0)]), &[file.as_fd()])
        .unwrap();
    peer.tell(FrontendReq::SET_VRING_ADDR, &ring_at(0, USER), &[]).unwrap();
    let events = peer.tell(FrontendReq::SET_VRING_KICK, &u64s(&[0]), &[event().as_fd()]).unwrap();
    assert!(matches!(events[..], [Event::QueueStarted { index: 0 }]), "{events:?}");
    drop(mem);
}

#[test]
fn a_stopped_queue_answers_only_when_it_was_drained() {
    let (_mem, file) = mock::shared_memory(MEMORY);
    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), 1 << 20);
    let kick = event();
    assert!(matches!(peer.start(0, 0x1000, kick.as_fd())[..], [Event::QueueStarted { index: 0 }]));
    let events = peer.tell(FrontendReq::GET_VRING_BASE, &u32s(&[0, 0]), &[]).unwrap();
    assert!(matches!(events[..], [Event::QueueStopped { index: 0, drain: true }]));
    // Completions are still legal; the peer waits, and what it sends meanwhile waits too.
    assert!(peer.session.queue(0).unwrap().parts().is_some());
    assert!(!peer.session.queue(0).unwrap().is_running());
    assert!(peer.tell(FrontendReq::GET_FEATURES, &[], &[]).unwrap().is_empty());
    assert!(peer.reply().is_none());

    peer.session.drained(0).unwrap();
    assert_eq!(peer.reply().unwrap().2, u32s(&[0, 0]));
    assert!(peer.session.queue(0).unwrap().parts().is_none());
    peer.session.ready().unwrap();
    assert_eq!(peer.reply().unwrap().0, u32::from(FrontendReq::GET_FEATURES));
    // It can start again, and disabling is no stop.
    assert!(matches!(peer.start(0, 0x8000, kick.as_fd())[..], [Event::QueueStarted { index: 0 }]));
    let events = peer.tell(FrontendReq::SET_VRING_ENABLE, &u32s(&[0, 0]), &[]).unwrap();
    assert!(matches!(events[..], [Event::QueueStopped { index: 0, drain: false }]));
    assert!(peer.session.queue(0).unwrap().parts().is_some());
}

#[test]
fn resetting_the_owner_drains_without_an_answer() {
    let (_mem, file) = mock::shared_memory(MEMORY);
    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), 1 << 20);
    peer.start(1, 0x1000, event().as_fd());
    let events = peer.tell(FrontendReq::RESET_OWNER, &[], &[]).unwrap();
    assert!(matches!(events[..], [Event::QueueStopped { index: 1, drain: true }]));
    peer.session.drained(1).unwrap();
    assert!(peer.reply().is_none());
}

#[test]
fn a_new_kick_descriptor_of_a_running_queue_is_announced() {
    let (_mem, file) = mock::shared_memory(MEMORY);
    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), 1 << 20);
    peer.start(0, 0x1000, event().as_fd());
    let kick = event();
    let events = peer.tell(FrontendReq::SET_VRING_KICK, &u64s(&[0]), &[kick.as_fd()]).unwrap();
    assert!(matches!(events[..], [Event::QueueKickChanged { index: 0 }]));
    rustix::io::write(&kick, &5_u64.to_ne_bytes()).unwrap();
    let vring = peer.session.queue(0).unwrap();
    assert!(vring.drain_kick().unwrap());
    assert!(!vring.drain_kick().unwrap());
}

#[test]
fn kicks_are_read_without_blocking_even_if_the_peer_makes_the_descriptor_blocking() {
    let (_mem, file) = mock::shared_memory(MEMORY);
    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), 1 << 20);
    let kick = eventfd(0, EventfdFlags::empty()).unwrap();
    peer.start(0, 0x1000, kick.as_fd());
    assert!(!peer.session.queue(0).unwrap().drain_kick().unwrap());
}

#[test]
fn a_call_descriptor_that_is_full_does_not_block_and_is_not_an_error() {
    let (mem, file) = mock::shared_memory(MEMORY);
    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), 1 << 20);
    let call = eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    peer.start(0, 0x1000, call.as_fd());
    let vring = peer.session.queue(0).unwrap();
    let (mem_of_ring, queue) = vring.parts().unwrap();
    crate::virtqueue::add_used(mem_of_ring, queue, 0, 0).unwrap();
    assert!(vring.signal().unwrap());
    drop(mem);
}

#[test]
fn the_driver_is_told_as_it_wishes() {
    let (mem, file) = mock::shared_memory(MEMORY);
    for event_idx in [false, true] {
        let mut peer = Peer::new(profile());
        let call = event();
        let features = if event_idx { VERSION_1 | EVENT_IDX } else { VERSION_1 };
        peer.tell(FrontendReq::SET_FEATURES, &u64s(&[features]), &[]).unwrap();
        peer.tell(FrontendReq::SET_MEM_TABLE, &table(&[(0, 1 << 20, USER, 0)]), &[file.as_fd()])
            .unwrap();
        mem.write_slice(&[0; 0x4000], GuestAddress(0x1000)).unwrap();
        peer.start(0, 0x1000, call.as_fd());
        let driver = Driver::new(Arc::clone(&mem), 0x1000, 16);
        let vring = peer.session.queue(0).unwrap();
        let mut complete = |count: u16| {
            for _ in 0..count {
                let (mem, queue) = vring.parts().unwrap();
                crate::virtqueue::add_used(mem, queue, 0, 0).unwrap();
            }
            vring.signal().unwrap()
        };
        if event_idx {
            driver.set_used_event(2);
            assert_eq!([complete(2), complete(1), complete(5)], [false, true, false]);
            driver.set_used_event(9);
            assert_eq!([complete(4), complete(0)], [true, false]);
        } else {
            assert_eq!([complete(0), complete(2)], [false, true]);
            driver.want_interrupts(false);
            assert!(!complete(1));
        }
        assert!(count(&call) > 0);
    }
}

#[test]
fn a_failed_queue_stands_still_and_its_peer_is_told() {
    let (_mem, file) = mock::shared_memory(MEMORY);
    let mut peer = Peer::new(profile());
    peer.introduce(file.as_fd(), 1 << 20);
    let (kick, error) = (event(), event());
    peer.tell(FrontendReq::SET_VRING_ERR, &u64s(&[0]), &[error.as_fd()]).unwrap();
    peer.start(0, 0x1000, kick.as_fd());
    peer.session.queue(0).unwrap().fail();
    assert_eq!(count(&error), 1);
    assert!(!peer.session.queue(0).unwrap().is_running());
    // Enabling does not revive it; stopping and starting does.
    let events = peer.tell(FrontendReq::SET_VRING_ENABLE, &u32s(&[0, 1]), &[]).unwrap();
    assert!(events.is_empty());
    peer.tell(FrontendReq::GET_VRING_BASE, &u32s(&[0, 0]), &[]).unwrap();
    peer.session.drained(0).unwrap();
    assert!(peer.reply().is_some());
    assert_eq!(peer.start(0, 0x1000, kick.as_fd()).len(), 1);
}
