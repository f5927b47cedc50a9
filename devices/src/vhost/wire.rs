//! Messages on the socket. A message is a 12-byte header (request, flags, size), `size` bytes of
//! payload, and file descriptors beside its first byte.
//!
//! Never blocks and never reads beyond one message, so descriptors are always attributed to the
//! message they came with. Holds at most one message: 4 KiB and 32 descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use vhost::vhost_user::message::{FrontendReq, MAX_ATTACHED_FD_ENTRIES, MAX_MSG_SIZE};
use vm_memory::ByteValued;

use super::SessionError;
use super::eventfd::is_harmless;

const HEADER_LEN: usize = 12;
const VERSION_MASK: u32 = 0x3;
const VERSION: u32 = 0x1;
const REPLY: u32 = 0x4;
const NEED_REPLY: u32 = 0x8;

/// One whole message.
#[derive(Debug)]
pub(super) struct Message {
    /// Number of the request; may be one that nobody knows.
    pub(super) request: u32,
    /// Whether the sender wants an acknowledgement.
    pub(super) need_reply: bool,
    payload: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Message {
    /// The request, if it is one of the specification.
    pub(super) fn code(&self) -> Option<FrontendReq> {
        FrontendReq::try_from(self.request).ok()
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn expect_size(&self, expected: usize) -> Result<(), SessionError> {
        let got = self.payload.len();
        if got == expected {
            return Ok(());
        }
        Err(SessionError::WrongSize { request: self.request, got, expected })
    }

    /// The payload as a `T`, which has to be packed (alignment 1).
    pub(super) fn body<T: ByteValued>(&self) -> Result<T, SessionError> {
        self.expect_size(size_of::<T>())?;
        self.head::<T>().map(|(value, _)| value)
    }

    /// A `T` at the start of the payload, and what follows it.
    pub(super) fn head<T: ByteValued>(&self) -> Result<(T, &[u8]), SessionError> {
        let expected = size_of::<T>();
        let short =
            SessionError::WrongSize { request: self.request, got: self.payload.len(), expected };
        let Some((head, rest)) = self.payload.split_at_checked(expected) else {
            return Err(short);
        };
        T::from_slice(head).map(|value| (*value, rest)).ok_or(short)
    }

    /// The payload as a number.
    pub(super) fn u64(&self) -> Result<u64, SessionError> {
        self.expect_size(8)?;
        Ok(self.payload.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Requires that there is no payload.
    pub(super) fn empty(&self) -> Result<(), SessionError> {
        self.expect_size(0)
    }

    /// The descriptors, of which there have to be `expected`.
    pub(super) fn take_files(&mut self, expected: usize) -> Result<Vec<OwnedFd>, SessionError> {
        let got = self.files.len();
        if got != expected {
            return Err(SessionError::WrongFiles { request: self.request, got, expected });
        }
        Ok(std::mem::take(&mut self.files))
    }
}

/// What [`Receiver::receive`] found.
#[derive(Debug)]
pub(super) enum Received {
    Message(Message),
    /// Nothing more for now; a part of a message is kept.
    Nothing,
    /// The peer has closed its end.
    Closed,
}

/// The message that is being received.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
    /// Files of which nobody knows how long it takes to close them.
    strange: Vec<OwnedFd>,
}

impl Receiver {
    /// What came and is neither memory nor an eventfd, to be closed where there is time to wait.
    pub(super) fn take_strange(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.strange)
    }

    /// Reads until one message is complete or the socket is empty.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<Received, SessionError> {
        loop {
            let wanted = match self.header()? {
                None => HEADER_LEN,
                Some((request, flags, size)) if self.bytes.len() == HEADER_LEN + size => {
                    let payload = self.bytes.split_off(HEADER_LEN);
                    self.bytes.clear();
                    return Ok(Received::Message(Message {
                        request,
                        need_reply: flags & NEED_REPLY != 0,
                        payload,
                        files: std::mem::take(&mut self.files),
                    }));
                }
                Some((_, _, size)) => HEADER_LEN + size,
            };
            match self.read(socket, wanted - self.bytes.len()) {
                Ok(0) => return Ok(Received::Closed),
                Ok(_) => {}
                Err(ReadError::Errno(Errno::INTR)) => {}
                Err(ReadError::Errno(Errno::AGAIN)) => return Ok(Received::Nothing),
                Err(ReadError::Errno(Errno::CONNRESET)) => return Ok(Received::Closed),
                Err(ReadError::Errno(errno)) => return Err(SessionError::Socket(errno.into())),
                Err(ReadError::TooManyFiles) => return Err(SessionError::TooManyFiles),
                Err(ReadError::StrangeFile) => return Err(SessionError::StrangeFile),
            }
        }
    }

    /// The header once its 12 bytes are there: request, flags, size. Bad ones end the session
    /// before a byte of their payload is waited for.
    fn header(&self) -> Result<Option<(u32, u32, usize)>, SessionError> {
        let Some(header) = self.bytes.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *header;
        let request = u32::from_ne_bytes([a, b, c, d]);
        let flags = u32::from_ne_bytes([e, f, g, h]);
        let size = u32::from_ne_bytes([i, j, k, l]);
        if flags & VERSION_MASK != VERSION || flags & !(VERSION_MASK | NEED_REPLY) != 0 {
            return Err(SessionError::BadHeader { request, flags });
        }
        match usize::try_from(size) {
            Ok(size) if size <= MAX_MSG_SIZE => Ok(Some((request, flags, size))),
            _ => Err(SessionError::TooLong { request, size }),
        }
    }

    fn read(&mut self, socket: BorrowedFd<'_>, wanted: usize) -> Result<usize, ReadError> {
        let mut chunk = [0; HEADER_LEN + MAX_MSG_SIZE];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_ATTACHED_FD_ENTRIES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let wanted = wanted.min(chunk.len());
        let received = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut chunk[..wanted])],
            &mut control,
            RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                let (known, strange): (Vec<_>, Vec<_>) = files.partition(is_harmless);
                self.files.extend(known);
                self.strange.extend(strange);
            }
        }
        if !self.strange.is_empty() {
            return Err(ReadError::StrangeFile);
        }
        if received.flags.contains(ReturnFlags::CTRUNC)
            || self.files.len() > MAX_ATTACHED_FD_ENTRIES
        {
            return Err(ReadError::TooManyFiles);
        }
        self.bytes.extend(chunk.iter().take(received.bytes));
        Ok(received.bytes)
    }
}

enum ReadError {
    Errno(Errno),
    TooManyFiles,
    StrangeFile,
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// Sends a reply in one piece. A frontend has at most one reply outstanding, so a full socket means
/// that the peer does not read, and we do not wait for it.
pub(super) fn reply(
    socket: BorrowedFd<'_>,
    request: u32,
    payload: &[u8],
) -> Result<(), SessionError> {
    reply_with(socket, request, payload, &[])
}

/// The same, with descriptors; at most one.
pub(super) fn reply_with(
    socket: BorrowedFd<'_>,
    request: u32,
    payload: &[u8],
    files: &[BorrowedFd<'_>],
) -> Result<(), SessionError> {
    let mut header = [0; HEADER_LEN];
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let words = [request, VERSION | REPLY, size];
    for (bytes, word) in header.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let pieces = [IoSlice::new(&header), IoSlice::new(payload)];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(SessionError::TooManyFiles);
    }
    match sendmsg(socket, &pieces, &mut control, flags) {
        Ok(sent) if sent == HEADER_LEN + payload.len() => Ok(()),
        Ok(_) | Err(Errno::AGAIN) => Err(SessionError::RepliesNotRead),
        Err(errno) => Err(SessionError::Socket(errno.into())),
    }
}
