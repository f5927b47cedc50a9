//! A mock driver of a vsock device, with socket pairs for the host's side.

mod credit;
mod hostile;
mod streams;

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::mux::{Id, Mux};
use super::packet::{HEADER_BYTES, Header, Op, STREAM};
use crate::fault::Fault;
use crate::memory::GuestMemory;
use crate::mock::{self, Driver, readable, writable};
use crate::stream::Stream;

const CID: u32 = 7;
const SIZE: u16 = 16;
const TX_BUFFER: u64 = 0x10000;
const RX_BUFFER: u64 = 0x40000;
const RX_BYTES: u32 = 4096;
/// The guest's buffer, unless a test says otherwise.
const ALLOC: u32 = 0x4_0000;

/// A guest and the device.
struct Guest {
    mem: Arc<GuestMemory>,
    tx: Driver,
    rx: Driver,
    tx_queue: Queue,
    rx_queue: Queue,
    mux: Mux,
    /// What `open` was called with, and what it answers.
    asked: Vec<(Id, u32)>,
    may_open: bool,
    /// A buffer waits in the rx ring.
    posted: bool,
    alloc: u32,
    taken: u32,
}

impl Guest {
    fn new() -> Self {
        let mem = mock::memory(0x80000);
        let tx = Driver::new(Arc::clone(&mem), 0, SIZE);
        let rx = Driver::new(Arc::clone(&mem), mock::RING_BYTES, SIZE);
        let (tx_queue, rx_queue) = (tx.queue(), rx.queue());
        Self {
            mem,
            tx,
            rx,
            tx_queue,
            rx_queue,
            mux: Mux::new(CID),
            asked: Vec::new(),
            may_open: true,
            posted: false,
            alloc: ALLOC,
            taken: 0,
        }
    }

    fn header(&self, op: Op, host: u32, guest: u32) -> Header {
        Header {
            src_cid: u64::from(CID),
            dst_cid: super::HOST_CID,
            src_port: guest,
            dst_port: host,
            len_bytes: 0,
            socket_type: STREAM,
            op: Some(op),
            flags: 0,
            buf_alloc: self.alloc,
            fwd_cnt: self.taken,
        }
    }

    /// Sends any packet in two pieces; returns whether the device took it.
    fn send_raw(&mut self, header: &Header, payload: &[u8]) -> Result<bool, Fault> {
        self.mem.write_slice(&header.to_bytes(), GuestAddress(TX_BUFFER)).unwrap();
        let data = TX_BUFFER + HEADER_BYTES as u64;
        self.mem.write_slice(payload, GuestAddress(data)).unwrap();
        let head_bytes = u32::try_from(HEADER_BYTES).unwrap();
        let len = u32::try_from(payload.len()).unwrap();
        self.tx.post(&[readable(TX_BUFFER, head_bytes), readable(data, len)]);
        let (asked, may_open) = (&mut self.asked, self.may_open);
        let taken = self.mux.transmit(&self.mem, &mut self.tx_queue, |id, port| {
            asked.push((id, port));
            may_open
        })?;
        if taken {
            self.tx.used().expect("a chain that is taken is returned");
        }
        Ok(taken)
    }

    fn send(&mut self, op: Op, (host, guest): (u32, u32), flags: u32, payload: &[u8]) {
        let len_bytes = u32::try_from(payload.len()).unwrap();
        let header = Header { len_bytes, flags, ..self.header(op, host, guest) };
        assert!(self.send_raw(&header, payload).unwrap());
    }

    /// The next packet for the guest.
    fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        if !std::mem::replace(&mut self.posted, true) {
            self.rx.post(&[writable(RX_BUFFER, RX_BYTES)]);
        }
        if !self.mux.receive(&self.mem, &mut self.rx_queue).unwrap() {
            return None;
        }
        self.posted = false;
        let (_, len) = self.rx.used().unwrap();
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.mem.read_slice(&mut bytes, GuestAddress(RX_BUFFER)).unwrap();
        let payload = bytes.split_off(HEADER_BYTES);
        let header = Header::parse(bytes.first_chunk().unwrap());
        assert_eq!(header.len_bytes as usize, payload.len());
        assert_eq!((header.src_cid, header.dst_cid), (2, u64::from(CID)));
        Some((header, payload))
    }

    /// The next packet has to be this operation; returns its flags and payload.
    fn expect(&mut self, op: Op) -> (u32, Vec<u8>) {
        let (header, payload) = self.receive().expect("a packet for the guest");
        assert_eq!(header.op, Some(op));
        (header.flags, payload)
    }

    /// A client of the host that is connected with port 5 of the guest, its stream, and its ports.
    fn client(&mut self) -> (UnixStream, Id, (u32, u32)) {
        use std::io::Read;
        let (mut client, stream) = pair();
        let id = self.mux.connect(5, stream).unwrap();
        let (request, _) = self.receive().unwrap();
        assert_eq!((request.op, request.dst_port), (Some(Op::Request), 5));
        let ports = (request.src_port, 5);
        self.send(Op::Response, ports, 0, &[]);
        let mut greeting = [0; 64];
        let len = client.read(&mut greeting).unwrap();
        assert_eq!(greeting[..len], *format!("OK {}\n", ports.0).as_bytes());
        (client, id, ports)
    }
}

/// A client's end and the device's.
fn pair() -> (UnixStream, Stream) {
    let (client, ours) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    (client, Stream::new(ours.into()))
}
