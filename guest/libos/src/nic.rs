//! The link of a tenant: virtio-net with one pair of queues (virtio 1.2, section 5.1).
//!
//! Sending copies headers only. A chain is our header block and up to two pieces of payload, which
//! stay where they are; the driver holds the `Rc` to their buffer until the device is done.
//! [`Nic::kick`] shows chains to the device in batches. The driver takes them back late, when it
//! needs their place or has time.
#![allow(unsafe_code, reason = "hands memory to a device")]

use crate::args::DeviceWindow;
use crate::frame::{Mac, NET_HEADER_LEN, UdpChecksum};
use crate::idle::WakeSource;
use crate::memory::{Buffer, OutOfMemory, Payload};
use crate::virtio::{Device, EVENT_IDX, VirtioError};
use crate::virtqueue::{Segment, Virtqueue, VirtqueueFull};
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::slice;
use virtio_drivers::transport::DeviceType;

const F_CSUM: u64 = 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;
/// Used if the device names no address: locally administered.
const DEFAULT_MAC: Mac = Mac([0x02, 0x6d, 0x6f, 0x69, 0x72, 0x61]);
const DEFAULT_MTU: u16 = 1500;
const MTU_MIN: u16 = 68;

/// Descriptors of the longest chain: headers and two pieces.
const CHAIN_MAX: u16 = 3;
/// One part in so many of the sending ring is the stack's own.
const RESERVED_SHARE: u16 = 16;

/// Room for the headers of one packet.
pub const HEADER_ROOM: usize = 128;
/// Room for one arriving frame with its virtio-net header.
const FRAME_ROOM: usize = 2048;
/// Buffers posted for arriving frames.
const RECEIVE_BUFFERS: u16 = 128;

/// A virtio-net device.
#[derive(Debug)]
pub struct Nic {
    device: Device, // first, so that it is reset before the memory below is freed
    /// Arriving frames.
    pub(crate) receiver: Receiver,
    /// Leaving frames.
    pub(crate) transmitter: Transmitter,
    mac: Mac,
    mtu: u16,
}

impl Nic {
    /// Opens the `number`th network device and posts receive buffers.
    ///
    /// # Errors
    /// [`VirtioError`].
    pub fn open(windows: &[DeviceWindow], number: usize) -> Result<Self, VirtioError> {
        let wanted = F_CSUM | F_MAC | F_MTU | EVENT_IDX;
        let mut device = Device::open(windows, DeviceType::Network, number, wanted)?;
        let (mac, mtu) = read_config(&device)?;
        let receiver = Receiver::new(device.ring(RECEIVE_QUEUE)?)?;
        let transmitter = Transmitter::new(device.ring(TRANSMIT_QUEUE)?)?;
        device.start();
        let mut nic = Self { device, receiver, transmitter, mac, mtu };
        nic.receiver.post_all();
        nic.kick();
        Ok(nic)
    }

    /// Our Ethernet address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Greatest IP packet in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// How UDP checksums are to be asked for.
    #[must_use]
    pub fn udp_checksum(&self) -> UdpChecksum {
        if self.device.has(F_CSUM) { UdpChecksum::Device } else { UdpChecksum::Absent }
    }

    /// Has the sending ring no room for a packet of a stream? A part of it is kept for the stack's
    /// own small frames, so that a flooded link still answers ARP.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let ring = &self.transmitter.ring;
        ring.free() < CHAIN_MAX + ring.size() / RESERVED_SHARE
    }

    /// Queues a packet: `headers`, from the virtio-net header on, are copied (at most
    /// [`HEADER_ROOM`] bytes); the pieces of payload are not.
    ///
    /// # Errors
    /// [`VirtqueueFull`]; then [`Nic::reclaim`] may help.
    pub fn send(
        &mut self,
        headers: &[u8],
        payload: [Option<Payload>; 2],
    ) -> Result<(), VirtqueueFull> {
        self.transmitter.send(headers, payload)
    }

    /// Takes back what the device has sent; returns how many packets that were.
    ///
    /// # Errors
    /// [`VirtioError`] if the device misbehaves; it is unusable then.
    pub fn reclaim(&mut self) -> Result<u16, VirtioError> {
        self.transmitter.reclaim()
    }

    /// Packets that the device has not sent yet (as far as reclaimed).
    #[must_use]
    pub fn unsent(&self) -> u16 {
        self.transmitter.ring.in_flight()
    }

    /// Has a frame arrived?
    #[must_use]
    pub fn has_received(&self) -> bool {
        self.receiver.ring.has_used()
    }

    /// Shows queued packets and buffers to the device.
    pub fn kick(&mut self) {
        self.device.kick(TRANSMIT_QUEUE, &mut self.transmitter.ring);
        self.device.kick(RECEIVE_QUEUE, &mut self.receiver.ring);
    }

    /// A view of the link that wakes [`crate::idle::wait`] also when the device has sent `chains`
    /// packets; 0: only when a frame arrives.
    pub fn wake_on(&mut self, chains: u16) -> NicWake<'_> {
        NicWake { nic: self, chains }
    }

    /// Asks the device whether it has given up; costs an exit, so ask when nothing moves.
    ///
    /// # Errors
    /// [`VirtioError::NeedsReset`].
    pub fn check_alive(&self) -> Result<(), VirtioError> {
        self.device.check_alive()
    }
}

fn read_config(device: &Device) -> Result<(Mac, u16), VirtioError> {
    let mut mac = DEFAULT_MAC;
    if device.has(F_MAC) {
        // Two accesses instead of six: each is an exit.
        let [a, b, c, d] = device.config_word(0)?.to_le_bytes();
        let [e, f] = device.config_half(4)?.to_le_bytes();
        mac = Mac([a, b, c, d, e, f]);
    }
    let mut mtu = DEFAULT_MTU;
    if device.has(F_MTU) {
        mtu = device.config_half(10)?.max(MTU_MIN);
    }
    Ok((mac, mtu))
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Transmitter {
    ring: Virtqueue,
    headers: Buffer,
    held: Box<[[Option<Payload>; 2]]>,
}

impl Transmitter {
    fn new(ring: Virtqueue) -> Result<Self, OutOfMemory> {
        let headers = Buffer::new(HEADER_ROOM * usize::from(ring.size()))?;
        let held = (0..ring.size()).map(|_| [None, None]).collect();
        Ok(Self { ring, headers, held })
    }

    /// See [`Nic::send`].
    pub(crate) fn send(
        &mut self,
        headers: &[u8],
        payload: [Option<Payload>; 2],
    ) -> Result<(), VirtqueueFull> {
        let head = self.ring.next_head().ok_or(VirtqueueFull)?;
        let at = usize::from(head) * HEADER_ROOM;
        let len = headers.len().min(HEADER_ROOM);
        assert!(at + HEADER_ROOM <= self.headers.len());
        // SAFETY: inside the allocation, by the assertion. This block belongs to a head that the
        // device does not hold; as it may read others, no reference to the whole is made.
        unsafe {
            let to = self.headers.as_mut_ptr().add(at);
            core::ptr::copy_nonoverlapping(headers.as_ptr(), to, len);
        }
        let header = segment(self.headers.address() + at as u64, len, false);
        let pieces = payload.each_ref().map(|piece| piece.as_ref().and_then(payload_segment));
        // SAFETY: `held` keeps the payload's buffers alive, and shared, so unwritten, until the
        // chain is popped; the header block is not used again before that.
        unsafe {
            match pieces {
                [None, None] => self.ring.push(&[header])?,
                [Some(piece), None] | [None, Some(piece)] => self.ring.push(&[header, piece])?,
                [Some(first), Some(second)] => self.ring.push(&[header, first, second])?,
            }
        };
        if let Some(slot) = self.held.get_mut(usize::from(head)) {
            *slot = payload;
        }
        Ok(())
    }

    /// Queues a whole frame, which is copied: for small things.
    pub(crate) fn send_frame(&mut self, frame: &[u8]) -> Result<(), VirtqueueFull> {
        let mut buffer = Buffer::new(frame.len()).map_err(|_| VirtqueueFull)?;
        buffer.copy_from_slice(frame);
        let payload = Payload { buffer: Rc::new(buffer), start: 0, len: frame.len() };
        self.send(&[0; NET_HEADER_LEN], [Some(payload), None])
    }

    /// Has it no room for anything at all?
    pub(crate) fn is_full(&self) -> bool {
        self.ring.free() < CHAIN_MAX
    }

    fn reclaim(&mut self) -> Result<u16, VirtioError> {
        let mut count = 0;
        while let Some(used) = self.ring.pop()? {
            if let Some(slot) = self.held.get_mut(usize::from(used.head)) {
                *slot = [None, None];
            }
            count += 1;
        }
        Ok(count)
    }
}

fn payload_segment(payload: &Payload) -> Option<Segment> {
    let end = payload.start.checked_add(payload.len)?;
    if payload.len == 0 || end > payload.buffer.len() {
        return None;
    }
    Some(segment(payload.buffer.address() + payload.start as u64, payload.len, false))
}

fn segment(address: u64, len: usize, device_writes: bool) -> Segment {
    Segment { address, len: u32::try_from(len).unwrap_or(0), device_writes }
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver {
    ring: Virtqueue,
    frames: Buffer,
    /// Which piece of `frames` a chain in flight fills.
    piece_of: Box<[u16]>,
    pieces: u16,
}

/// A frame that arrived; its piece of memory goes back by [`Receiver::post`].
pub(crate) struct Frame {
    piece: u16,
    len: usize,
}

impl Receiver {
    fn new(ring: Virtqueue) -> Result<Self, OutOfMemory> {
        let pieces = ring.size().min(RECEIVE_BUFFERS);
        let frames = Buffer::new(FRAME_ROOM * usize::from(pieces))?;
        let piece_of = (0..ring.size()).map(|_| 0).collect();
        Ok(Self { ring, frames, piece_of, pieces })
    }

    fn post_all(&mut self) {
        for piece in 0..self.pieces {
            self.post(piece);
        }
    }

    /// Gives a piece to the device.
    fn post(&mut self, piece: u16) {
        let address = self.frames.address() + (usize::from(piece) * FRAME_ROOM) as u64;
        // SAFETY: the piece is inside `frames`, is given to the device once at a time (its number
        // comes from `post_all` or from the frame it was returned with), and `bytes` makes
        // references only to pieces that the device does not hold.
        let head = unsafe { self.ring.push(&[segment(address, FRAME_ROOM, true)]) };
        if let Some(slot) = head.ok().and_then(|head| self.piece_of.get_mut(usize::from(head))) {
            *slot = piece;
        }
    }

    /// The next frame that arrived.
    pub(crate) fn receive(&mut self) -> Result<Option<Frame>, VirtioError> {
        let Some(used) = self.ring.pop()? else { return Ok(None) };
        let len = usize::try_from(used.written).unwrap_or(usize::MAX);
        if len > FRAME_ROOM {
            return Err(VirtioError::Overrun { written: used.written, room: FRAME_ROOM });
        }
        let piece = self.piece_of.get(usize::from(used.head)).copied().unwrap_or(0);
        Ok(Some(Frame { piece, len }))
    }

    /// The frame from its Ethernet header on.
    pub(crate) fn bytes(&self, frame: &Frame) -> &[u8] {
        let at = usize::from(frame.piece) * FRAME_ROOM;
        assert!(at + FRAME_ROOM <= self.frames.len() && frame.len <= FRAME_ROOM);
        // SAFETY: inside `frames`, by the assertion; the device has returned this piece and gets it
        // back only by `release`, which consumes the frame.
        let whole = unsafe { slice::from_raw_parts(self.frames.as_mut_ptr().add(at), frame.len) };
        whole.get(NET_HEADER_LEN..).unwrap_or_default()
    }

    /// Gives the memory of a frame back to the device.
    pub(crate) fn release(&mut self, frame: Frame) {
        self.post(frame.piece);
    }
}

/// See [`Nic::wake_on`].
pub struct NicWake<'a> {
    nic: &'a mut Nic,
    chains: u16,
}

impl WakeSource for NicWake<'_> {
    fn slot(&self) -> u32 {
        self.nic.device.slot()
    }

    fn acknowledge(&mut self) {
        self.nic.device.acknowledge();
    }

    fn arm(&mut self) -> bool {
        self.nic.kick();
        let transmitter = &self.nic.transmitter;
        let chains = if transmitter.is_full() { self.chains.max(1) } else { self.chains };
        let nothing_sent = chains == 0 || transmitter.ring.arm(chains);
        // The stack takes no frame while it could not answer: arrivals have to wait then.
        let nothing_arrived = transmitter.is_full() || self.nic.receiver.ring.arm(1);
        nothing_arrived && nothing_sent
    }

    fn disarm(&mut self) {
        self.nic.receiver.ring.disarm();
        self.nic.transmitter.ring.disarm();
    }
}
