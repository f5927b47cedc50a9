//! virtio-console, virtio 1.2 section 5.3: one port, a queue each way.
//!
//! Owns the output that its reader has not taken yet, [`MAX_PENDING_BYTES`] at most. A console
//! never stops its guest: it drops and counts what comes on top. Input waits in the socket until
//! the guest has a buffer for it.

use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;

use crate::fault::{Fault, readable, writable};
use crate::memory::GuestMemory;
use crate::stream::{Moved, Stream};
use crate::virtqueue;

/// Virtio device id.
pub const DEVICE_ID: u32 = 3;
/// `receiveq` and `transmitq` of port 0.
pub const QUEUES: u16 = 2;
/// Index of the queue with buffers for input.
pub const RECEIVE_QUEUE: usize = 0;
/// Index of the queue with output.
pub const TRANSMIT_QUEUE: usize = 1;
/// Bytes can be printed by writing the configuration space (5.3.3).
const VIRTIO_CONSOLE_F_EMERG_WRITE: u32 = 2;
/// The feature bits that the device offers. Nobody knows the size of what is behind the socket, so
/// no size is offered.
pub const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_CONSOLE_F_EMERG_WRITE;
/// Configuration space: columns, rows, number of ports (not offered, zero), and `emerg_wr`.
pub const CONFIG: [u8; 12] = [0; 12];
/// Offset of `emerg_wr` in the configuration space.
pub const EMERGENCY_WRITE: u64 = 8;

/// Output that is kept while the reader is slow.
pub const MAX_PENDING_BYTES: usize = 64 << 10;
/// Most input that one buffer of the guest gets.
const MAX_INPUT_BYTES: usize = 4096;

/// The device: the port and its socket.
#[derive(Debug)]
pub struct Console {
    stream: Stream,
    pending: Vec<u8>,
    dropped_bytes: u64,
    /// There may be input; cleared when the socket had none.
    readable: bool,
    /// The other end sends no more input.
    ended: bool,
}

impl Console {
    /// A console at one end of a stream socket.
    pub fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new(), dropped_bytes: 0, readable: true, ended: false }
    }

    /// The socket, to be watched for changes of what can be read and written.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Output lost so far.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// The socket has become readable or writable.
    pub fn socket_changed(&mut self) {
        self.readable = true;
        self.flush();
    }

    /// Emergency output: a byte that a driver writes into the configuration space, also before the
    /// device runs (5.3.4).
    pub fn emergency_write(&mut self, byte: u8) {
        if self.pending.len() < MAX_PENDING_BYTES {
            self.pending.push(byte);
        } else {
            self.dropped_bytes += 1;
        }
        self.flush();
    }

    /// Takes the next chain of the transmit queue, if there is one. Call [`Console::flush`] after a
    /// batch.
    ///
    /// # Errors
    /// The driver has broken a rule.
    pub fn transmit(&mut self, mem: &Arc<GuestMemory>, queue: &mut Queue) -> Result<bool, Fault> {
        let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else { return Ok(false) };
        let descriptors = readable(&chain, 0, u64::MAX)?;
        if self.pending.len() >= MAX_PENDING_BYTES {
            self.flush();
        }
        let room = MAX_PENDING_BYTES.saturating_sub(self.pending.len());
        let kept = virtqueue::buffers(mem, descriptors, 0, room as u64)?;
        let start = self.pending.len();
        let end = start + usize::try_from(kept.len_bytes()).unwrap_or(0);
        self.pending.resize(end, 0);
        kept.copy_to(self.pending.get_mut(start..).unwrap_or_default());
        self.dropped_bytes += virtqueue::len_bytes(descriptors).saturating_sub(kept.len_bytes());
        virtqueue::add_used(mem, queue, chain.head, 0)?;
        Ok(true)
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() {
            match self.stream.write(&self.pending) {
                Moved::Bytes(sent) => drop(self.pending.drain(..sent)),
                Moved::Wait => return,
                Moved::End => {
                    self.dropped_bytes += self.pending.len() as u64;
                    self.pending.clear();
                }
            }
        }
    }

    /// Moves input into the next buffer of the receive queue. Returns whether it did: there was
    /// input, and a buffer.
    ///
    /// # Errors
    /// The driver has broken a rule.
    pub fn receive(&mut self, mem: &Arc<GuestMemory>, queue: &mut Queue) -> Result<bool, Fault> {
        if !self.readable || self.ended {
            return Ok(false);
        }
        let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else { return Ok(false) };
        let target = virtqueue::buffers(mem, writable(&chain, 1)?, 0, MAX_INPUT_BYTES as u64)?;
        let mut input = [0; MAX_INPUT_BYTES];
        let room = usize::try_from(target.len_bytes()).unwrap_or(MAX_INPUT_BYTES);
        match self.stream.read(input.get_mut(..room).unwrap_or_default()) {
            Moved::Bytes(read) => {
                let written = target.copy_from(input.get(..read).unwrap_or_default());
                let written = u32::try_from(written).unwrap_or(u32::MAX);
                virtqueue::add_used(mem, queue, chain.head, written)?;
                return Ok(true);
            }
            Moved::Wait => self.readable = false,
            Moved::End => self.ended = true,
        }
        virtqueue::put_back(queue, 1);
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
