//! The registers before a backend that only takes notes.

mod mmio;
mod pci;

use std::sync::{Arc, Mutex, MutexGuard};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::State;
use crate::virtio::backend::copy_config;
use crate::virtio::queue::QueueAreas;
use crate::virtio::{Backend, BackendError, DeviceEvents, VhostError};

const MEMORY_BYTES: u64 = 1 << 20;
/// Where a second megabyte of memory is, above 4 GiB.
const HIGH_MEMORY: u64 = 5 << 30;
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 5;

/// What the backend was asked for.
#[derive(Debug, Default)]
struct Notes {
    running: Option<(u64, Vec<Option<QueueAreas>>)>,
    starts: usize,
    config_writes: Vec<(u64, Vec<u8>)>,
}

/// Takes notes, and fails on demand.
#[derive(Clone, Debug, Default)]
struct Note {
    notes: Arc<Mutex<Notes>>,
    fails: bool,
}

impl Note {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    fn is_running(&self) -> bool {
        self.notes().running.is_some()
    }
}

impl Backend for Note {
    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&[1, 2, 3, 4], offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.notes().config_writes.push((offset, data.to_vec()));
    }

    fn start(&mut self, features: u64, queues: &[Option<QueueAreas>]) -> Result<(), BackendError> {
        assert!(!self.is_running(), "started twice");
        if self.fails {
            return Err(VhostError::Closed.into());
        }
        for ring in queues.iter().flatten() {
            let size = u64::from(ring.size);
            for (start, len) in [
                (ring.descriptors, 16 * size),
                (ring.driver, 6 + 2 * size),
                (ring.device, 6 + 8 * size),
            ] {
                let start = start.checked_sub(HIGH_MEMORY).unwrap_or(start);
                assert!(start + len <= MEMORY_BYTES);
            }
        }
        assert_eq!(features & !FEATURES, 0, "features that were not offered");
        let mut notes = self.notes();
        notes.starts += 1;
        notes.running = Some((features, queues.to_vec()));
        Ok(())
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        assert!(self.notes().running.take().is_some(), "stopped while not running");
        Ok(())
    }
}

/// A block device with two queues of 256, and its backend.
fn device(fails: bool) -> (State<Note>, Note, Arc<DeviceEvents>) {
    let len = usize::try_from(MEMORY_BYTES).unwrap();
    let regions = [(GuestAddress(0), len), (GuestAddress(HIGH_MEMORY), len)];
    let memory = GuestMemoryMmap::from_ranges(&regions).unwrap();
    let events = DeviceEvents::new(2).unwrap();
    let note = Note { fails, ..Note::default() };
    (State::new(note.clone(), memory, Arc::clone(&events), 2, 256), note, events)
}
