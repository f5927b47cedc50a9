//! The control socket: one JSON message per `SOCK_SEQPACKET` datagram, descriptors by `SCM_RIGHTS`.

use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::messages::{FromHost, ToHost};

/// Longest message.
pub const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Most descriptors beside one message.
pub const MAX_FDS: usize = 32;

/// One end of the control socket: sends `S`, receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    socket: OwnedFd,
    messages: PhantomData<fn(S) -> R>,
}

/// The host's end.
pub type HostChannel = Channel<FromHost, ToHost>;
/// The tenant's end.
pub type TenantChannel = Channel<ToHost, FromHost>;

/// Makes a connected pair, both ends close-on-exec.
///
/// # Errors
/// Those of `socketpair`.
pub fn pair() -> std::io::Result<(HostChannel, TenantChannel)> {
    let (host, tenant) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Channel::new(host), Channel::new(tenant)))
}

impl<S: Serialize, R: DeserializeOwned> Channel<S, R> {
    /// Takes one end of a `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, messages: PhantomData }
    }

    /// Sends a message with descriptors (at most [`MAX_FDS`]).
    ///
    /// # Errors
    /// [`ChannelError::TooLong`], or [`ChannelError::Io`] if the peer is gone.
    pub fn send(&self, message: &S, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message).map_err(ChannelError::Malformed)?;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(ChannelError::TooLong(bytes.len()));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let too_many = fds.len() > MAX_FDS;
        if too_many || (!fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds))) {
            return Err(ChannelError::TooManyFds(fds.len()));
        }
        let send =
            || sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
        rustix::io::retry_on_intr(send).map_err(|e| ChannelError::Io(e.into()))?;
        Ok(())
    }

    /// Receives the next message; received descriptors are close-on-exec. Blocks if the socket
    /// does.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] at the end of the stream; anything else means that the peer does
    /// not speak this protocol.
    pub fn receive(&self) -> Result<(R, Vec<OwnedFd>), ChannelError> {
        let mut bytes = vec![0; MAX_MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let iov = &mut [IoSliceMut::new(&mut bytes)];
            recvmsg(&self.socket, iov, &mut control, RecvFlags::CMSG_CLOEXEC)
        })
        .map_err(|e| ChannelError::Io(e.into()))?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(ChannelError::Truncated);
        }
        match bytes.get(..received.bytes) {
            Some(message) if !message.is_empty() => {
                Ok((serde_json::from_slice(message).map_err(ChannelError::Malformed)?, fds))
            }
            _ => Err(ChannelError::Closed),
        }
    }
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<S, R> From<Channel<S, R>> for OwnedFd {
    fn from(channel: Channel<S, R>) -> Self {
        channel.socket
    }
}

/// What can go wrong on a control socket.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The peer has closed its end.
    #[error("the peer has closed the control socket")]
    Closed,
    /// A message or its descriptors did not fit.
    #[error(
        "a message on the control socket was longer than {MAX_MESSAGE_BYTES} bytes or brought \
         more than {MAX_FDS} descriptors"
    )]
    Truncated,
    /// A message to send is too long.
    #[error("a message of {0} bytes: at most {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    /// Too many descriptors to send.
    #[error("{0} descriptors in one message: at most {MAX_FDS}")]
    TooManyFds(usize),
    /// Not a message of this protocol.
    #[error("a message on the control socket cannot be understood: {0}")]
    Malformed(serde_json::Error),
    /// The socket failed; `WouldBlock` if it is non-blocking and nothing is there.
    #[error("control socket: {0}")]
    Io(std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::{ChannelError, MAX_MESSAGE_BYTES, pair};
    use crate::{FromHost, ToHost};
    use rustix::io::{read, write};
    use rustix::net::{SendFlags, send};
    use std::os::fd::AsFd;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (host, tenant) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        host.send(&FromHost::Stop, &[writer.as_fd()]).unwrap();
        let (message, fds) = tenant.receive().unwrap();
        assert_eq!(message, FromHost::Stop);
        write(&fds[0], b"x").unwrap();
        assert_eq!(read(&reader, &mut [0; 8]), Ok(1));
    }

    #[test]
    fn a_peer_that_hangs_up_is_told_from_one_that_talks_nonsense() {
        let (host, tenant) = pair().unwrap();
        send(&host, b"{\"launch\":7}", SendFlags::empty()).unwrap();
        assert!(matches!(tenant.receive(), Err(ChannelError::Malformed(_))));
        send(&host, &[b' '; MAX_MESSAGE_BYTES + 1], SendFlags::empty()).unwrap();
        assert!(matches!(tenant.receive(), Err(ChannelError::Truncated)));
        drop(host);
        assert!(matches!(tenant.receive(), Err(ChannelError::Closed)));
    }

    #[test]
    fn a_message_that_the_peer_could_not_take_is_not_sent() {
        let (host, tenant) = pair().unwrap();
        let error = "x".repeat(MAX_MESSAGE_BYTES);
        let failed = ToHost::Failed { stage: crate::Stage::Image, error, hint: String::new() };
        assert!(matches!(tenant.send(&failed, &[]), Err(ChannelError::TooLong(_))));
        assert!(matches!(
            host.send(&FromHost::Stop, &[host.as_fd(); super::MAX_FDS + 1]),
            Err(ChannelError::TooManyFds(_))
        ));
    }
}
