//! Messages of a tenant process to the host service.
#![no_main]

use std::os::fd::AsFd as _;

use libfuzzer_sys::fuzz_target;
use moirai_launch::HostChannel;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

fuzz_target!(|bytes: &[u8]| {
    let pair = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    );
    let Ok((ours, theirs)) = pair else { return };
    if send(theirs.as_fd(), bytes, SendFlags::NOSIGNAL).is_ok() {
        let _ = HostChannel::new(ours).receive();
    }
});
