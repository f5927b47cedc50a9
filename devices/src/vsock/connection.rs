//! One stream: what waits on its way to the host, and what the guest may still be sent.
//!
//! Both directions are accounted in bytes modulo 2^32 (virtio 1.2, 5.10.6.3). The guest's numbers
//! are taken as they come: a guest that lies about its buffer harms its own stream.

use std::collections::VecDeque;

use rustix::net::Shutdown;

use super::packet::{Header, NO_RECEIVE, NO_SEND, Op};
use super::{BUFFER_BYTES, MAX_PAYLOAD_BYTES};
use crate::stream::{Moved, Stream};

/// The two ports of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The guest has asked for a port of the host, where somebody looks for a listener.
    Opening,
    /// A client of the host has asked for a port of the guest. Whether the guest was told.
    Connecting { told: bool },
    /// Both sides are there. Whether the guest, if it has asked, was told.
    Established { told: bool },
    /// The guest has closed; what it has sent before is still being delivered.
    Lingering,
}

/// What becomes of a stream after something has happened.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// It ends, and the guest gets a reset: it has closed in order or broken a rule, or the client
    /// has gone before the guest has answered.
    Reset,
    /// It ends, and the guest need not know.
    Done,
}

/// A packet for the guest, without what all headers of a stream share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) op: Op,
    pub(super) flags: u32,
    /// Bytes of payload.
    pub(super) len: usize,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ports: Ports,
    state: State,
    stream: Option<Stream>,
    /// The socket may have something to read; cleared when it had not.
    readable: bool,
    /// What the host has not taken yet, at most [`BUFFER_BYTES`].
    buffer: VecDeque<u8>,
    /// Bytes taken by the host, and what the guest knows of that.
    forwarded: u32,
    told_forwarded: u32,
    /// Bytes that the guest has sent.
    received: u32,
    /// The guest has asked for an update.
    update_due: bool,
    /// Bytes sent to the guest, its buffer, and what it has taken out of it.
    sent: u32,
    peer_alloc: u32,
    peer_forwarded: u32,
    /// The guest was asked for credit since there was any.
    credit_asked: bool,
    /// What the guest and what the host will not do any more; what the guest knows of the latter.
    guest_shut: u32,
    host_shut: u32,
    told_shut: u32,
    /// It waits in the queue of streams with output.
    pub(super) queued: bool,
}

impl Connection {
    fn new(ports: Ports, state: State, stream: Option<Stream>) -> Self {
        Self {
            ports,
            state,
            stream,
            readable: true,
            buffer: VecDeque::new(),
            forwarded: 0,
            told_forwarded: 0,
            received: 0,
            update_due: false,
            sent: 0,
            peer_alloc: 0,
            peer_forwarded: 0,
            credit_asked: false,
            guest_shut: 0,
            host_shut: 0,
            told_shut: 0,
            queued: false,
        }
    }

    /// A client of the host wants to talk to the guest.
    pub(super) fn from_host(ports: Ports, stream: Stream) -> Self {
        Self::new(ports, State::Connecting { told: false }, Some(stream))
    }

    /// The guest wants to talk to the host.
    pub(super) fn from_guest(ports: Ports, request: &Header) -> Self {
        let mut connection = Self::new(ports, State::Opening, None);
        connection.take_credit(request);
        connection
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// The host has a listener for the guest. `false` if the stream does not wait for one.
    pub(super) fn open(&mut self, stream: Stream) -> bool {
        let opening = self.state == State::Opening;
        if opening {
            (self.state, self.stream) = (State::Established { told: false }, Some(stream));
        }
        opening
    }

    /// A packet of the guest; `payload` belongs to [`Op::Data`].
    pub(super) fn take(&mut self, header: &Header, payload: &[u8]) -> Verdict {
        self.take_credit(header);
        match (self.state, header.op) {
            (State::Connecting { told: true }, Some(Op::Response)) => return self.accepted(),
            (State::Established { told: true }, Some(Op::Data)) => return self.deliver(payload),
            (State::Established { told: true }, Some(Op::CreditUpdate)) => {}
            (State::Established { told: true }, Some(Op::CreditRequest)) => self.update_due = true,
            (State::Established { told: true }, Some(Op::Shutdown)) => {
                return self.shut(header.flags);
            }
            _ => return Verdict::Reset,
        }
        Verdict::Keep
    }

    fn take_credit(&mut self, header: &Header) {
        (self.peer_alloc, self.peer_forwarded) = (header.buf_alloc, header.fwd_cnt);
        if self.credit() > 0 {
            self.credit_asked = false;
        }
    }

    /// Bytes that the guest has room for.
    fn credit(&self) -> usize {
        let in_flight = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_alloc.saturating_sub(in_flight) as usize
    }

    /// The guest has accepted: the client may know.
    fn accepted(&mut self) -> Verdict {
        self.state = State::Established { told: true };
        let greeting = format!("OK {}\n", self.ports.host);
        // It fits into a socket that nothing was written to yet, or the client is gone.
        match self.stream.as_ref().map(|stream| stream.write(greeting.as_bytes())) {
            Some(Moved::Bytes(len)) if len == greeting.len() => Verdict::Keep,
            _ => Verdict::Reset,
        }
    }

    fn deliver(&mut self, payload: &[u8]) -> Verdict {
        let room = (BUFFER_BYTES as usize).saturating_sub(self.buffer.len());
        if payload.len() > room || self.guest_shut & NO_SEND != 0 {
            return Verdict::Reset;
        }
        self.received = self.received.wrapping_add(count(payload.len()));
        if self.host_shut & NO_RECEIVE != 0 {
            self.forwarded = self.received;
            return Verdict::Keep;
        }
        let mut rest = payload;
        while self.buffer.is_empty() && !rest.is_empty() {
            match self.write(rest) {
                Moved::Bytes(len) => rest = rest.get(len..).unwrap_or_default(),
                Moved::Wait => break,
                Moved::End => return Verdict::Keep,
            }
        }
        self.buffer.extend(rest);
        Verdict::Keep
    }

    fn write(&mut self, bytes: &[u8]) -> Moved {
        let moved = self.stream.as_ref().map_or(Moved::End, |stream| stream.write(bytes));
        match moved {
            Moved::Bytes(len) => self.forwarded = self.forwarded.wrapping_add(count(len)),
            Moved::Wait => {}
            Moved::End => self.host_reads_no_more(),
        }
        moved
    }

    fn host_reads_no_more(&mut self) {
        self.host_shut |= NO_RECEIVE;
        self.buffer = VecDeque::new();
        self.forwarded = self.received;
    }

    /// Delivers what waits.
    fn flush(&mut self) {
        while !self.buffer.is_empty() {
            let bytes = std::mem::take(&mut self.buffer);
            let moved = self.write(bytes.as_slices().0);
            match moved {
                Moved::Bytes(len) => {
                    self.buffer = bytes;
                    self.buffer.drain(..len);
                }
                Moved::Wait => {
                    self.buffer = bytes;
                    return;
                }
                Moved::End => {}
            }
        }
        // An idle stream holds no memory.
        self.buffer = VecDeque::new();
        if self.guest_shut & NO_SEND != 0
            && let Some(stream) = &self.stream
        {
            stream.shutdown(Shutdown::Write);
        }
    }

    fn shut(&mut self, flags: u32) -> Verdict {
        self.guest_shut |= flags & (NO_RECEIVE | NO_SEND);
        if self.guest_shut == NO_RECEIVE | NO_SEND {
            return Verdict::Reset;
        }
        if self.guest_shut & NO_RECEIVE != 0
            && let Some(stream) = &self.stream
        {
            stream.shutdown(Shutdown::Read);
        }
        self.flush();
        Verdict::Keep
    }

    /// The guest has forgotten the stream. Returns whether it has something left to deliver.
    pub(super) fn linger(&mut self) -> bool {
        self.state = State::Lingering;
        self.guest_shut = NO_RECEIVE | NO_SEND;
        self.flush();
        !self.buffer.is_empty()
    }

    /// The socket has changed. `hung_up`: its other end is gone.
    pub(super) fn socket_changed(&mut self, hung_up: bool) -> Verdict {
        self.readable = true;
        if hung_up {
            self.host_reads_no_more();
        }
        self.flush();
        match self.state {
            State::Lingering if self.buffer.is_empty() => Verdict::Done,
            State::Connecting { told: true } if hung_up => Verdict::Reset,
            State::Connecting { told: false } if hung_up => Verdict::Done,
            _ => Verdict::Keep,
        }
    }

    /// Whether [`Connection::next_output`] has something, as far as that is known.
    pub(super) fn has_output(&self) -> bool {
        match self.state {
            State::Connecting { told } | State::Established { told } if !told => true,
            State::Established { .. } => {
                self.shutdown_due() || self.update_due() || (self.may_read() && !self.credit_asked)
            }
            _ => false,
        }
    }

    fn shutdown_due(&self) -> bool {
        self.host_shut & !self.told_shut != 0
    }

    /// Whether the guest believes that less than half of the buffer is free, and is wrong.
    fn update_due(&self) -> bool {
        let believed = self.received.wrapping_sub(self.told_forwarded);
        self.update_due || (believed > BUFFER_BYTES / 2 && self.forwarded != self.told_forwarded)
    }

    fn may_read(&self) -> bool {
        self.readable && self.host_shut & NO_SEND == 0 && self.guest_shut & NO_RECEIVE == 0
    }

    /// The next packet for the guest, with at most `payload.len()` bytes of payload.
    pub(super) fn next_output(&mut self, payload: &mut [u8]) -> Option<Output> {
        let plain = |op| Some(Output { op, flags: 0, len: 0 });
        match &mut self.state {
            State::Connecting { told } if !*told => {
                *told = true;
                return plain(Op::Request);
            }
            State::Established { told } if !*told => {
                *told = true;
                return plain(Op::Response);
            }
            State::Established { .. } => {}
            _ => return None,
        }
        if self.may_read() {
            let credit = self.credit();
            if credit > 0 {
                if let Some(len) = self.read(credit, payload) {
                    return Some(Output { op: Op::Data, flags: 0, len });
                }
            } else if !std::mem::replace(&mut self.credit_asked, true) {
                return plain(Op::CreditRequest);
            }
        }
        if self.shutdown_due() {
            self.told_shut = self.host_shut;
            if self.host_shut == NO_RECEIVE | NO_SEND {
                // Nothing goes either way any more; the guest will confirm.
                self.stream = None;
            }
            return Some(Output { op: Op::Shutdown, flags: self.host_shut, len: 0 });
        }
        self.update_due().then_some(Output { op: Op::CreditUpdate, flags: 0, len: 0 })
    }

    fn read(&mut self, credit: usize, payload: &mut [u8]) -> Option<usize> {
        let room = payload.len().min(credit).min(MAX_PAYLOAD_BYTES);
        let payload = payload.get_mut(..room).filter(|room| !room.is_empty())?;
        match self.stream.as_ref().map_or(Moved::End, |stream| stream.read(payload)) {
            Moved::Bytes(len) => {
                self.sent = self.sent.wrapping_add(count(len));
                return Some(len);
            }
            Moved::Wait => self.readable = false,
            Moved::End => self.host_shut |= NO_SEND,
        }
        None
    }

    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The guest is about to be told: returns size and count for a header.
    pub(super) fn tell_credit(&mut self) -> (u32, u32) {
        self.update_due = false;
        self.told_forwarded = self.forwarded;
        (BUFFER_BYTES, self.forwarded)
    }
}

/// A length as the credit counters have it: modulo 2^32.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
