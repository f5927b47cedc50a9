//! The registers of a PCI function, with wires that remember what they were told.

use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::{HIGH_MEMORY, Note, device as state};
use crate::pci::BAR_BYTES;
use crate::pci::msix::Message;
use crate::virtio::DeviceEvents;
use crate::virtio::queue::QueueAreas;
use crate::virtio::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use crate::virtio::transport::Pci;
use crate::virtio::transport::pci::Wires;

const BAR: u32 = 0xc000_4000;
const MESSAGE: Message = Message { address: 0xfee0_1000, data: 0x4055 };

/// Connected sources are read by nobody here: what they have to say stays in their eventfds.
#[derive(Debug)]
struct Told {
    events: Arc<DeviceEvents>,
    doorbells: Option<u64>,
    messages: Vec<Option<Message>>,
}

impl Wires for Told {
    fn doorbells(&mut self, first: Option<u64>) {
        self.doorbells = first;
    }

    fn connect(&mut self, source: usize, message: Option<Message>) {
        self.messages[source] = message;
    }

    fn is_pending(&self, source: usize) -> bool {
        let event = self.events.interrupts().nth(source).unwrap();
        let pending = event.read().inspect(|&count| event.write(count).unwrap()).is_ok();
        self.messages[source].is_none() && pending
    }
}

type Device = Pci<Note, Told>;

fn device(fails: bool) -> (Device, Note) {
    let (state, note, events) = state(fails);
    let told = Told { events, doorbells: None, messages: vec![None; 3] };
    (Pci::new(state, told, BAR), note)
}

fn get(device: &mut Device, offset: u64, width: usize) -> u64 {
    let mut bytes = [0; 8];
    device.read(offset, &mut bytes[..width]);
    u64::from_le_bytes(bytes)
}

fn set(device: &mut Device, offset: u64, width: usize, value: u64) {
    device.write(offset, &value.to_le_bytes()[..width]);
}

fn status(device: &mut Device) -> u32 {
    u32::try_from(get(device, 0x14, 1)).unwrap()
}

fn config(device: &mut Device, register: usize, width: usize) -> u32 {
    let mut bytes = [0; 4];
    device.config_read(register, &mut bytes[..width]);
    u32::from_le_bytes(bytes)
}

fn set_config(device: &mut Device, register: usize, width: usize, value: u32) {
    device.config_write(register, &value.to_le_bytes()[..width]);
}

/// The offsets of capabilities with this id.
fn capabilities(device: &mut Device, id: u32) -> Vec<usize> {
    let mut at = config(device, 0x34, 1) as usize;
    let mut found = Vec::new();
    while at != 0 {
        if config(device, at, 1) == id {
            found.push(at);
        }
        at = config(device, at + 1, 1) as usize;
    }
    found
}

/// The structure of this type: offset in the BAR, length.
fn structure(device: &mut Device, kind: u32) -> (u64, u64) {
    let all = capabilities(device, 9);
    let at = all.into_iter().find(|&at| config(device, at + 3, 1) == kind).unwrap();
    assert_eq!(config(device, at + 4, 1), 0, "BAR 0");
    (config(device, at + 8, 4).into(), config(device, at + 12, 4).into())
}

/// What a driver does until MSI-X is on, every vector with [`MESSAGE`], and queue 0 has vector 1,
/// the configuration vector 0.
fn connect(device: &mut Device) {
    set_config(device, 4, 2, 0x6);
    let msix = capabilities(device, 0x11)[0];
    set_config(device, msix + 2, 2, 0xc000);
    for vector in 0..3 {
        let entry = 0x2000 + 16 * vector;
        set(device, entry, 4, MESSAGE.address.into());
        set(device, entry + 8, 4, u64::from(MESSAGE.data) + vector);
        set(device, entry + 12, 4, 0);
    }
    set(device, 0x10, 2, 0);
    set(device, 0x16, 2, 0);
    set(device, 0x1a, 2, 1);
    set_config(device, msix + 2, 2, 0x8000);
}

/// What a driver does, up to DRIVER_OK; queue 1 stays unused.
fn bring_up(device: &mut Device, descriptors: u64) {
    let known = u64::from(ACKNOWLEDGE | DRIVER);
    let features_ok = known | u64::from(FEATURES_OK);
    for (offset, width, value) in [
        (0x14, 1, u64::from(ACKNOWLEDGE)),
        (0x14, 1, known),
        (0x08, 4, 1),
        (0x0c, 4, 1),
        (0x08, 4, 0),
        (0x0c, 4, 1 << 29),
        (0x14, 1, features_ok),
        (0x16, 2, 0),
        (0x18, 2, 64),
        (0x20, 4, descriptors & 0xffff_ffff),
        (0x24, 4, descriptors >> 32),
        (0x28, 8, 0x3000),
        (0x30, 8, 0x4000),
        (0x1c, 2, 1),
        (0x14, 1, features_ok | u64::from(DRIVER_OK)),
    ] {
        set(device, offset, width, value);
    }
}

#[test]
fn a_driver_finds_a_modern_device_with_its_structures() {
    let (mut device, _) = device(false);
    assert_eq!(config(&mut device, 0, 4), 0x1042_1af4);
    assert_eq!(config(&mut device, 8, 1), 1, "revision of a device without legacy interface");
    assert_eq!(config(&mut device, 6, 2), 0x10, "a list of capabilities");
    let kinds = [1, 2, 3, 4].map(|kind| structure(&mut device, kind));
    assert!(kinds.iter().all(|&(at, len)| at + len <= BAR_BYTES.into() && len > 0));
    assert!(kinds[0].1 >= 56);
    let notify = capabilities(&mut device, 9)[3];
    assert_eq!(config(&mut device, notify + 2, 1), 20);
    assert_eq!(config(&mut device, notify + 16, 4), 4, "notify_off_multiplier");
    let msix = capabilities(&mut device, 0x11)[0];
    assert_eq!(config(&mut device, msix, 4) >> 16, 2, "three vectors, off");
    assert_eq!([4, 8].map(|at| config(&mut device, msix + at, 4)), [0x2000, 0x3000]);
    let offered = [0, 1, 2].map(|select| {
        set(&mut device, 0, 4, select);
        get(&mut device, 4, 4)
    });
    assert_eq!(offered, [1 << 29 | 1 << 5, 1, 0]);
    let fields = [(0x12, 2), (0x18, 2), (0x1c, 2), (0x1e, 2), (0x10, 2), (0x1a, 2)];
    let values = fields.map(|(at, width)| get(&mut device, at, width));
    assert_eq!(values, [2, 256, 0, 0, 0xffff, 0xffff]);
    let (at, _) = structure(&mut device, 4);
    assert_eq!(get(&mut device, at, 8), 0x0403_0201);
}

#[test]
fn driver_ok_starts_the_enabled_queues_and_a_reset_stops_them() {
    let (mut device, note) = device(false);
    connect(&mut device);
    bring_up(&mut device, 0x1000);
    let ring = QueueAreas { size: 64, descriptors: 0x1000, driver: 0x3000, device: 0x4000 };
    assert_eq!(note.notes().running, Some((1 << 32 | 1 << 29, vec![Some(ring), None])));
    assert_eq!(get(&mut device, 0x400, 1), 1, "a live queue may always have used a buffer");
    set(&mut device, 0x1c, 2, 0);
    set(&mut device, 0x20, 4, 0x8000);
    assert_eq!([get(&mut device, 0x1c, 2), get(&mut device, 0x20, 4)], [1, 0x1000]);
    set(&mut device, 0x14, 1, 0);
    assert_eq!((note.is_running(), get(&mut device, 0x14, 1)), (false, 0));
    let fields = [0x18, 0x1c, 0x10, 0x1a].map(|at| get(&mut device, at, 2));
    assert_eq!(fields, [256, 0, 0xffff, 0xffff]);
    bring_up(&mut device, 0x1000);
    assert_eq!(note.notes().starts, 2);
}

#[test]
fn a_ring_above_four_gibibytes_is_served() {
    let (mut device, note) = device(false);
    bring_up(&mut device, HIGH_MEMORY + 0x1000);
    let running = note.notes().running.clone().unwrap();
    assert_eq!(running.1[0].unwrap().descriptors, HIGH_MEMORY + 0x1000);
    set(&mut device, 0x14, 1, 0);
    bring_up(&mut device, HIGH_MEMORY + (1 << 20));
    assert!(!note.is_running());
    assert_eq!(status(&mut device) & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn every_queue_interrupts_by_its_own_vector() {
    let (mut device, _) = device(false);
    connect(&mut device);
    let nth = |n| Some(Message { data: MESSAGE.data + n, ..MESSAGE });
    assert_eq!(device.wires.messages, [nth(1), None, nth(0)]);
    set(&mut device, 0x16, 2, 1);
    set(&mut device, 0x1a, 2, 2);
    assert_eq!(device.wires.messages, [nth(1), nth(2), nth(0)]);
    set(&mut device, 0x1a, 2, 3);
    assert_eq!(get(&mut device, 0x1a, 2), 0xffff, "there is no such vector");
    set(&mut device, 0x16, 2, 2);
    set(&mut device, 0x1a, 2, 0);
    assert_eq!(device.wires.messages, [nth(1), None, nth(0)], "there is no such queue");
}

#[test]
fn a_masked_vector_keeps_what_is_pending() {
    let (mut device, _) = device(false);
    connect(&mut device);
    set(&mut device, 0x2000 + 16 + 12, 4, 1);
    assert_eq!(device.wires.messages[0], None);
    assert_eq!(get(&mut device, 0x3000, 8), 0);
    device.wires.events.calls[0].write(1).unwrap();
    assert_eq!(get(&mut device, 0x3000, 8), 2, "vector 1 is pending");
    assert_eq!(get(&mut device, 0x3001, 1), 0);
    set(&mut device, 0x2000 + 16 + 12, 4, 0);
    assert!(device.wires.messages[0].is_some());
    assert_eq!(device.wires.events.calls[0].read().unwrap(), 1, "for KVM to deliver");
}

#[test]
fn the_mask_of_the_function_masks_every_vector() {
    let (mut device, _) = device(false);
    connect(&mut device);
    let msix = capabilities(&mut device, 0x11)[0];
    for control in [0xc000, 0x4000, 0] {
        set_config(&mut device, msix + 2, 2, control);
        assert_eq!(device.wires.messages, [None; 3]);
        set_config(&mut device, msix + 2, 2, 0x8000);
        assert!(device.wires.messages[0].is_some());
    }
}

#[test]
fn doorbells_follow_the_bar() {
    let (mut device, _) = device(false);
    assert_eq!(device.wires.doorbells, None);
    set_config(&mut device, 4, 2, 2);
    assert_eq!(device.wires.doorbells, Some(u64::from(BAR) + 0x1000));
    set_config(&mut device, 4, 2, 0);
    set_config(&mut device, 0x10, 4, u32::MAX);
    assert_eq!(config(&mut device, 0x10, 4), !(BAR_BYTES - 1));
    set_config(&mut device, 0x10, 4, 0xc800_0000);
    assert_eq!(device.wires.doorbells, None);
    set_config(&mut device, 4, 2, 2);
    assert_eq!(device.wires.doorbells, Some(0xc800_1000));
    for nowhere in [0, 0xfee0_0000, 0xe000_0000, 0xd000_0000] {
        set_config(&mut device, 0x10, 4, nowhere);
        assert_eq!((device.wires.doorbells, device.bar()), (None, None));
    }
}

#[test]
fn a_doorbell_that_no_eventfd_watches_kicks_all_the_same() {
    let (mut device, _) = device(false);
    set(&mut device, 0x1004, 2, 1);
    set(&mut device, 0x1008, 2, 2);
    let kicks = &device.state().events().kicks;
    assert!(kicks[0].read().is_err());
    assert_eq!(kicks[1].read().unwrap(), 1);
}

#[test]
fn registers_can_be_reached_through_the_configuration_space() {
    let (mut device, _) = device(false);
    let access = capabilities(&mut device, 9)[4];
    assert_eq!(config(&mut device, access + 3, 1), 5);
    let select = |device: &mut Device, offset, len| {
        set_config(device, access + 4, 1, 0);
        set_config(device, access + 8, 4, offset);
        set_config(device, access + 12, 4, len);
    };
    select(&mut device, 0x12, 2);
    assert_eq!(config(&mut device, access + 16, 4), 2, "number of queues");
    select(&mut device, 0x14, 1);
    set_config(&mut device, access + 16, 1, ACKNOWLEDGE);
    assert_eq!(status(&mut device), ACKNOWLEDGE);
    for (offset, len) in [(0x14, 3), (0x15, 2), (BAR_BYTES, 4), (u32::MAX, 1), (0, 0)] {
        select(&mut device, offset, len);
        set_config(&mut device, access + 16, 4, 0);
        config(&mut device, access + 16, 4);
    }
    assert_eq!(status(&mut device), ACKNOWLEDGE);
}

#[test]
fn a_backend_that_fails_leaves_a_device_that_needs_a_reset() {
    let (mut device, _) = device(true);
    bring_up(&mut device, 0x1000);
    assert_eq!(status(&mut device) & NEEDS_RESET, NEEDS_RESET);
    assert!(device.wires.is_pending(2), "the configuration has changed");
    assert_eq!([get(&mut device, 0x400, 1), get(&mut device, 0x400, 1)], [2, 0]);
    assert_eq!(get(&mut device, 0x15, 1), 1);
}

/// Accesses that have a chance to mean something: place, value, width, whether it is the
/// configuration space.
fn access() -> impl Strategy<Value = (u64, u64, usize, bool)> {
    let value = prop_oneof![
        any::<u64>(),
        0u64..0x20,
        (0u64..1 << 20).prop_map(|v| v & !0xf),
        (0u32..9).prop_map(|bit| 1 << bit),
        proptest::sample::select(vec![0u64, 1, 3, 11, 15, 64, 256, 0xc000_0000, 0xfee0_0000]),
    ];
    let place = prop_oneof![
        any::<u64>(),
        0u64..0x4000,
        0u64..0x100,
        (0u64..0x10).prop_map(|n| n * 4),
        (0u64..0x10).prop_map(|n| 0x2000 + n * 4),
        (0u64..0x10).prop_map(|n| 0x1000 + n * 4),
        proptest::sample::select(vec![0x14u64, 0x16, 0x18, 0x1c]),
    ];
    (place, value, 0usize..9, proptest::bool::weighted(0.3))
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_harms_anything(
        accesses in proptest::collection::vec(access(), 0..200),
        fails: bool,
    ) {
        let (mut device, note) = device(fails);
        for (place, value, width, in_config) in accesses {
            let mut data = vec![0xaa; width];
            let bytes = &value.to_le_bytes()[..width];
            if in_config {
                let register = usize::try_from(place).unwrap() % 4096;
                device.config_write(register, bytes);
                device.config_read(register, &mut data);
            } else {
                let width = if place == 0x14 { width.min(1) } else { width };
                device.write(place, &bytes[..width]);
                device.read(place, &mut data);
            }
            let live = device.state().status() & (DRIVER_OK | FAILED | NEEDS_RESET) == DRIVER_OK;
            assert_eq!(note.is_running(), live);
            let window = 0xc000_0000..0xd000_0000 - u64::from(BAR_BYTES) + 1;
            assert!(device.bar().is_none_or(|base| window.contains(&base)));
            assert_eq!(device.wires.doorbells, device.bar().map(|base| base + 0x1000));
            let apics = 0xfee0_0000..0xfef0_0000;
            assert!(device.wires.messages.iter().flatten().all(|m| apics.contains(&m.address)));
            assert_eq!(config(&mut device, 0, 4), 0x1042_1af4);
        }
    }
}
