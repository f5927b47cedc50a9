//! The volume of a tenant: virtio-blk with many requests in flight (virtio 1.2, section 5.2).
//!
//! The device sees requests when [`Volume::kick`] is called (and before every wait), so one
//! doorbell serves a batch.
#![allow(unsafe_code, reason = "hands memory to a device")]

use crate::args::DeviceWindow;
use crate::idle::WakeSource;
use crate::memory::Buffer;
use crate::request::{Completion, Refusal, RequestError, RequestId, SECTOR, Volume};
use crate::virtio::{Device, EVENT_IDX, VirtioError};
use crate::virtqueue::{Segment, Virtqueue};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU8, Ordering};
use virtio_drivers::transport::DeviceType;

const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
/// Where the configuration space has `blk_size`.
const CONFIG_BLK_SIZE: usize = 20;
const REQUEST_QUEUE: u16 = 0;
const REQUEST_IN: u32 = 0;
const REQUEST_OUT: u32 = 1;
const REQUEST_FLUSH: u32 = 4;
const STATUS_OK: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 2;
/// Not a status that a device may write.
const STATUS_NONE: u8 = 0xff;

/// Room per request for the header (16 bytes) and the status byte behind it.
const CONTROL_LEN: usize = 32;
const HEADER_LEN: u32 = 16;

/// A virtio-blk device.
#[derive(Debug)]
pub struct Disk {
    device: Device, // first, so that it is reset before the memory below is freed
    ring: Virtqueue,
    control: Buffer,
    in_flight: Box<[Option<Buffer>]>,
    capacity: u64,
    block: u64,
    data: Option<u64>,
}

impl Disk {
    /// Opens the `number`th block device.
    ///
    /// # Errors
    /// [`VirtioError`].
    pub fn open(windows: &[DeviceWindow], number: usize) -> Result<Self, VirtioError> {
        let wanted = F_RO | F_BLK_SIZE | F_FLUSH | EVENT_IDX;
        let mut device = Device::open(windows, DeviceType::Block, number, wanted)?;
        let sectors = u64::from(device.config_word(0)?) | (u64::from(device.config_word(4)?) << 32);
        let block = match device.has(F_BLK_SIZE) {
            true => u64::from(device.config_word(CONFIG_BLK_SIZE)?),
            false => SECTOR,
        };
        let ring = device.ring(REQUEST_QUEUE)?;
        let control = Buffer::new(CONTROL_LEN * usize::from(ring.size()))?;
        let in_flight = (0..ring.size()).map(|_| None).collect();
        device.start();
        let capacity = sectors.saturating_mul(SECTOR);
        Ok(Self { device, ring, control, in_flight, capacity, block, data: None })
    }

    /// Takes the VMM's word for where its data ends; one that cannot be true is ignored.
    #[must_use]
    pub fn with_data(self, bytes: Option<u64>) -> Self {
        let data = bytes.filter(|&bytes| {
            self.capacity.checked_sub(bytes).is_some_and(|padding| padding < self.block)
        });
        Self { data, ..self }
    }

    /// Can it only be read?
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.device.has(F_RO)
    }

    /// Queues a write of the first `len` bytes of `buffer` to byte `offset` of the volume.
    ///
    /// # Errors
    /// A [`Refusal`], with the buffer.
    pub fn write(
        &mut self,
        offset: u64,
        buffer: Buffer,
        len: usize,
    ) -> Result<RequestId, (Refusal, Buffer)> {
        let checked = match self.read_only() {
            true => Err(Refusal::ReadOnly),
            false => self.check(offset, &buffer, len),
        };
        match checked {
            Ok(len) => Ok(self.submit(REQUEST_OUT, offset, Some((buffer, len)))),
            Err(refusal) => Err((refusal, buffer)),
        }
    }

    /// Queues a flush; when it completes, every write that completed before is on stable storage.
    /// A device without a cache completes it as unsupported.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn flush(&mut self) -> Result<RequestId, Refusal> {
        if self.ring.free() < 2 {
            return Err(Refusal::Full);
        }
        Ok(self.submit(REQUEST_FLUSH, 0, None))
    }

    /// Asks the device whether it has given up; costs an exit, so ask when nothing moves.
    ///
    /// # Errors
    /// [`VirtioError::NeedsReset`].
    pub fn check_alive(&self) -> Result<(), VirtioError> {
        self.device.check_alive()
    }

    /// Checks a request with data; gives its length as the ring wants it.
    fn check(&self, offset: u64, buffer: &Buffer, len: usize) -> Result<u32, Refusal> {
        let (wanted, capacity) = (len as u64, self.capacity);
        let whole = offset.is_multiple_of(SECTOR) && wanted.is_multiple_of(SECTOR);
        let inside = offset.checked_add(wanted).is_some_and(|end| end <= capacity);
        match u32::try_from(len) {
            Ok(len_bytes) if whole && inside && len > 0 && len <= buffer.len() => {
                if self.ring.free() < 3 { Err(Refusal::Full) } else { Ok(len_bytes) }
            }
            _ => Err(Refusal::Range { offset, len: wanted, capacity }),
        }
    }

    /// Queues a request for which the ring has room.
    fn submit(&mut self, kind: u32, offset: u64, data: Option<(Buffer, u32)>) -> RequestId {
        let head = self.ring.next_head().unwrap_or(0);
        let control = self.write_control(head, kind, offset / SECTOR);
        let header = Segment { address: control, len: HEADER_LEN, device_writes: false };
        let status =
            Segment { address: control + u64::from(HEADER_LEN), len: 1, device_writes: true };
        let (buffer, data) = match data {
            Some((buffer, len)) => {
                let address = buffer.address();
                (Some(buffer), Some(Segment { address, len, device_writes: kind == REQUEST_IN }))
            }
            None => (None, None),
        };
        // SAFETY: `in_flight` owns the buffer until the chain is popped; the control block belongs
        // to this head, so nobody else uses it before that.
        let pushed = unsafe {
            match data {
                Some(data) => self.ring.push(&[header, data, status]),
                None => self.ring.push(&[header, status]),
            }
        };
        debug_assert_eq!(pushed, Ok(head), "the caller has checked that there is room");
        if let Some(slot) = self.in_flight.get_mut(usize::from(head)) {
            *slot = buffer;
        }
        RequestId(head)
    }

    /// Writes `virtio_blk_req` (type, reserved, sector) and a status that is none into the control
    /// block of a free head; gives its address.
    fn write_control(&mut self, head: u16, kind: u32, sector: u64) -> u64 {
        let at = usize::from(head) * CONTROL_LEN;
        assert!(at + CONTROL_LEN <= self.control.len());
        let mut block = [0; CONTROL_LEN];
        block[0..4].copy_from_slice(&kind.to_le_bytes());
        block[8..16].copy_from_slice(&sector.to_le_bytes());
        block[16] = STATUS_NONE;
        // SAFETY: inside the allocation, by the assertion. The device does not hold this block; as
        // it holds others, no reference to the whole is made.
        unsafe {
            let to = self.control.as_mut_ptr().add(at);
            core::ptr::copy_nonoverlapping(block.as_ptr(), to, CONTROL_LEN);
        }
        self.control.address() + at as u64
    }

    fn status(&self, head: usize) -> &AtomicU8 {
        let offset = head * CONTROL_LEN + HEADER_LEN as usize;
        assert!(offset < self.control.len());
        // SAFETY: inside the control block, by the assertion; the device is done with it or writes
        // it as one byte.
        unsafe { AtomicU8::from_ptr(self.control.as_mut_ptr().add(offset)) }
    }
}

impl Volume for Disk {
    type Fault = VirtioError;

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn block(&self) -> u64 {
        self.block
    }

    fn data_bytes(&self) -> Option<u64> {
        self.data
    }

    fn in_flight(&self) -> u16 {
        self.ring.in_flight()
    }

    fn read(
        &mut self,
        offset: u64,
        buffer: Buffer,
        len: usize,
    ) -> Result<RequestId, (Refusal, Buffer)> {
        match self.check(offset, &buffer, len) {
            Ok(len) => Ok(self.submit(REQUEST_IN, offset, Some((buffer, len)))),
            Err(refusal) => Err((refusal, buffer)),
        }
    }

    fn kick(&mut self) {
        self.device.kick(REQUEST_QUEUE, &mut self.ring);
    }

    fn poll(&mut self) -> Result<Option<Completion>, VirtioError> {
        let Some(used) = self.ring.pop()? else { return Ok(None) };
        let head = usize::from(used.head);
        let result = match self.status(head).load(Ordering::Acquire) {
            STATUS_OK => Ok(()),
            STATUS_UNSUPPORTED => Err(RequestError::Unsupported),
            _ => Err(RequestError::Io),
        };
        let buffer = self.in_flight.get_mut(head).and_then(Option::take);
        let room = buffer.as_ref().map_or(0, |buffer| buffer.len()) + 1;
        if usize::try_from(used.written).is_ok_and(|written| written > room) {
            return Err(VirtioError::Overrun { written: used.written, room });
        }
        Ok(Some(Completion { id: RequestId(used.head), buffer, result }))
    }
}

impl WakeSource for Disk {
    fn slot(&self) -> u32 {
        self.device.slot()
    }

    fn acknowledge(&mut self) {
        self.device.acknowledge();
    }

    fn arm(&mut self) -> bool {
        self.kick();
        self.ring.arm(1)
    }

    fn disarm(&mut self) {
        self.ring.disarm();
    }
}
