//! All streams of a guest, and the two queues that carry them.
//!
//! Streams with something to say take turns, a packet each. Resets, for streams that are no more,
//! go first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use virtio_queue::Queue;

use super::connection::{Connection, Ports, Verdict};
use super::packet::{HEADER_BYTES, Header, Op, STREAM};
use super::{HOST_CID, MAX_CONNECTIONS, MAX_PAYLOAD_BYTES, MAX_RESETS};
use crate::fault::{Fault, readable, writable};
use crate::memory::GuestMemory;
use crate::stream::Stream;
use crate::virtqueue;

/// Names a stream, as long as the device lives.
pub type Id = u64;

/// First and last port of the host that clients get.
const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = (1 << 31) - 1;

/// The streams of one guest.
#[derive(Debug)]
pub struct Mux {
    guest_cid: u64,
    connections: HashMap<Id, Connection>,
    /// Streams that the guest knows of, or will.
    by_ports: HashMap<Ports, Id>,
    resets: VecDeque<Header>,
    /// Streams that may have something for the guest.
    waiting: VecDeque<Id>,
    next_id: Id,
    next_port: u32,
    /// A payload on its way.
    scratch: Box<[u8]>,
}

impl Mux {
    /// No streams.
    pub fn new(guest_cid: u32) -> Self {
        Self {
            guest_cid: guest_cid.into(),
            connections: HashMap::new(),
            by_ports: HashMap::new(),
            resets: VecDeque::new(),
            waiting: VecDeque::new(),
            next_id: 0,
            next_port: FIRST_PORT,
            scratch: vec![0; MAX_PAYLOAD_BYTES].into(),
        }
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// The socket of a stream: watch it for changes once the stream has one.
    pub fn stream(&self, id: Id) -> Option<&Stream> {
        self.connections.get(&id)?.stream()
    }

    /// A client of the host wants `port` of the guest. `None` if there are too many streams; the
    /// client is hung up on.
    pub fn connect(&mut self, port: u32, stream: Stream) -> Option<Id> {
        let ports = Ports { host: self.free_port(port)?, guest: port };
        self.add(Connection::from_host(ports, stream))
    }

    /// Somebody listens for the guest (`Some`), or nobody. Returns whether the stream has a socket
    /// now; a guest that has given up meanwhile is no error.
    pub fn opened(&mut self, id: Id, stream: Option<Stream>) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let opened = match stream {
            Some(stream) => connection.open(stream),
            // Only a stream that has no socket can be told that it gets none.
            None if connection.stream().is_none() => {
                self.end(id);
                false
            }
            None => false,
        };
        self.enqueue(id);
        opened
    }

    /// Nobody is there any more who could open sockets: streams that wait for one are refused.
    pub fn refuse_opening(&mut self) {
        let waits = |connection: &Connection| connection.stream().is_none();
        let waiting = self.connections.iter().filter(|(_, connection)| waits(connection));
        let ids: Vec<Id> = waiting.map(|(id, _)| *id).collect();
        for id in ids {
            self.opened(id, None);
        }
    }

    /// The socket of a stream has become readable or writable, or `hung_up`.
    pub fn socket_changed(&mut self, id: Id, hung_up: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match connection.socket_changed(hung_up) {
            Verdict::Keep => self.enqueue(id),
            Verdict::Reset => self.end(id),
            Verdict::Done => self.remove(id),
        }
    }

    /// The device was reset: all streams are gone.
    pub fn reset(&mut self) {
        self.connections = HashMap::new();
        self.by_ports = HashMap::new();
        self.resets = VecDeque::new();
        self.waiting = VecDeque::new();
    }

    /// Takes the next packet of the guest. `open` looks for a listener on a port of the host and
    /// answers with [`Mux::opened`] later, or returns `false`. Returns whether there was a packet,
    /// and room for the answer that it may need.
    ///
    /// # Errors
    /// The driver has broken a rule.
    pub fn transmit(
        &mut self,
        mem: &Arc<GuestMemory>,
        queue: &mut Queue,
        open: impl FnOnce(Id, u32) -> bool,
    ) -> Result<bool, Fault> {
        if self.resets.len() >= MAX_RESETS {
            return Ok(false);
        }
        let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else { return Ok(false) };
        let descriptors = readable(&chain, HEADER_BYTES as u64, u64::MAX)?;
        let mut head = [0; HEADER_BYTES];
        virtqueue::buffers(mem, descriptors, 0, HEADER_BYTES as u64)?.copy_to(&mut head);
        let header = Header::parse(&head);
        let (len_bytes, len) = (virtqueue::len_bytes(descriptors), u64::from(header.len_bytes));
        let least = HEADER_BYTES as u64 + len;
        if len > MAX_PAYLOAD_BYTES as u64 || len_bytes < least {
            let most = (HEADER_BYTES + MAX_PAYLOAD_BYTES) as u64;
            return Err(Fault::Length { head: chain.head, len_bytes, least, most });
        }
        let data = virtqueue::buffers(mem, descriptors, HEADER_BYTES as u64, len)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let copied = data.copy_to(&mut scratch);
        self.take(&header, scratch.get(..copied).unwrap_or_default(), open);
        self.scratch = scratch;
        virtqueue::add_used(mem, queue, chain.head, 0)?;
        Ok(true)
    }

    fn take(&mut self, header: &Header, payload: &[u8], open: impl FnOnce(Id, u32) -> bool) {
        if header.src_cid != self.guest_cid {
            // Whoever is meant to have sent this has not.
            return;
        }
        let known = header.dst_cid == HOST_CID && header.socket_type == STREAM;
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let id = self.by_ports.get(&ports).copied().filter(|_| known);
        match (header.op, id) {
            (Some(Op::Reset), Some(id)) => self.remove(id),
            (Some(Op::Reset), None) => {}
            (Some(Op::Request), None) if known => {
                let id = self.add(Connection::from_guest(ports, header));
                match id.filter(|id| !open(*id, ports.host)) {
                    Some(id) => self.end(id),
                    None if id.is_none() => self.send_reset(ports, header.socket_type),
                    None => {}
                }
            }
            (_, Some(id)) => {
                let verdict = self.connections.get_mut(&id).map(|it| it.take(header, payload));
                match verdict {
                    Some(Verdict::Keep) => self.enqueue(id),
                    Some(Verdict::Reset) => self.end(id),
                    Some(Verdict::Done) | None => self.remove(id),
                }
            }
            (_, None) => self.send_reset(ports, header.socket_type),
        }
    }

    /// Puts the next packet for the guest into a buffer. Returns whether there was a packet, and a
    /// buffer.
    ///
    /// # Errors
    /// The driver has broken a rule.
    pub fn receive(&mut self, mem: &Arc<GuestMemory>, queue: &mut Queue) -> Result<bool, Fault> {
        if self.resets.is_empty() && self.waiting.is_empty() {
            return Ok(false);
        }
        let Some(chain) = virtqueue::next_chain(mem, queue, 0)? else { return Ok(false) };
        let descriptors = writable(&chain, HEADER_BYTES as u64 + 1)?;
        let most = (HEADER_BYTES + MAX_PAYLOAD_BYTES) as u64;
        let target = virtqueue::buffers(mem, descriptors, 0, most)?;
        let room = usize::try_from(target.len_bytes()).unwrap_or(0).saturating_sub(HEADER_BYTES);
        let mut scratch = std::mem::take(&mut self.scratch);
        let packet = self.next_packet(scratch.get_mut(..room).unwrap_or_default());
        if let Some(header) = packet {
            target.copy_from(&header.to_bytes());
            let len = usize::try_from(header.len_bytes).unwrap_or(0);
            let payload = scratch.get(..len).unwrap_or_default();
            target.slice(HEADER_BYTES as u64, u64::MAX).copy_from(payload);
        }
        self.scratch = scratch;
        match packet {
            Some(header) => {
                let head_bytes = u32::try_from(HEADER_BYTES).unwrap_or(0);
                virtqueue::add_used(mem, queue, chain.head, head_bytes + header.len_bytes)?;
            }
            None => virtqueue::put_back(queue, 1),
        }
        Ok(packet.is_some())
    }

    fn next_packet(&mut self, payload: &mut [u8]) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        while let Some(id) = self.waiting.pop_front() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.queued = false;
            let Some(output) = connection.next_output(payload) else { continue };
            let ports = connection.ports;
            let (buf_alloc, fwd_cnt) = connection.tell_credit();
            self.enqueue(id);
            return Some(Header {
                len_bytes: u32::try_from(output.len).unwrap_or(0),
                flags: output.flags,
                buf_alloc,
                fwd_cnt,
                ..self.header(ports, STREAM, output.op)
            });
        }
        None
    }

    fn header(&self, ports: Ports, socket_type: u16, op: Op) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len_bytes: 0,
            socket_type,
            op: Some(op),
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }

    fn free_port(&mut self, guest: u32) -> Option<u32> {
        for _ in 0..=MAX_CONNECTIONS {
            let host = self.next_port;
            self.next_port = if host >= LAST_PORT { FIRST_PORT } else { host + 1 };
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return Some(host);
            }
        }
        None
    }

    fn add(&mut self, connection: Connection) -> Option<Id> {
        if self.connections.len() >= MAX_CONNECTIONS {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_ports.insert(connection.ports, id);
        self.connections.insert(id, connection);
        self.enqueue(id);
        Some(id)
    }

    fn enqueue(&mut self, id: Id) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.queued
            && connection.has_output()
        {
            connection.queued = true;
            self.waiting.push_back(id);
        }
    }

    /// The guest's side of a stream ends with a reset; what the guest has sent is still delivered.
    fn end(&mut self, id: Id) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (ports, lingers) = (connection.ports, connection.linger());
        self.forget(id);
        if !lingers {
            self.connections.remove(&id);
        }
        self.send_reset(ports, STREAM);
    }

    fn remove(&mut self, id: Id) {
        self.forget(id);
        self.connections.remove(&id);
    }

    /// The guest has nothing to do with the stream any more.
    fn forget(&mut self, id: Id) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if std::mem::take(&mut connection.queued) {
            self.waiting.retain(|waiting| *waiting != id);
        }
        // The ports of a stream that lingers may belong to another by now.
        if self.by_ports.get(&connection.ports) == Some(&id) {
            self.by_ports.remove(&connection.ports);
        }
    }

    /// Bounded by [`MAX_RESETS`] for the guest's packets and [`MAX_CONNECTIONS`] for what the
    /// host's side ends.
    fn send_reset(&mut self, ports: Ports, socket_type: u16) {
        let reset = self.header(ports, socket_type, Op::Reset);
        self.resets.push_back(reset);
    }

    /// What a stream has on its way to the host, in bytes.
    #[cfg(test)]
    pub(super) fn buffered(&self, id: Id) -> usize {
        self.connections.get(&id).map_or(0, Connection::buffered)
    }

    /// Streams, streams that wait, resets that wait, and bytes on their way to the host.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize, usize, usize) {
        let buffered = self.connections.values().map(Connection::buffered).sum();
        (self.connections.len(), self.waiting.len(), self.resets.len(), buffered)
    }
}
