//! Messages of a vhost-user peer, in any order and of any content, with files beside them.
#![no_main]

use std::fs::File;
use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use moirai_devices::mock::shared_memory;
use moirai_devices::vhost::{DEFAULT_MAX_MEMORY_BYTES, DeviceProfile, Event, Session};
use moirai_fuzz::Input;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const BYTES: usize = 1 << 16;

struct Files {
    memory: File,
    event: OwnedFd,
    other: File,
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| Files {
        memory: shared_memory(BYTES).1,
        event: eventfd(0, EventfdFlags::empty()).expect("eventfd"),
        other: File::open("/dev/null").expect("/dev/null"),
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    let _ = theirs.set_nonblocking(true);
    let profile = DeviceProfile {
        features: 1 << 32 | 1 << 29 | 1 << 28,
        config: (0..60).collect(),
        queues: 2,
        max_queue_size: 64,
        allow_unsealed_memory: false,
        max_memory_bytes: DEFAULT_MAX_MEMORY_BYTES,
    };
    let Ok(mut session) = Session::new(ours, profile) else { return };
    while !input.is_empty() {
        say(&theirs, &mut input);
        if !hear(&mut session) {
            return;
        }
        let _ = theirs.read(&mut [0; 4096]);
        for index in 0..2 {
            let Some(vring) = session.queue(index).filter(|vring| vring.is_running()) else {
                continue;
            };
            let _ = (vring.drain_kick(), vring.enable_kicks(), vring.signal());
        }
        assert!(!session.has_lost_memory(), "sealed memory");
    }
});

fn say(peer: &UnixStream, input: &mut Input<'_>) {
    let kind = input.byte();
    // Most messages are of the specification and whole.
    let request = u32::from(input.byte() % 48);
    let length = usize::from(input.byte());
    let payload = input.take(length);
    let size = if kind & 0x80 == 0 { payload.len() } else { usize::from(input.short()) };
    let flags = if kind & 0x40 == 0 { 1 } else { u32::from(input.byte()) };
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let header = [request, flags, size].map(u32::to_ne_bytes).concat();
    let Files { memory, event, other } = files();
    let file: BorrowedFd<'_> = match kind >> 3 & 7 {
        0..=2 => memory.as_fd(),
        3..=6 => event.as_fd(),
        _ => other.as_fd(),
    };
    let beside = vec![file; usize::from(kind & 3)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !beside.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&beside));
    }
    let pieces = [IoSlice::new(&header), IoSlice::new(payload)];
    let _ = sendmsg(peer, &pieces, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// Everything that waits; false when the session is over.
fn hear(session: &mut Session) -> bool {
    for _ in 0..64 {
        let Ok(ready) = session.ready() else { return false };
        let mut drained = false;
        for event in ready.events {
            match event {
                Event::Closed => return false,
                Event::QueueStopped { index, drain: true } => {
                    drained = true;
                    if session.drained(index).is_err() {
                        return false;
                    }
                }
                _ => {}
            }
        }
        if !ready.again && !drained {
            return true;
        }
    }
    panic!("the session has no end of work");
}
