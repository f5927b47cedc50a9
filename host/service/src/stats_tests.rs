//! What dispatchers and I/O domains say arrives under the same name.

use moirai_api::PartStats;
use moirai_cpu::VcpuSnapshot;
use moirai_io::{DeviceSnapshot, Spoofed};
use serde_json::{Map, Value};

use super::{add_device, add_vcpu};

/// Fields of a snapshot that are not among what a part got.
const APART: [&str; 7] = ["id", "tenant", "kind", "resource", "excused", "promised", "refills"];

/// The fields of something.
fn fields(of: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(fields)) => fields,
        other => panic!("{other:?}"),
    }
}

/// Every field of `snapshot` stands in `stats` with the same value, and all others of `stats` are
/// as they were.
fn arrived(snapshot: &Map<String, Value>, stats: &PartStats) {
    let (got, before) = (fields(stats), fields(&PartStats::default()));
    let here = |name: &String| !APART.contains(&name.as_str());
    for (name, value) in snapshot.iter().filter(|(name, _)| here(name)) {
        assert_eq!(got.get(name), Some(value), "{name}");
        assert_ne!(before.get(name), Some(value), "{name}: the test says nothing about it");
    }
    for (name, value) in got.iter().filter(|(name, _)| !here(name) || !snapshot.contains_key(*name))
    {
        assert_eq!(before.get(name), Some(value), "{name}");
    }
}

#[test]
fn what_a_dispatcher_says_of_a_vcpu_arrives() {
    let vcpu = VcpuSnapshot {
        id: 1,
        tenant: "a".to_owned(),
        stale: true,
        guaranteed_ns: 2,
        extra_ns: 3,
        misses: 4,
        misses_in_stall: 5,
        excused: Vec::new(),
        not_kept: Some("why".to_owned()),
        promised: true,
        stall_loss_ns: 6,
        refills: 7,
        least_slice_ns: Some(8),
    };
    let mut stats = PartStats::default();
    add_vcpu(&mut stats, &vcpu);
    arrived(&fields(&vcpu), &stats);
}

#[test]
fn what_an_event_loop_says_of_a_device_arrives() {
    let device = DeviceSnapshot {
        id: 1,
        tenant: "a".to_owned(),
        stale: true,
        kind: "disk",
        resource: "ssd".to_owned(),
        guaranteed_ns: 2,
        extra_ns: 3,
        misses: 4,
        misses_in_stall: 5,
        excused: Vec::new(),
        stall_loss_ns: 6,
        queued: 7,
        queued_max: 8,
        in_flight: 9,
        completed: 10,
        bytes: 11,
        latency_max_ns: 12,
        io_cpu_ns: 13,
        direct_bytes: 14,
        copied_by_us_bytes: 15,
        copied_by_kernel_bytes: 16,
        read_modify_writes: 17,
        errors: 18,
        dropped_tx: 19,
        spoofed: Spoofed { mac: 20, arp: 21, ip: 22, neighbour: 23, router: 24, hidden: 25 },
        over_budget: 26,
        receive_cpu_ns: 27,
        dropped_rx: 28,
        received: 29,
        direct_io: Some(true),
        failed: Some("broken".to_owned()),
        not_kept: Some("why".to_owned()),
    };
    let mut stats = PartStats::default();
    add_device(&mut stats, &device);
    arrived(&fields(&device), &stats);
}
