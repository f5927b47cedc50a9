//! What fuzz targets share: bytes that are consumed, and a guest whose rings and memory are bytes.
//!
//! Each target is one parser that somebody reaches who is not to be trusted. It gives libFuzzer's
//! bytes to the same functions that production calls, and checks what must hold whatever the bytes
//! are. A panic, an abort, an endless loop or much memory is a finding; `run.sh` keeps its input.
//!
//! | target | who sends it | what takes it |
//! | --- | --- | --- |
//! | `vhost` | a vhost-user peer | a session: messages, memory tables, rings, notes in flight |
//! | `blk`, `net`, `vsock`, `balloon`, `console` | a guest's driver | chains and their contents |
//! | `qcow2` | whoever made an image | headers, tables, chains of images |
//! | `image` | an image process | answers to the host service, windows of clusters |
//! | `kernel` | whoever made a kernel | ELF and bzImage |
//! | `config` | an operator | configurations and what is checked in them |
//! | `launch` | a tenant process | messages to the host service |
//! | `film` | whoever made a film | transport streams |

use std::sync::Arc;

use moirai_devices::memory::GuestMemory;
use moirai_devices::mock::{Driver, RING_BYTES, memory};
use moirai_devices::virtqueue::Descriptor;
use virtio_queue::Queue;
use vm_memory::{Bytes as _, GuestAddress};

/// Guest memory of a target, in bytes.
pub const MEMORY: u64 = 1 << 17;
/// Where a guest has its data.
pub const DATA: u64 = 3 * RING_BYTES;
/// Size of its queues.
pub const QUEUE: u16 = 16;

/// Bytes that are consumed from the front; zeros follow the last one.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// The next two bytes as a number.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next so many bytes, or what is left.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        head
    }
}

/// A guest with up to three queues.
pub struct Guest {
    /// What its device may touch.
    pub memory: Arc<GuestMemory>,
    /// Its side of the queues.
    pub drivers: Vec<Driver>,
    /// The device's.
    pub queues: Vec<Queue>,
}

impl Guest {
    /// A guest with empty rings.
    pub fn new(queues: u64) -> Self {
        let memory = memory(usize::try_from(MEMORY).expect("small"));
        let driver = |n| Driver::new(Arc::clone(&memory), n * RING_BYTES, QUEUE);
        let drivers: Vec<_> = (0..queues.min(3)).map(driver).collect();
        let queues = drivers.iter().map(Driver::queue).collect();
        Self { memory, drivers, queues }
    }

    /// Writes what the bytes say: data anywhere, whole chains, or into the rings themselves.
    pub fn act(&mut self, input: &mut Input<'_>) {
        match input.byte() % 4 {
            0 => {
                let at = u64::from(input.short()) * 2 % MEMORY;
                let length = usize::from(input.byte());
                let _ = self.memory.write_slice(input.take(length), GuestAddress(at));
            }
            1 => {
                let length = usize::from(input.byte());
                let _ = self.memory.write_slice(input.take(length), GuestAddress(DATA));
            }
            choice => {
                let queue = usize::from(input.byte()) % self.drivers.len();
                let chain: Vec<_> = (0..=input.byte() % 6).map(|_| descriptor(input)).collect();
                let driver = &mut self.drivers[queue];
                match choice {
                    2 => driver.post(&chain),
                    _ => driver.post_indirect(DATA + 0x8000, &chain),
                };
            }
        }
    }
}

fn descriptor(input: &mut Input<'_>) -> Descriptor {
    let kind = input.byte();
    let addr = match kind >> 1 & 3 {
        0 => DATA,
        1 => DATA + u64::from(input.byte()) * 16,
        2 => u64::from(input.short()) * 4,
        _ => u64::from(input.short()) << 48 | u64::from(input.short()),
    };
    let len = match kind >> 3 & 3 {
        0 => u32::from(input.byte()),
        1 => u32::from(input.byte()) * 512,
        2 => u32::from(input.short()),
        _ => u32::from(input.short()) << 16 | u32::from(input.short()),
    };
    Descriptor { addr: GuestAddress(addr), len, writable: kind & 1 == 1 }
}
