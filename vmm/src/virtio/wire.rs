//! vhost-user messages on a socket, each way under a deadline.
//!
//! The backend is another process, and a vCPU thread waits for it in the middle of a register
//! access: whatever the backend does, that wait ends. (The `Frontend` of the vhost crate retries
//! for ever after a receive timeout, so this module writes the protocol's layouts itself.)
//! <https://qemu-project.gitlab.io/qemu/interop/vhost-user.html>

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::error::VhostError;

/// Length of a message header: request, flags, payload length.
const HEADER_LEN: usize = 12;
const FLAG_VERSION: u32 = 1;
const FLAG_REPLY: u32 = 4;
const FLAG_NEED_REPLY: u32 = 8;
/// Most descriptors beside one message: one per memory region.
pub(super) const MAX_FDS: usize = 8;

/// The frontend's end of a vhost-user connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: OwnedFd,
    timeout: Duration,
}

/// A moment after which waiting is given up.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Wire {
    pub(super) fn new(socket: OwnedFd, timeout: Duration) -> Self {
        Self { socket, timeout }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Sends a request; `need_reply` asks for an acknowledgement (protocol feature REPLY_ACK).
    pub(super) fn send(
        &self,
        request: u32,
        need_reply: bool,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), VhostError> {
        let flags = FLAG_VERSION | if need_reply { FLAG_NEED_REPLY } else { 0 };
        let len = u32::try_from(payload.len()).map_err(|_| VhostError::Protocol(request))?;
        let header = [request, flags, len].map(u32::to_ne_bytes).concat();
        let message = [header.as_slice(), payload].concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(VhostError::Protocol(request));
        }
        let deadline = Deadline(Instant::now() + self.timeout);
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, flags) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    // Descriptors go with the first byte.
                    control.clear();
                }
                Err(errno) => self.wait_after(errno, PollFlags::OUT, deadline)?,
            }
        }
        Ok(())
    }

    /// Receives the reply to `request`, whose payload must have exactly the length of `payload`.
    pub(super) fn receive(&self, request: u32, payload: &mut [u8]) -> Result<(), VhostError> {
        let deadline = Deadline(Instant::now() + self.timeout);
        let mut header = [0; HEADER_LEN];
        self.receive_exact(&mut header, deadline)?;
        let word = |at: usize| {
            let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
            u32::from_ne_bytes(bytes.copied().unwrap_or_default())
        };
        let is_reply = word(4) & (FLAG_REPLY | 3) == FLAG_REPLY | FLAG_VERSION;
        if word(0) != request || !is_reply || usize::try_from(word(8)) != Ok(payload.len()) {
            return Err(VhostError::Protocol(request));
        }
        self.receive_exact(payload, deadline)
    }

    fn receive_exact(&self, mut buffer: &mut [u8], deadline: Deadline) -> Result<(), VhostError> {
        while !buffer.is_empty() {
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(VhostError::Closed),
                Ok((received, _)) => buffer = buffer.get_mut(received..).unwrap_or_default(),
                Err(errno) => self.wait_after(errno, PollFlags::IN, deadline)?,
            }
        }
        Ok(())
    }

    /// Waits for the socket after an attempt that would have blocked.
    fn wait_after(
        &self,
        errno: Errno,
        events: PollFlags,
        deadline: Deadline,
    ) -> Result<(), VhostError> {
        match errno {
            Errno::INTR => return Ok(()),
            Errno::AGAIN => {}
            Errno::PIPE | Errno::CONNRESET => return Err(VhostError::Closed),
            errno => return Err(VhostError::Io(errno.into())),
        }
        // A vCPU may stand at its gate past the deadline while the answer lies there already:
        // look once more before giving up.
        let left = deadline.0.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.socket, events)], Some(&left)) {
            Ok(0) => Err(VhostError::Timeout(self.timeout)),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(VhostError::Io(errno.into())),
        }
    }
}
