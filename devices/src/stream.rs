//! A connected stream socket that nobody ever waits for, whatever the mode of its descriptor: the
//! other end of a console or of a vsock connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

/// The socket. Dropping it hangs up.
#[derive(Debug)]
pub struct Stream(OwnedFd);

/// What came of an attempt to move bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many were moved, at least one.
    Bytes(usize),
    /// None, now: the peer has sent or read nothing.
    Wait,
    /// None, ever again in this direction.
    End,
}

impl Stream {
    /// Takes a connected stream socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Reads into a buffer that is not empty.
    pub fn read(&self, bytes: &mut [u8]) -> Moved {
        loop {
            match recv(&self.0, &mut *bytes, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Moved::End,
                Ok((read, _)) => return Moved::Bytes(read.min(bytes.len())),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Moved::Wait,
                Err(_) => return Moved::End,
            }
        }
    }

    /// Writes the beginning of `bytes`, which is not empty.
    pub fn write(&self, bytes: &[u8]) -> Moved {
        loop {
            match send(&self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(written) => return Moved::Bytes(written.min(bytes.len())),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Moved::Wait,
                Err(_) => return Moved::End,
            }
        }
    }

    /// Says to the peer that nothing more will be written (`Shutdown::Write`) or read.
    pub fn shutdown(&self, how: Shutdown) {
        // Fails only if the peer is gone, which the next read or write finds out.
        let _ = shutdown(&self.0, how);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
