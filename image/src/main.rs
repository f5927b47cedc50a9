//! `moirai-image`: the process of one qcow2 image. The host service starts it with a socket as
//! descriptor 3 and sends the rest over that.
#![allow(unsafe_code, reason = "a descriptor that was inherited has to be taken by its number")]

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use moirai_image::{confine, serve};
use moirai_image_wire::CONTROL_FD;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

fn main() -> ExitCode {
    // SAFETY: nothing has been opened or closed yet, so the number means the same all the while; if
    // it is not open, asking for its type fails.
    let inherited = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
    if !matches!(socket_type(inherited), Ok(SocketType::SEQPACKET)) {
        eprintln!("moirai-image: descriptor 3 is no socket: the host service starts this process");
        return ExitCode::FAILURE;
    }
    // SAFETY: it is open, and ours by the contract of the host service; nobody else in this process
    // uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    moirai_sandbox::close_inherited(CONTROL_FD.unsigned_abs() + 1);
    match serve(socket, confine::confine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moirai-image: {error}");
            ExitCode::FAILURE
        }
    }
}
