//! A device driven by hand: registers (virtio 1.2, section 4.2.2) and one split ring in memory that
//! is ours. On purpose, nothing here checks anything.
#![allow(unsafe_code, reason = "writes registers and rings as no driver would")]

use alloc::format;
use moirai_sdk::{App, AppError, Buffer, MS, now};

pub(crate) const QUEUE_SELECT: usize = 0x30;
pub(crate) const QUEUE_SIZE_MAX: usize = 0x34;
pub(crate) const QUEUE_SIZE: usize = 0x38;
pub(crate) const QUEUE_READY: usize = 0x44;
pub(crate) const QUEUE_NOTIFY: usize = 0x50;
pub(crate) const STATUS: usize = 0x70;
const DEVICE_ID: usize = 0x08;
const DEVICE_FEATURES: usize = 0x10;
const DEVICE_FEATURES_SELECT: usize = 0x14;
const DRIVER_FEATURES: usize = 0x20;
const DRIVER_FEATURES_SELECT: usize = 0x24;
const CONFIG: usize = 0x100;
/// Descriptors, available ring, used ring: each a register for the low half, the next for the high.
pub(crate) const AREAS: [usize; 3] = [0x80, 0x90, 0xa0];

pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;

const NETWORK: u32 = 1;
/// VIRTIO_RING_F_INDIRECT_DESC.
const INDIRECT_DESC: u32 = 1 << 28;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Descriptors of every ring.
pub(crate) const SIZE: u16 = 256;
const AVAILABLE: usize = 0x1000;
const USED: usize = 0x2000;
/// Headers, a status byte and data, as the attacks need them.
pub(crate) const HEADER: usize = 0x3000;
pub(crate) const STATUS_BYTE: usize = 0x3100;
pub(crate) const TABLE: usize = 0x3200;
pub(crate) const DATA: usize = 0x4000;
const MEMORY_BYTES: usize = 0x1_0000;
/// How long a device gets to react.
const PATIENCE_NS: u64 = 3000 * MS;

/// The registers of one device.
#[derive(Clone, Copy)]
pub(crate) struct Window(usize);

impl Window {
    /// The windows of all devices.
    pub(crate) fn all(app: &App) -> impl Iterator<Item = Self> {
        app.args().devices().iter().filter_map(|it| usize::try_from(it.base).ok()).map(Self)
    }

    pub(crate) fn read(self, offset: usize) -> u32 {
        // SAFETY: the VMM announced a window there; the first 4 GiB are mapped one to one.
        unsafe { ((self.0 + offset) as *const u32).read_volatile() }
    }

    pub(crate) fn write(self, offset: usize, value: u32) {
        // SAFETY: as in `read`. What the device then does to this machine's memory is the attack.
        unsafe { ((self.0 + offset) as *mut u32).write_volatile(value) }
    }

    /// Reads and writes a register of `1 << width` bytes, aligned or not.
    pub(crate) fn poke(self, offset: usize, width: u32, value: u64) {
        let [low, ..] = value.to_le_bytes();
        let at = self.0 + offset;
        // SAFETY: as in `read`; each is one plain move, which x86 does not want aligned.
        unsafe {
            match width {
                0 => {
                    core::arch::asm!("mov [{0}], \
                                      {1}", "mov {1}, [{0}]", in(reg) at, inout(reg_byte) low => _)
                }
                1 => {
                    core::arch::asm!("mov [{0}], {1:x}", "mov {1:x}, \
                                                          [{0}]", in(reg) at, inout(reg) value => _)
                }
                2 => {
                    core::arch::asm!("mov [{0}], {1:e}", "mov {1:e}, \
                                                          [{0}]", in(reg) at, inout(reg) value => _)
                }
                _ => {
                    core::arch::asm!("mov [{0}], \
                                      {1}", "mov {1}, [{0}]", in(reg) at, inout(reg) value => _)
                }
            }
        }
    }

    pub(crate) fn needs_reset(self) -> bool {
        self.read(STATUS) & NEEDS_RESET != 0
    }

    /// Writes the three addresses of the selected queue.
    pub(crate) fn place(self, areas: [u64; 3]) {
        for (register, address) in AREAS.into_iter().zip(areas) {
            self.write(register, half(address, 0));
            self.write(register + 4, half(address, 1));
        }
    }
}

/// What became of a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The device needs a reset.
    Failed,
    /// It gave a chain back.
    Answered,
    /// Nothing happened.
    Silent,
}

/// A device and the memory of one of its rings.
pub(crate) struct Rig {
    pub(crate) window: Window,
    pub(crate) memory: Buffer,
    pub(crate) queue: u32,
    pub(crate) is_network: bool,
    next: u16,
    /// Where in the memory the device thinks the used ring is.
    used_at: usize,
}

impl Rig {
    /// A rig for each device: the request queue of a volume, the transmit queue of a link.
    pub(crate) fn all(app: &App) -> Result<alloc::vec::Vec<Self>, AppError> {
        let rigs = Window::all(app).map(|window| {
            let is_network = window.read(DEVICE_ID) == NETWORK;
            let memory = Buffer::new(MEMORY_BYTES)?;
            Ok(Self {
                window,
                memory,
                queue: u32::from(is_network),
                is_network,
                next: 0,
                used_at: USED,
            })
        });
        rigs.collect()
    }

    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.memory.address() + offset as u64
    }

    /// Resets the device and negotiates up to FEATURES_OK, with indirect descriptors if there are.
    pub(crate) fn negotiate(&mut self) -> Result<(), AppError> {
        let window = self.window;
        window.write(STATUS, 0);
        window.write(STATUS, ACKNOWLEDGE | DRIVER);
        for (select, wanted) in [(0, INDIRECT_DESC), (1, 1)] {
            window.write(DEVICE_FEATURES_SELECT, select);
            window.write(DRIVER_FEATURES_SELECT, select);
            window.write(DRIVER_FEATURES, window.read(DEVICE_FEATURES) & wanted);
        }
        window.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if window.read(STATUS) & FEATURES_OK == 0 {
            return Err(AppError::Other(format!("features refused at {:#x}", window.0)));
        }
        self.memory.fill(0);
        self.next = 0;
        Ok(())
    }

    /// Makes the rig's queue ready, its three areas at these offsets of the memory, and starts.
    pub(crate) fn start_with(&mut self, areas: [usize; 3]) -> Result<(), AppError> {
        self.negotiate()?;
        self.used_at = areas[2];
        self.window.write(QUEUE_SELECT, self.queue);
        self.window.write(QUEUE_SIZE, SIZE.into());
        self.window.place(areas.map(|offset| self.address(offset)));
        self.window.write(QUEUE_READY, 1);
        self.window.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        Ok(())
    }

    pub(crate) fn start(&mut self) -> Result<(), AppError> {
        self.start_with([0, AVAILABLE, USED])
    }

    /// Writes a descriptor into the table at `table`.
    pub(crate) fn describe_in(
        &mut self,
        table: usize,
        at: u16,
        (addr, len): (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let at = table + 16 * usize::from(at);
        self.put(at, &addr.to_le_bytes());
        self.put(at + 8, &len.to_le_bytes());
        self.put(at + 12, &flags.to_le_bytes());
        self.put(at + 14, &next.to_le_bytes());
    }

    pub(crate) fn describe(&mut self, at: u16, buffer: (u64, u32), flags: u16, next: u16) {
        self.describe_in(0, at, buffer, flags, next);
    }

    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.memory.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Puts a head into the available ring; the device does not see it yet.
    pub(crate) fn offer(&mut self, head: u16) {
        let place = AVAILABLE + 4 + 2 * usize::from(self.next % SIZE);
        self.put(place, &head.to_le_bytes());
        self.next = self.next.wrapping_add(1);
    }

    /// The available index.
    pub(crate) fn offered(&self) -> u16 {
        self.next
    }

    /// Moves the available index without offering anything.
    pub(crate) fn skip(&mut self, count: u16) {
        self.next = self.next.wrapping_add(count);
    }

    /// Shows the available index to the device and kicks it.
    pub(crate) fn kick(&mut self) {
        let next = self.next;
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        self.put(AVAILABLE + 2, &next.to_le_bytes());
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        self.window.write(QUEUE_NOTIFY, self.queue);
    }

    pub(crate) fn used(&self) -> u16 {
        // SAFETY: inside the memory; the device may write it at any time.
        unsafe { self.memory.as_mut_ptr().add(self.used_at + 2).cast::<u16>().read_volatile() }
    }

    /// Waits until the device has failed or used a chain.
    pub(crate) fn verdict(&self) -> Verdict {
        let end = now() + PATIENCE_NS;
        while now() < end {
            if self.used() != 0 {
                return Verdict::Answered;
            }
            if self.window.needs_reset() {
                return Verdict::Failed;
            }
        }
        Verdict::Silent
    }

    /// A chain as an honest driver posts it: a read of the first sectors, or a frame to everybody.
    pub(crate) fn honest(&mut self, at: u16) {
        let (header, data) = (self.address(HEADER), self.address(DATA));
        if self.is_network {
            let mut frame = [0xff; 72];
            frame[..12].fill(0);
            for (byte, offset) in frame[18..24].iter_mut().zip(0..) {
                let [low, ..] =
                    (self.window.read(CONFIG + offset / 4 * 4) >> (offset % 4 * 8)).to_le_bytes();
                *byte = low;
            }
            frame[24..26].copy_from_slice(&[0x88, 0xb5]);
            self.put(HEADER, &frame);
            return self.describe(at, (header, 72), 0, 0);
        }
        let status = self.address(STATUS_BYTE);
        self.put(HEADER, &[0; 16]);
        self.describe(at, (header, 16), NEXT, at + 1);
        self.describe(at + 1, (data, 4096), NEXT | WRITE, at + 2);
        self.describe(at + 2, (status, 1), WRITE, 0);
    }

    /// After a reset the device serves an honest driver.
    pub(crate) fn recovers(&mut self) -> Result<bool, AppError> {
        self.start()?;
        self.honest(0);
        self.offer(0);
        self.kick();
        Ok(self.verdict() == Verdict::Answered)
    }
}

impl Drop for Rig {
    /// The device lets go of the memory before it is freed.
    fn drop(&mut self) {
        self.window.write(STATUS, 0);
    }
}

pub(crate) fn half(value: u64, high: u32) -> u32 {
    u32::try_from(value >> (32 * high) & 0xffff_ffff).unwrap_or(0)
}
