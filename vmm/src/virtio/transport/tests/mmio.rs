//! The registers of a window.

use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::{Note, device as state};
use crate::virtio::queue::QueueAreas;
use crate::virtio::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use crate::virtio::transport::Mmio;
use crate::virtio::{BackendError, VhostError};

const STATUS: u64 = 0x70;

fn device(fails: bool) -> (Mmio<Note>, Note) {
    let (state, note, _) = state(fails);
    (Mmio::new(state), note)
}

fn get(device: &Mmio<Note>, offset: u64) -> u32 {
    let mut word = [0; 4];
    device.read(offset, &mut word);
    u32::from_le_bytes(word)
}

fn set(device: &mut Mmio<Note>, offset: u64, value: u32) {
    device.write(offset, &value.to_le_bytes());
}

/// Whether the device has interrupted because of its configuration since the last time.
fn interrupted(device: &Mmio<Note>) -> bool {
    let events = device.state.events();
    events.interrupts().last().unwrap().read().is_ok()
}

/// Does what a driver does, up to DRIVER_OK; queue 1 stays unused. Returns whether that ends in an
/// interrupt.
fn bring_up(device: &mut Mmio<Note>, descriptors: u32) -> bool {
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
    let (device, _) = device(false);
    assert_eq!([get(&device, 0), get(&device, 4), get(&device, 8)], [0x7472_6976, 2, 2]);
    let mut config = [9; 8];
    device.read(0x102, &mut config);
    assert_eq!(config, [3, 4, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_backend_hears_of_writes_into_its_configuration() {
    let (mut device, note) = device(false);
    device.write(0x104, &7u32.to_le_bytes());
    device.write(0x101, &[9]);
    assert_eq!(note.notes().config_writes, [(4, vec![7, 0, 0, 0]), (1, vec![9])]);
}

#[test]
fn a_changed_configuration_shows_until_it_is_acknowledged() {
    let (mut device, _) = device(false);
    assert!(!bring_up(&mut device, 0x1000));
    let generation = get(&device, 0xfc);
    device.state.events().config.announce();
    assert!(interrupted(&device));
    assert_eq!((get(&device, 0x60), get(&device, 0xfc)), (1 | 2, generation + 1));
    set(&mut device, 0x64, 1);
    assert_eq!(get(&device, 0x60), 1 | 2);
    set(&mut device, 0x64, 2);
    assert_eq!(get(&device, 0x60), 1);
}

#[test]
fn driver_ok_starts_the_ready_queues_with_the_chosen_features() {
    let (mut device, note) = device(false);
    assert!(!bring_up(&mut device, 0x1000));
    let ring = QueueAreas { size: 64, descriptors: 0x1000, driver: 0x3000, device: 0x4000 };
    let expected = Some((1 << 32 | 1 << 29, vec![Some(ring), None]));
    assert_eq!(note.notes().running, expected);
    assert_eq!(get(&device, 0x60), 1, "a live queue may always have used a buffer");
    set(&mut device, STATUS, 0);
    assert_eq!((!note.is_running(), get(&device, STATUS)), (true, 0));
    assert!(!bring_up(&mut device, 0x1000));
    assert_eq!(note.notes().starts, 2);
}

#[test]
fn a_driver_that_takes_features_that_were_not_offered_does_not_get_features_ok() {
    for (low, high) in [(1 << 3, 1), (0, 0), (0, 3)] {
        let (mut device, _) = device(false);
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
    let (mut device, _) = device(false);
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
    let (mut device, _) = device(true);
    assert!(bring_up(&mut device, 0x1000));
    assert!(matches!(device.state.take_error(), Some(BackendError::Vhost(VhostError::Closed))));
    assert_eq!(get(&device, STATUS), LIVE | NEEDS_RESET);
}

#[test]
fn a_driver_that_gives_up_stops_the_device() {
    let (mut device, note) = device(false);
    assert!(!bring_up(&mut device, 0x1000));
    set(&mut device, STATUS, FAILED);
    assert!(!note.is_running());
    assert_eq!(get(&device, STATUS) & FAILED, FAILED);
}

#[test]
fn a_live_queue_cannot_be_moved() {
    let (mut device, _) = device(false);
    assert!(!bring_up(&mut device, 0x1000));
    set(&mut device, 0x44, 0);
    set(&mut device, 0x80, 0x8000);
    assert_eq!(get(&device, 0x44), 1);
    assert_eq!(device.state.queue(0).unwrap().descriptors, 0x1000);
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
        let (mut device, note) = device(fails);
        for (offset, value, width) in accesses {
            let bytes = u64::from(value).to_le_bytes();
            // Register writes are words mostly, else nothing would come of them.
            let width = if width < 6 { 4 } else { width };
            device.write(offset, &bytes[..width]);
            let mut data = vec![0xaa; width];
            device.read(offset, &mut data);
            let live = device.state.status() & (DRIVER_OK | FAILED | NEEDS_RESET) == DRIVER_OK;
            assert_eq!(note.is_running(), live);
        }
    }
}
