//! A TAP interface: the kernel end of a link.
#![allow(unsafe_code, reason = "ioctls of the TUN driver, and writev of guest memory")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::io::Errno;
use smallvec::SmallVec;

use super::Link;
use crate::memory::Segment;
use crate::net::tx::TxPacket;
use crate::net::{Offload, VNET_HEADER_LEN};

/// Why a TAP cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Another process holds it.
    #[error("TAP {0} is taken by another process; stop that process or choose another name")]
    Taken(String),
    /// No CAP_NET_ADMIN in this network namespace.
    #[error("no right to make TAP {0}; grant CAP_NET_ADMIN or run as root")]
    Forbidden(String),
    /// An interface of that name exists and is no TAP, or is one of another kind.
    #[error("interface {0} exists and is no single-queue TAP; choose another name")]
    NotATap(String),
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
    file: File,
    name: String,
    offload: Offload,
}

impl Tap {
    /// Creates the interface in the calling thread's network namespace, or attaches to the one of
    /// that name. Packets carry a 12-byte vnet header. What `wanted` says and the kernel knows may
    /// be left undone in them, see [`Tap::offload`]. The interface is not brought up and has no
    /// address: that is its owner's job.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn open(name: &str, wanted: Offload) -> Result<Self, TapError> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(TapError::NoTun)?;
        set_interface(&file, name)?;
        let mut tap = Self { file, name: name.to_owned(), offload: wanted };
        tap.set_header_size()?;
        // Linux before 6.2 does not know UDP segmentation.
        let weaker = [Offload::TcpAndUdp, Offload::Tcp, Offload::Checksum];
        let mut levels = weaker.into_iter().filter(|level| *level <= wanted);
        let accepted = levels.find(|level| tap.set_offload(*level).is_ok());
        tap.offload = accepted.unwrap_or(Offload::None);
        if accepted.is_none() {
            tap.set_offload(Offload::None)?;
        }
        Ok(tap)
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of the interface itself, which is the host's on this link.
    pub fn hardware_address(&self) -> Option<[u8; 6]> {
        // SAFETY: `ifreq` is plain data of the kernel's interface, for which all zeros is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: SIOCGIFHWADDR writes one `ifreq` at the given address, which `request` is.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) };
        // SAFETY: the kernel has filled in the address, or left the zeros, which are one too.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut mac = [0; 6];
        mac.iter_mut().zip(address.sa_data).for_each(|(to, from)| *to = from.cast_unsigned());
        (result >= 0).then_some(mac)
    }

    fn set_header_size(&self) -> Result<(), TapError> {
        let size = libc::c_int::try_from(VNET_HEADER_LEN).unwrap_or(libc::c_int::MAX);
        // SAFETY: TUNSETVNETHDRSZ reads one int, which `size` is, at the given address.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &size) };
        self.check(result, "set the size of the vnet header")
    }

    fn set_offload(&self, offload: Offload) -> Result<(), TapError> {
        let tcp = libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        let bits = match offload {
            Offload::None => 0,
            Offload::Checksum => libc::TUN_F_CSUM,
            Offload::Tcp => libc::TUN_F_CSUM | tcp,
            Offload::TcpAndUdp => libc::TUN_F_CSUM | tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6,
        };
        let bits = libc::c_ulong::from(bits);
        // SAFETY: TUNSETOFFLOAD takes its argument by value and accesses no memory of ours.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, bits) };
        self.check(result, "set the offloads")
    }

    fn check(&self, result: libc::c_int, what: &'static str) -> Result<(), TapError> {
        if result >= 0 {
            return Ok(());
        }
        Err(TapError::Io { name: self.name.clone(), what, source: io::Error::last_os_error() })
    }
}

/// Ties the file to the interface of that name, which is made if there is none.
fn set_interface(file: &File, name: &str) -> Result<(), TapError> {
    let bad_name = || TapError::BadName(name.to_owned());
    let usable = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%';
    if name.is_empty() || name == "." || name == ".." || !name.bytes().all(usable) {
        return Err(bad_name());
    }
    // SAFETY: `ifreq` is plain data of the kernel's interface, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the kernel wants the name terminated.
    if name.len() >= request.ifr_name.len() {
        return Err(bad_name());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or(libc::c_short::MAX);
    // SAFETY: TUNSETIFF reads and writes one `ifreq` at the given address, which `request` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if result >= 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    let name = name.to_owned();
    Err(match source.raw_os_error() {
        Some(libc::EBUSY) => TapError::Taken(name),
        Some(libc::EPERM | libc::EACCES) => TapError::Forbidden(name),
        Some(libc::EINVAL | libc::EEXIST) => TapError::NotATap(name),
        _ => TapError::Io { name, what: "create or attach", source },
    })
}

impl Link for Tap {
    fn send(&mut self, packet: &TxPacket) -> io::Result<bool> {
        let head = Segment { addr: packet.head.as_ptr() as usize, len: packet.head.len() };
        let mut list: SmallVec<[Segment; 8]> = SmallVec::new();
        list.push(head);
        list.extend_from_slice(packet.payload.segments());
        let count = libc::c_int::try_from(list.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `writev` reads `count` iovecs at the given address and the memory that they name.
        // `Segment` has the layout of `iovec`; the first names `packet.head`, which outlives the
        // call, the others lie in the guest memory that `packet.payload` keeps mapped.
        let sent = unsafe { libc::writev(self.file.as_raw_fd(), list.as_ptr().cast(), count) };
        if sent >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.file, buffer) {
            Ok(len) => Ok(Some(len)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn offload(&self) -> Offload {
        self.offload
    }

    fn bell(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
