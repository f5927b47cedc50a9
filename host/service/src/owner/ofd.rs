//! What is asked of the kernel: locks of open file descriptions on single bytes, and what a loop
//! device is made of.
//!
//! Such a lock belongs to the open file, not to the process, so that two volumes of one host
//! service see each other as two host services do. Only shared locks are taken, which a file that
//! was opened for reading can have; who may be there together is decided by looking.
#![allow(unsafe_code, reason = "neither has a safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

fn lock(kind: libc::c_int, byte: u64) -> io::Result<libc::flock> {
    let start = libc::off_t::try_from(byte).map_err(io::Error::other)?;
    // SAFETY: all of its fields are integers, for which zero is a value; the pid has to be zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(kind).map_err(io::Error::other)?;
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
    lock.l_start = start;
    lock.l_len = 1;
    Ok(lock)
}

/// Holds `byte`, together with others who hold it, until the file is closed.
pub(super) fn hold(file: &File, byte: u64) -> io::Result<()> {
    let lock = lock(libc::F_RDLCK, byte)?;
    // SAFETY: the kernel only reads the lock, which outlives the call; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether another open file holds `byte`.
pub(super) fn is_held(file: &File, byte: u64) -> io::Result<bool> {
    let mut lock = lock(libc::F_WRLCK, byte)?;
    // SAFETY: the kernel reads and writes the lock, which outlives the call; the descriptor is
    // open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// `LOOP_GET_STATUS64` of linux/loop.h.
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// What stands behind a loop device: device and inode number of a file, and its own device number
/// if it is a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backing {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdevice: u64,
}

/// What stands behind `file`; `None` if it is no loop device, or nothing does.
pub(super) fn backing(file: &File) -> Option<Backing> {
    // SAFETY: all of its fields are integers, for which zero is a value.
    let mut info: LoopInfo = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a `loop_info64`, which `info` is laid out as; the descriptor is
    // open. Another device does not know the number and writes nothing.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    let LoopInfo { device, inode, rdevice, .. } = info;
    (result == 0).then_some(Backing { device, inode, rdevice })
}
