//! The socket between the two: whole messages, and descriptors beside the first one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    socketpair,
};

use crate::MAX_LAYERS;

/// Most descriptors beside the first message: the arena, two files for each layer, and the two of
/// the top layer once more.
pub const MAX_FDS: usize = 1 + 2 * MAX_LAYERS + 2;

/// A connected pair, both ends close-on-exec.
///
/// # Errors
/// Those of `socketpair`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends a message.
///
/// # Errors
/// The other end is closed, or does not read.
pub fn send_message(socket: impl AsFd, message: &[u8]) -> io::Result<()> {
    retry_on_intr(|| send(&socket, message, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Sends a message with descriptors, at most [`MAX_FDS`].
///
/// # Errors
/// There are too many, the other end is closed, or does not read.
pub fn send_with(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > MAX_FDS || !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    let message = [IoSlice::new(message)];
    retry_on_intr(|| sendmsg(&socket, &message, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives a message; its length, zero at the end of the stream. What is longer than `message` is
/// cut off, and descriptors beside it are closed by the kernel.
///
/// # Errors
/// Nothing comes in the time that the socket allows, or the other end is gone.
pub fn receive(socket: impl AsFd, message: &mut [u8]) -> io::Result<usize> {
    // With this flag the kernel says how long the message really was.
    let received = retry_on_intr(|| recv(&socket, &mut *message, RecvFlags::TRUNC))?;
    Ok(received.1)
}

/// The same with the descriptors beside it, which are close-on-exec.
///
/// # Errors
/// Nothing comes in the time that the socket allows, or the other end is gone.
pub fn receive_with(socket: impl AsFd, message: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let parts = &mut [IoSliceMut::new(&mut *message)];
        recvmsg(&socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}
