//! The vhost-user frontend against a backend of another project, and against peers that misbehave.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use moirai_vmm::memory::{GuestRam, MemoryOptions};
use moirai_vmm::virtio::queue::QueueAreas;
use moirai_vmm::virtio::{Backend, BackendError, DeviceEvents, Vhost, VhostError};
use support::backend::{MAX_QUEUES, serve};

const MEMORY_BYTES: u64 = 4 << 20;
const RING: QueueAreas =
    QueueAreas { size: 64, descriptors: 0x1000, driver: 0x3000, device: 0x4000 };

fn connect(socket: UnixStream, timeout: Duration) -> Result<Vhost, VhostError> {
    connect_sized(socket, timeout, MEMORY_BYTES, 2)
}

fn connect_sized(
    socket: UnixStream,
    timeout: Duration,
    size_bytes: u64,
    queues: u16,
) -> Result<Vhost, VhostError> {
    let options = MemoryOptions { size_bytes, prefault: false, huge_pages: false };
    let memory = GuestRam::new("vhost-test", options).unwrap();
    let events = DeviceEvents::new(queues).unwrap();
    Vhost::connect(socket.into(), memory.map, events, timeout)
}

const PATIENT: Duration = Duration::from_secs(20);

#[test]
fn a_backend_hears_of_memory_and_rings_and_is_stopped() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (heard, thread) = serve(theirs);
    let mut vhost = connect(ours, PATIENT).unwrap();
    assert_eq!(vhost.features(), 1 << 32 | 1 << 29);
    let mut config = [9; 4];
    vhost.read_config(254, &mut config);
    assert_eq!(config, [254, 255, 0, 0]);
    vhost.start(1 << 32, &[None, Some(RING)]).unwrap();
    {
        let heard = heard.lock().unwrap();
        assert_eq!(heard.features, 1 << 32 | 1 << 30);
        assert_eq!(heard.regions, [(0, MEMORY_BYTES, 0)]);
        assert_eq!(heard.memory[0].metadata().unwrap().len(), MEMORY_BYTES);
        assert_eq!(heard.num, [(1, 64)]);
        assert_eq!(heard.addresses, [(1, 0x1000, 0x3000, 0x4000)]);
        assert_eq!(heard.enabled, [1]);
        assert_eq!(heard.kicks.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1]);
    }
    vhost.stop().unwrap();
    assert_eq!(heard.lock().unwrap().stopped, [1]);
    vhost.start(1 << 32, &[Some(RING), Some(RING)]).unwrap();
    assert_eq!(heard.lock().unwrap().enabled, [1, 0, 1]);
    drop(vhost);
    thread.join().unwrap();
}

#[test]
fn a_device_may_have_sixteen_queues_each_with_eventfds_of_its_own() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (heard, thread) = serve(theirs);
    let mut vhost = connect_sized(ours, PATIENT, MEMORY_BYTES, MAX_QUEUES).unwrap();
    vhost.start(1 << 32, &vec![Some(RING); MAX_QUEUES.into()]).unwrap();
    {
        let heard = heard.lock().unwrap();
        assert_eq!(heard.enabled, (0..16).collect::<Vec<_>>());
        let one = 1u64.to_ne_bytes();
        for (_, call) in &heard.calls {
            let mut count = [0; 8];
            assert!(rustix::io::read(call, &mut count).is_err(), "nobody else's");
            rustix::io::write(call, &one).unwrap();
        }
        assert_eq!((heard.calls.len(), heard.kicks.len()), (16, 16));
    }
    vhost.stop().unwrap();
    assert_eq!(heard.lock().unwrap().stopped, (0..16).collect::<Vec<_>>());
    drop(vhost);
    thread.join().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (_, thread) = serve(theirs);
    let error = connect_sized(ours, PATIENT, MEMORY_BYTES, MAX_QUEUES + 1).unwrap_err();
    assert!(matches!(error, VhostError::Queues { has: 16, needed: 17 }), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_backend_hears_of_memory_above_four_gibibytes() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (heard, thread) = serve(theirs);
    let mut vhost = connect_sized(ours, PATIENT, 5 << 30, 1).unwrap();
    let high = QueueAreas { descriptors: 5 << 30, ..RING };
    vhost.start(1 << 32, &[Some(high)]).unwrap();
    let (hole, end) = (0xc000_0000, 1 << 32);
    let heard = heard.lock().unwrap();
    assert_eq!(heard.regions, [(0, hole, 0), (end, (5 << 30) - hole, hole)]);
    assert_eq!(heard.addresses, [(0, 5 << 30, 0x3000, 0x4000)]);
    drop((heard, vhost));
    thread.join().unwrap();
}

#[test]
fn a_backend_that_does_not_answer_is_given_up() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = connect(ours, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, VhostError::Timeout(_)), "{error}");
}

#[test]
fn a_backend_that_hangs_up_is_given_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (_, thread) = serve(theirs.try_clone().unwrap());
    let mut vhost = connect(ours, PATIENT).unwrap();
    theirs.shutdown(std::net::Shutdown::Both).unwrap();
    thread.join().unwrap();
    assert!(matches!(
        vhost.start(1 << 32, &[Some(RING)]),
        Err(BackendError::Vhost(VhostError::Closed))
    ));
    assert!(vhost.stop().is_err(), "there is no more talking to it");
    assert!(vhost.start(1 << 32, &[Some(RING)]).is_err());
}

#[test]
fn a_backend_that_answers_garbage_is_given_up() {
    for garbage in [[0; 64], [0xff; 64]] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&garbage).unwrap();
        let error = connect(ours, PATIENT).unwrap_err();
        assert!(matches!(error, VhostError::Protocol(_)), "{error}");
    }
}

#[test]
fn a_backend_that_stops_in_the_middle_of_a_message_is_given_up() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // Header of a reply to GET_FEATURES with 8 bytes to come, of which 3 come.
    let header: Vec<u8> = [1u32, 5, 8].iter().flat_map(|word| word.to_ne_bytes()).collect();
    theirs.write_all(&header).unwrap();
    theirs.write_all(&[1, 2, 3]).unwrap();
    let error = connect(ours, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, VhostError::Timeout(_)), "{error}");
    // It was asked, and nothing was left unsaid.
    let mut asked = [0; 12];
    theirs.read_exact(&mut asked).unwrap();
}

#[test]
fn a_backend_without_what_every_device_needs_is_refused() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    for (request, value) in [(1u32, 1u64 << 32 | 1 << 30), (15, 0)] {
        let header: Vec<u8> = [request, 5, 8].iter().flat_map(|w| w.to_ne_bytes()).collect();
        theirs.write_all(&header).unwrap();
        theirs.write_all(&value.to_ne_bytes()).unwrap();
    }
    let error = connect(ours, PATIENT).unwrap_err();
    assert!(matches!(error, VhostError::Lacks("VHOST_USER_PROTOCOL_F_CONFIG")), "{error}");
}
