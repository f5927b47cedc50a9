//! The header of a vsock packet (virtio 1.2, 5.10.6).

/// Length of a header.
pub const HEADER_BYTES: usize = 44;
/// The type of stream sockets.
pub const STREAM: u16 = 1;
/// Shutdown flag: the sender will receive no more.
pub const NO_RECEIVE: u32 = 1;
/// Shutdown flag: the sender will send no more.
pub const NO_SEND: u32 = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Op {
    /// Connect.
    Request = 1,
    /// Accept.
    Response = 2,
    /// Refuse, abort, or confirm the end.
    Reset = 3,
    /// Send or receive no more.
    Shutdown = 4,
    /// Data.
    Data = 5,
    /// Tells how much buffer there is.
    CreditUpdate = 6,
    /// Asks how much buffer there is.
    CreditRequest = 7,
}

impl Op {
    fn parse(number: u16) -> Option<Self> {
        use Op::{CreditRequest, CreditUpdate, Data, Request, Reset, Response, Shutdown};
        let all = [Request, Response, Reset, Shutdown, Data, CreditUpdate, CreditRequest];
        all.into_iter().find(|op| *op as u16 == number)
    }
}

/// A header, as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Context id of the sender.
    pub src_cid: u64,
    /// Context id of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Length of the payload in bytes.
    pub len_bytes: u32,
    /// Kind of socket.
    pub socket_type: u16,
    /// What it is for; `None` if the number means nothing.
    pub op: Option<Op>,
    /// [`NO_RECEIVE`] and [`NO_SEND`] of a shutdown.
    pub flags: u32,
    /// Size of the sender's buffer for this stream.
    pub buf_alloc: u32,
    /// Bytes that have left that buffer, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        Self {
            src_cid: u64::from_le_bytes(field(bytes, 0)),
            dst_cid: u64::from_le_bytes(field(bytes, 8)),
            src_port: u32::from_le_bytes(field(bytes, 16)),
            dst_port: u32::from_le_bytes(field(bytes, 20)),
            len_bytes: u32::from_le_bytes(field(bytes, 24)),
            socket_type: u16::from_le_bytes(field(bytes, 28)),
            op: Op::parse(u16::from_le_bytes(field(bytes, 30))),
            flags: u32::from_le_bytes(field(bytes, 32)),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)),
        }
    }

    /// Writes a header.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let op = self.op.map_or(0, |op| op as u16);
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.len_bytes.to_le_bytes(),
            &self.socket_type.to_le_bytes(),
            &op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        for (byte, value) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *byte = *value;
        }
        bytes
    }
}

fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
