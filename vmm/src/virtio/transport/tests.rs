//! The transport before a backend that only takes notes.

use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::Transport;
use crate::virtio::backend::copy_config;
use crate::virtio::queue::Ring;
use crate::virtio::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use crate::virtio::{Backend, BackendError, DeviceEvents, VhostError};

const MEMORY_BYTES: u64 = 1 << 20;
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 5;
const STATUS: u64 = 0x70;

/// Notes what it is asked for, and fails on demand.
#[derive(Debug, Default)]
struct Notes {
    running: Option<(u64, Vec<Option<Ring>>)>,
    starts: usize,
    config_writes: Vec<(u64, Vec<u8>)>,
    fails: bool,
}

impl Backend for Notes {
    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&[1, 2, 3, 4], offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.config_writes.push((offset, data.to_vec()));
    }

    fn start(&mut self, features: u64, queues: &[Option<Ring>]) -> Result<(), BackendError> {
        assert!(self.running.is_none(), "started twice");
        if self.fails {
            return Err(VhostError::Closed.into());
        }
        for ring in queues.iter().flatten() {
            assert!(ring.descriptors + 16 * u64::from(ring.size) <= MEMORY_BYTES);
            assert!(ring.driver + 6 + 2 * u64::from(ring.size) <= MEMORY_BYTES);
            assert!(ring.device + 6 + 8 * u64::from(ring.size) <= MEMORY_BYTES);
        }
        assert_eq!(features & !FEATURES, 0, "features that were not offered");
        self.starts += 1;
        self.running = Some((features, queues.to_vec()));
        Ok(())
    }

    fn stop(&mut self) -> Result<(), BackendError> {
        assert!(self.running.take().is_some(), "stopped while not running");
        Ok(())
    }
}

fn device(fails: bool) -> Transport<Notes> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let events = DeviceEvents::new(2).unwrap();
    Transport::new(Notes { fails, ..Notes::default() }, memory, events, 2, 256)
}

fn get(device: &Transport<Notes>, offset: u64) -> u32 {
    let mut word = [0; 4];
    device.read(offset, &mut word);
    u32::from_le_bytes(word)
}

fn set(device: &mut Transport<Notes>, offset: u64, value: u32) {
    device.write(offset, &value.to_le_bytes());
}

/// Whether the device has interrupted because of its configuration since the last time.
fn interrupted(device: &Transport<Notes>) -> bool {
    device.events.config.interrupt().read().is_ok()
}

/// Does what a driver does, up to DRIVER_OK; queue 1 stays unused. Returns whether that ends in an
/// interrupt.
fn bring_up(device: &mut Transport<Notes>, descriptors: u32) -> bool {
    let known = ACKNOWLEDGE | DRIVER;
    let steps = [
        (STATUS, ACKNOWLEDGE),
        (STATUS, known),
        (0x24, 1),
        (0x20, 1),
        (0x24, 0),
        (0x20, 1 << 29),
        (STATUS, known | FEATURES_OK),
        (0x30, 0),
        (0x38, 64),
        (0x80, descriptors),
        (0x90, 0x3000),
        (0xa0, 0x4000),
        (0x44, 1),
    ];
    for (offset, value) in steps {
        set(device, offset, value);
    }
    assert!(!interrupted(device));
    set(device, STATUS, known | FEATURES_OK | DRIVER_OK);
    interrupted(device)
}

const LIVE: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

#[test]
fn a_driver_finds_a_modern_device() {
    let device = device(false);
    assert_eq!([get(&device, 0), get(&device, 4), get(&device, 8)], [0x7472_6976, 2, 2]);
    let mut config = [9; 8];
    device.read(0x102, &mut config);
    assert_eq!(config, [3, 4, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn driver_ok_starts_the_ready_queues_with_the_chosen_features() {
    let mut device = device(false);
    assert!(!bring_up(&mut device, 0x1000));
    let ring = Ring { size: 64, descriptors: 0x1000, driver: 0x3000, device: 0x4000 };
    let expected = Some((1 << 32 | 1 << 29, vec![Some(ring), None]));
    assert_eq!(device.backend.running, expected);
    assert_eq!(get(&device, 0x60), 1, "a live queue may always have used a buffer");
    set(&mut device, STATUS, 0);
    assert_eq!((device.backend.running.is_none(), get(&device, STATUS)), (true, 0));
    assert!(!bring_up(&mut device, 0x1000));
    assert_eq!(device.backend.starts, 2);
}

#[test]
fn a_driver_that_takes_features_that_were_not_offered_does_not_get_features_ok() {
    for (low, high) in [(1 << 3, 1), (0, 0), (0, 3)] {
        let mut device = device(false);
        let known = ACKNOWLEDGE | DRIVER;
        for (offset, value) in
            [(STATUS, known), (0x20, low), (0x24, 1), (0x20, high), (STATUS, known | FEATURES_OK)]
        {
            set(&mut device, offset, value);
        }
        assert_eq!(get(&device, STATUS), known);
    }
}

#[test]
fn a_ring_outside_memory_leaves_a_device_that_needs_a_reset() {
    let mut device = device(false);
    assert!(bring_up(&mut device, 0xffff_f000));
    assert_eq!(get(&device, STATUS), LIVE | NEEDS_RESET);
    assert_eq!(get(&device, 0x60), 2, "configuration change");
    set(&mut device, 0x64, 2);
    assert_eq!(get(&device, 0x60), 0);
    set(&mut device, STATUS, 0);
    assert!(!bring_up(&mut device, 0x1000));
}

#[test]
fn a_backend_that_fails_leaves_a_device_that_needs_a_reset() {
    let mut device = device(true);
    assert!(bring_up(&mut device, 0x1000));
    assert!(matches!(device.take_error(), Some(BackendError::Vhost(VhostError::Closed))));
    assert_eq!(get(&device, STATUS), LIVE | NEEDS_RESET);
}

#[test]
fn a_driver_that_gives_up_stops_the_device() {
    let mut device = device(false);
    assert!(!bring_up(&mut device, 0x1000));
    set(&mut device, STATUS, FAILED);
    assert!(device.backend.running.is_none());
    assert_eq!(get(&device, STATUS) & FAILED, FAILED);
}

#[test]
fn a_live_queue_cannot_be_moved() {
    let mut device = device(false);
    assert!(!bring_up(&mut device, 0x1000));
    set(&mut device, 0x44, 0);
    set(&mut device, 0x80, 0x8000);
    assert_eq!(get(&device, 0x44), 1);
    assert_eq!(device.queues[0].descriptors, 0x1000);
}

/// Accesses that have a chance to mean something.
fn access() -> impl Strategy<Value = (u64, u32, usize)> {
    let value = prop_oneof![
        any::<u32>(),
        0u32..0x20,
        (0u32..1 << 20).prop_map(|v| v & !0xf),
        (0u32..9).prop_map(|bit| 1 << bit),
        proptest::sample::select(vec![0u32, 1, 3, 11, 15, 64, 256]),
    ];
    let offset = prop_oneof![0u64..0x1000, (0u64..0x40).prop_map(|n| n * 4)];
    (offset, value, 0usize..9)
}

proptest! {
    #[test]
    fn no_sequence_of_register_accesses_harms_anything(
        accesses in proptest::collection::vec(access(), 0..200),
        fails: bool,
    ) {
        let mut device = device(fails);
        for (offset, value, width) in accesses {
            let bytes = u64::from(value).to_le_bytes();
            // Register writes are words mostly, else nothing would come of them.
            let width = if width < 6 { 4 } else { width };
            device.write(offset, &bytes[..width]);
            let mut data = vec![0xaa; width];
            device.read(offset, &mut data);
            let live = device.status() & (DRIVER_OK | FAILED | NEEDS_RESET) == DRIVER_OK;
            assert_eq!(device.backend.running.is_some(), live);
        }
    }
}
