//! The bus with functions that are nothing but a configuration space.

use std::sync::Mutex;

use moirai_abi::machine::PCI_ECAM_BASE;
use proptest::prelude::{any, proptest};

use super::config::{ConfigSpace, Identity};
use super::{ADDRESS_PORT, BAR_BYTES, DATA_PORT, Function, HostBridge, bar_base};

struct Plain(Mutex<ConfigSpace>);

impl Function for Plain {
    fn config_read(&self, register: usize, data: &mut [u8]) {
        self.0.lock().unwrap().read(register, data);
    }

    fn config_write(&self, register: usize, data: &[u8]) {
        self.0.lock().unwrap().write(register, data);
    }
}

fn functions() -> [Plain; 2] {
    [0x1042, 0x1041].map(|device| {
        let (vendor, class) = (0x1af4, 0x00ff);
        let mut space =
            ConfigSpace::new(Identity { vendor, device, revision: 1, class, subsystem: 0x40 });
        space.set_bar(bar_base(0), BAR_BYTES);
        Plain(Mutex::new(space))
    })
}

fn ecam(bridge: &HostBridge, functions: &[Plain], offset: u64) -> u32 {
    let mut word = [0; 4];
    bridge.memory_read(functions, PCI_ECAM_BASE + offset, &mut word);
    u32::from_le_bytes(word)
}

fn port(bridge: &HostBridge, functions: &[Plain], address: u32) -> u32 {
    bridge.port_write(functions, ADDRESS_PORT, &address.to_le_bytes());
    let mut word = [0; 4];
    bridge.port_read(functions, DATA_PORT, &mut word);
    u32::from_le_bytes(word)
}

#[test]
fn both_ways_find_the_bridge_and_the_functions_and_nothing_else() {
    let (bridge, functions) = (HostBridge::default(), functions());
    for device in 0..32 {
        for function in 0..8 {
            let expected = match (device, function) {
                (0, 0) => 0x0008_1b36,
                (1, 0) => 0x1042_1af4,
                (2, 0) => 0x1041_1af4,
                _ => u32::MAX,
            };
            let number = device << 3 | function;
            assert_eq!(ecam(&bridge, &functions, u64::from(number) << 12), expected);
            assert_eq!(port(&bridge, &functions, 1 << 31 | number << 8), expected);
        }
    }
    assert_eq!(port(&bridge, &functions, 0), u32::MAX, "not enabled");
    assert_eq!(port(&bridge, &functions, 1 << 31 | 1 << 16), u32::MAX, "no second bus");
    assert_eq!(ecam(&bridge, &functions, 0x8100), u32::MAX, "no extended capabilities");
}

#[test]
fn single_bytes_of_the_data_register_can_be_used() {
    let (bridge, functions) = (HostBridge::default(), functions());
    bridge.port_write(&functions, ADDRESS_PORT, &(1u32 << 31 | 1 << 11 | 0x3c).to_le_bytes());
    bridge.port_write(&functions, DATA_PORT, &[7]);
    let mut byte = [0];
    bridge.port_read(&functions, DATA_PORT, &mut byte);
    assert_eq!(byte, [7]);
    bridge.port_read(&functions, DATA_PORT + 1, &mut byte);
    assert_eq!(byte, [0], "no interrupt pin");
    assert_eq!(ecam(&bridge, &functions, 0x803c), 7);
}

proptest! {
    #[test]
    fn no_access_to_the_bus_harms_anything(
        accesses in proptest::collection::vec(
            (any::<u32>(), 0usize..9, any::<u64>(), 0u8..4),
            0..100,
        ),
    ) {
        let (bridge, functions) = (HostBridge::default(), functions());
        for (place, width, value, way) in accesses {
            let bytes = &value.to_le_bytes()[..width];
            let mut data = vec![0; width];
            let address = match way {
                0 => PCI_ECAM_BASE + u64::from(place & 0xf_ffff),
                _ => u64::from(place) << 8,
            };
            let number = ADDRESS_PORT + u16::try_from(place % 8).unwrap();
            bridge.memory_write(&functions, address, bytes);
            bridge.memory_read(&functions, address, &mut data);
            bridge.port_write(&functions, number, bytes);
            bridge.port_read(&functions, number, &mut data);
            assert_eq!(ecam(&bridge, &functions, 0x8000), 0x1042_1af4);
        }
    }
}
