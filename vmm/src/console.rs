//! The serial port (16550) and the console socket behind it.
//!
//! The port sends output to the socket as soon as the guest writes it. It gathers what follows
//! within [`SETTLE_MS`] without a line end, so that a guest that prints byte by byte does not cost
//! a message and a wake-up per byte. A reader that does not keep up loses output, counted; it never
//! stops the guest.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// How long gathered output may wait for its line end.
pub const SETTLE_MS: i64 = 20;
/// Output that is kept while the reader is slow.
const MAX_PENDING_BYTES: usize = 64 << 10;
/// Gathered output that is sent without waiting for a line end.
const GATHER_BYTES: usize = 1024;

/// The guest's serial port.
pub type SerialPort = Serial<IrqLine, NoEvents, Console>;

/// Interrupt line of the serial port: an eventfd that KVM turns into an interrupt.
#[derive(Debug)]
pub struct IrqLine(pub EventFd);

impl Trigger for IrqLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Sending half of the console socket.
#[derive(Debug)]
pub struct Console {
    socket: OwnedFd,
    pending: Vec<u8>,
    dropped_bytes: u64,
    /// Output has been sent or gathered that the main thread will look after.
    settling: bool,
    /// Tells the main thread that `settling` has begun.
    wake: EventFd,
}

impl Console {
    /// A console over a stream socket; `wake` is signalled when [`Console::settle`] is to be
    /// called [`SETTLE_MS`] later.
    #[must_use]
    pub fn new(socket: OwnedFd, wake: EventFd) -> Self {
        Self { socket, pending: Vec::new(), dropped_bytes: 0, settling: false, wake }
    }

    /// Output lost so far.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Called after every batch of output: sends it, or leaves it to [`Console::settle`].
    pub fn batch_done(&mut self) {
        let line_end = self.pending.last() == Some(&b'\n');
        if !self.settling || line_end || self.pending.len() >= GATHER_BYTES {
            self.send_pending();
        }
        if !self.settling {
            self.settling = true;
            // Cannot fail: nobody lets the counter overflow.
            let _ = self.wake.write(1);
        }
    }

    /// Sends what was gathered. Returns whether it has to be called again later, because the
    /// reader is slow.
    pub fn settle(&mut self) -> bool {
        self.send_pending();
        self.settling = !self.pending.is_empty();
        self.settling
    }

    fn send_pending(&mut self) {
        while !self.pending.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.socket, &self.pending, flags) {
                Ok(sent) => drop(self.pending.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.dropped_bytes += self.pending.len() as u64;
                    self.pending.clear();
                }
            }
        }
    }
}

impl Write for Console {
    /// Takes one batch of output, or drops what does not fit.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_PENDING_BYTES.saturating_sub(self.pending.len());
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        self.pending.extend_from_slice(kept);
        self.dropped_bytes += dropped.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came of an attempt to move input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// All there was has been moved.
    Moved,
    /// The guest has not read what it got before: try again later.
    Full,
    /// The other end has closed.
    Closed,
}

/// Moves input from the console socket into the receive buffer of the serial port. Never blocks.
pub fn receive(socket: &OwnedFd, serial: &mut SerialPort) -> Input {
    let mut buffer = [0; 64];
    let room = serial.fifo_capacity().min(buffer.len());
    let Some(buffer) = buffer.get_mut(..room).filter(|b| !b.is_empty()) else {
        return Input::Full;
    };
    match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Input::Closed,
        Ok((received, _)) => {
            // The buffer has room for all of it, and a guest in loop-back mode gets nothing.
            let _ = serial.enqueue_raw_bytes(buffer.get(..received).unwrap_or_default());
            Input::Moved
        }
        Err(Errno::AGAIN | Errno::INTR) => Input::Moved,
        Err(_) => Input::Closed,
    }
}
