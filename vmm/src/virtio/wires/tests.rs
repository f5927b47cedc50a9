//! The wires of a function on a real VM; no guest runs in it, its local APIC tells what arrives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_ioctls::{Kvm, VcpuFd};
use proptest::prelude::{ProptestConfig, any, proptest};

use super::{KvmWires, Wires};
use crate::interrupts::Interrupts;
use crate::pci::msix::Message;
use crate::virtio::DeviceEvents;

const SPURIOUS_VECTOR: usize = 0xf0;
const APIC_ENABLED: u8 = 1;
/// First of the eight registers of 32 requested vectors.
const REQUESTED: usize = 0x200;

struct Machine {
    events: Arc<DeviceEvents>,
    wires: KvmWires,
    vcpu: VcpuFd,
}

/// A machine whose device has two queues; its first vCPU takes interrupts, and never gets to them.
fn machine() -> Machine {
    let vm = Arc::new(Kvm::new().expect("these tests need /dev/kvm").create_vm().unwrap());
    vm.create_irq_chip().unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    let mut lapic = vcpu.get_lapic().unwrap();
    lapic.regs[SPURIOUS_VECTOR + 1] |= APIC_ENABLED.cast_signed();
    vcpu.set_lapic(&lapic).unwrap();
    let events = DeviceEvents::new(2).unwrap();
    let wires = KvmWires::new(Arc::new(Interrupts::new(vm)), Arc::clone(&events));
    Machine { events, wires, vcpu }
}

fn message(vector: u8) -> Message {
    Message { address: 0xfee0_0000, data: vector.into() }
}

impl Machine {
    fn has_arrived(&self, vector: u8) -> bool {
        let lapic = self.vcpu.get_lapic().unwrap();
        let register = REQUESTED + 16 * usize::from(vector / 32);
        let byte = lapic.regs[register + usize::from(vector % 32 / 8)].cast_unsigned();
        byte & 1 << (vector % 8) != 0
    }

    /// What was pending goes through a worker of the kernel.
    fn arrives(&self, vector: u8) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if self.has_arrived(vector) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

#[test]
fn every_source_sends_the_message_that_it_has_now() {
    let mut machine = machine();
    machine.wires.connect(0, Some(message(0x51)));
    machine.wires.connect(1, Some(message(0x52)));
    machine.wires.connect(2, Some(message(0x53)));
    machine.events.calls[1].write(1).unwrap();
    assert!(machine.arrives(0x52));
    machine.events.config.announce();
    assert!(machine.arrives(0x53));
    machine.wires.connect(0, Some(message(0x61)));
    machine.events.calls[0].write(1).unwrap();
    assert!(machine.arrives(0x61));
    assert!(!machine.has_arrived(0x51));
}

#[test]
fn what_happens_while_a_vector_is_masked_arrives_afterwards() {
    let mut machine = machine();
    machine.wires.connect(0, Some(message(0x51)));
    machine.wires.connect(0, None);
    assert!(!machine.wires.is_pending(0));
    machine.events.calls[0].write(1).unwrap();
    assert!(machine.wires.is_pending(0));
    machine.wires.connect(0, Some(message(0x52)));
    assert!(machine.arrives(0x52));
    assert!(!machine.has_arrived(0x51) && !machine.wires.is_pending(0));
    machine.wires.connect(0, None);
    assert!(!machine.wires.is_pending(0), "it was delivered once");
}

#[test]
fn two_queues_may_share_a_vector() {
    let mut machine = machine();
    for source in [0, 1] {
        machine.wires.connect(source, Some(message(0x51)));
    }
    machine.events.calls[1].write(1).unwrap();
    assert!(machine.arrives(0x51));
}

#[test]
fn two_functions_at_one_place_do_not_take_each_others_doorbells_away() {
    let mut first = machine();
    let events = DeviceEvents::new(2).unwrap();
    let mut second = KvmWires::new(Arc::clone(&first.wires.interrupts), events);
    first.wires.doorbells(Some(0xc000_1000));
    second.doorbells(Some(0xc000_1000));
    assert_eq!(second.doorbells, [None, None]);
    second.doorbells(Some(0xc000_5000));
    second.doorbells(None);
    second.doorbells(Some(0xc000_5000));
    assert_eq!(second.doorbells, [Some(0xc000_5000), Some(0xc000_5004)]);
    assert_eq!(first.wires.doorbells, [Some(0xc000_1000), Some(0xc000_1004)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_a_driver_did_before_the_next_one_gets_its_interrupts(
        steps in proptest::collection::vec((0usize..3, any::<u32>(), any::<u32>(), 0u8..4), 0..40),
    ) {
        let mut machine = machine();
        for (source, address, data, what) in steps {
            match what {
                0 => machine.wires.connect(source, Some(Message { address, data })),
                1 => machine.wires.connect(source, None),
                2 => machine.wires.doorbells(data.is_multiple_of(2).then_some(address.into())),
                _ => machine.events.interrupts().nth(source).unwrap().write(1).unwrap(),
            }
        }
        machine.events.forget_interrupts();
        for (source, vector) in (0..3).zip(0x31..) {
            machine.wires.connect(source, Some(message(vector)));
            machine.events.interrupts().nth(source).unwrap().write(1).unwrap();
            assert!(machine.arrives(vector));
        }
        machine.wires.doorbells(Some(0xc000_1000));
        assert_eq!(machine.wires.doorbells, [Some(0xc000_1000), Some(0xc000_1004)]);
    }
}
