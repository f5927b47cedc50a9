//! Takes RTP packets off a UDP socket with the kernel's time stamps.
//!
//! The kernel stamps a packet when it comes in, so that the recorder's own scheduling does not
//! count against the sender.
#![allow(unsafe_code, reason = "recvmsg with control messages for the kernel's time stamps")]

use moirai_scheduler::{Moment, Span};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Arrival, rtp};

/// More packets than this are counted but not remembered: 64 MiB.
const REMEMBERED: usize = 4_000_000;
/// Room in the socket for packets while the recorder waits for a core.
const SOCKET_BYTES: libc::c_int = 8 << 20;

/// Why nothing can be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The address cannot be bound.
    #[error("cannot receive on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket gives no time stamps, or the thread cannot be made.
    #[error("cannot set up the recorder: {0}")]
    Setup(#[source] io::Error),
}

/// A recorder that runs until it is finished.
#[derive(Debug)]
pub struct Capture {
    end: Arc<AtomicBool>,
    packets: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Arrival>>,
}

impl Capture {
    /// Binds `address` in the calling thread's network namespace and records from then on.
    ///
    /// # Errors
    /// If the address is taken, or a socket or thread cannot be had.
    pub fn start(address: SocketAddr) -> Result<Self, CaptureError> {
        let bind = |source| CaptureError::Bind { address, source };
        let socket = UdpSocket::bind(address).map_err(bind)?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(CaptureError::Setup)?;
        option(&socket, libc::SO_TIMESTAMPNS, 1).map_err(CaptureError::Setup)?;
        // Beyond the system's limit where we may, else as much as we get.
        if option(&socket, libc::SO_RCVBUFFORCE, SOCKET_BYTES).is_err() {
            let _ = option(&socket, libc::SO_RCVBUF, SOCKET_BYTES);
        }
        let end = Arc::new(AtomicBool::new(false));
        let packets = Arc::new(AtomicU64::new(0));
        let thread = std::thread::Builder::new().name("recorder".into()).spawn({
            let (end, packets) = (Arc::clone(&end), Arc::clone(&packets));
            move || record(&socket, &end, &packets)
        });
        Ok(Self { end, packets, thread: thread.map_err(CaptureError::Setup)? })
    }

    /// Packets so far, for a progress line.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Stops and returns what came in.
    #[must_use]
    pub fn finish(self) -> Vec<Arrival> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn record(socket: &UdpSocket, end: &AtomicBool, packets: &AtomicU64) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let mut buffer = [0u8; 2048];
    while !end.load(Ordering::Relaxed) {
        let Ok((length, stamp)) = receive(socket, &mut buffer) else { continue };
        let Some(header) = buffer.get(..length).and_then(rtp::parse) else { continue };
        packets.fetch_add(1, Ordering::Relaxed);
        if arrivals.len() < REMEMBERED {
            let (sequence, timestamp) = (header.sequence, header.timestamp);
            arrivals.push(Arrival { at: to_monotonic(stamp), sequence, timestamp });
        }
    }
    arrivals
}

/// The kernel stamps in CLOCK_REALTIME; everything here is in CLOCK_MONOTONIC. Both clocks are read
/// anew for each packet, so that a step of the real time cannot shift the record.
fn to_monotonic(stamp: Option<u64>) -> Moment {
    let monotonic = moirai_runtime::now();
    let realtime = moirai_runtime::wall_clock();
    let age = stamp.map_or(0, |stamp| realtime.saturating_sub(stamp));
    monotonic.saturating_sub(Span::from_nanos(age))
}

fn nanos(seconds: i64, nanoseconds: i64) -> u64 {
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(seconds) * 1_000_000_000 + part(nanoseconds)
}

/// One datagram and its time stamp, in nanoseconds since 1970.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
    let mut control = [0u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr (no name, no buffers).
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the message leads to a live local buffer of the stated length.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled the header consistently; CMSG_FIRSTHDR checks the length.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    let stamp = first.filter(|header| {
        header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_TIMESTAMPNS
    });
    let stamp = stamp.map(|header| {
        // SAFETY: a control message of this type carries one timespec, perhaps unaligned.
        let time = unsafe { libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned() };
        nanos(time.tv_sec, time.tv_nsec)
    });
    Ok((length, stamp))
}

fn option(socket: &UdpSocket, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one live int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_recorded_with_the_time_of_their_arrival() {
        let capture = Capture::start("127.0.0.1:0".parse().unwrap());
        // Port 0 hides the port; bind a known one instead and take the next if it is in use.
        drop(capture);
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let capture = Capture::start(address).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = moirai_runtime::now();
        sender.send_to(b"no rtp", address).unwrap();
        for sequence in 0..3u8 {
            let packet = [0x80, 33, 0, sequence, 0, 0, 0, sequence, 1, 2, 3, 4];
            sender.send_to(&packet, address).unwrap();
        }
        while capture.packets() < 3 {
            std::thread::yield_now();
        }
        let arrivals = capture.finish();
        let sequences: Vec<u16> = arrivals.iter().map(|arrival| arrival.sequence).collect();
        assert_eq!(sequences, [0, 1, 2]);
        assert!(arrivals.iter().all(|a| a.at >= before && a.at <= moirai_runtime::now()));
    }
}
