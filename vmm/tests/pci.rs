//! Guests that drive a device on PCI, through configuration space and BAR, on real KVM.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use moirai_launch::{DeviceSpec, LaunchSpec, Transport};
use support::backend::{Heard, serve};
use support::image::{Code, Notes, image};
use support::{Tenant, file, gates, spec};

/// Configuration space of device 1.
const CONFIG: u32 = 0xe000_8000;
const COMMAND: u32 = CONFIG + 4;
const COMMAND_MEMORY: u32 = 2;
const BAR_REGISTER: u32 = CONFIG + 0x10;
const BAR: u32 = 0xc000_0000;
const OTHER_BAR: u32 = 0xc800_0000;
const NOTIFY: u32 = 0x1000;

/// mov edi, address; mov byte [rdi], value.
fn byte(code: Code, address: u32, value: u8) -> Code {
    code.raw(&[0xbf]).raw(&address.to_le_bytes()).raw(&[0xc6, 0x07, value])
}

/// mov edi, address; mov word [rdi], value.
fn half(code: Code, address: u32, value: u16) -> Code {
    code.raw(&[0xbf]).raw(&address.to_le_bytes()).raw(&[0x66, 0xc7, 0x07]).raw(&value.to_le_bytes())
}

/// Brings the device at `bar` up, with its queue 1 only.
fn bring_up(code: Code, bar: u32) -> Code {
    let code = byte(code, bar + 0x14, 1);
    let code = byte(code, bar + 0x14, 3).store(bar + 8, 1).store(bar + 12, 1);
    let code = half(byte(code, bar + 0x14, 11), bar + 0x16, 1);
    let code = half(code, bar + 0x18, 64)
        .store(bar + 0x20, 0x20_0000)
        .store(bar + 0x28, 0x20_2000)
        .store(bar + 0x30, 0x20_4000);
    byte(half(code, bar + 0x1c, 1), bar + 0x14, 15)
}

/// Launches `code` with one device of two queues.
fn launch(code: &Code) -> (Tenant, Arc<Mutex<Heard>>) {
    let spec = LaunchSpec {
        devices: vec![DeviceSpec { device_id: 2, queues: 2, queue_size: 64 }],
        transport: Transport::Pci,
        ..spec()
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (heard, _) = serve(theirs);
    let device: OwnedFd = ours.into();
    let image = file(&image(&code.0, Notes::Pvh));
    let tenant = Tenant::launch_with(&spec, image, gates(1), vec![device]);
    tenant.running();
    (tenant, heard)
}

/// How often queue 1 was kicked.
fn kicks(heard: &Heard) -> u64 {
    let mut count = [0; 8];
    let (index, kick) = heard.kicks.last().unwrap();
    assert_eq!(*index, 1);
    rustix::io::read(kick, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

#[test]
fn a_guest_drives_a_device_through_its_bar_and_resets_it() {
    let code = Code::default().store(COMMAND, COMMAND_MEMORY);
    let code = half(bring_up(code, BAR), BAR + NOTIFY + 4, 1).print("up\n");
    let code = byte(code, BAR + 0x14, 0).print("reset\n").spin();
    let (mut tenant, heard) = launch(&code);
    let mut seen = tenant.expect("up\n");
    if !seen.contains("reset\n") {
        seen += &tenant.expect("reset\n");
    }
    let heard = heard.lock().unwrap();
    assert_eq!(heard.addresses, [(1, 0x20_0000, 0x20_2000, 0x20_4000)]);
    assert_eq!(kicks(&heard), 1, "{seen}");
    assert_eq!(heard.stopped, [1], "the reset waited for the backend");
}

#[test]
fn doorbells_follow_a_bar_that_the_guest_moves() {
    let code = bring_up(Code::default().store(COMMAND, COMMAND_MEMORY), BAR);
    let code = code
        .store(COMMAND, 0)
        .store(BAR_REGISTER, u32::MAX)
        .store(BAR_REGISTER, OTHER_BAR)
        .store(COMMAND, COMMAND_MEMORY);
    // Two where it was, one where it is.
    let code = half(half(code, BAR + NOTIFY + 4, 1), BAR + NOTIFY + 4, 1);
    let code = half(code, OTHER_BAR + NOTIFY + 4, 1).print("moved\n").spin();
    let (mut tenant, heard) = launch(&code);
    tenant.expect("moved\n");
    assert_eq!(kicks(&heard.lock().unwrap()), 1);
}

#[test]
fn a_bar_on_ram_or_on_an_apic_changes_neither() {
    let code = bring_up(Code::default().store(COMMAND, COMMAND_MEMORY), BAR);
    let code = [0x20_0000, 0xfee0_0000, 0xfec0_0000, 0xe000_8000, 0xffff_c000]
        .into_iter()
        .fold(code, |code, base| half(code.store(BAR_REGISTER, base), base + NOTIFY + 4, 1))
        .store(BAR_REGISTER, BAR);
    let code = half(code, BAR + NOTIFY + 4, 1).print("alive\n").power_off();
    let (mut tenant, heard) = launch(&code);
    tenant.expect("alive\n");
    assert_eq!(kicks(&heard.lock().unwrap()), 1);
}

#[test]
fn a_guest_finds_its_devices_through_ports_too() {
    // mov edx, 0xcf8; mov eax, address; out dx, eax; mov edx, 0xcfe; in ax, dx; then both bytes of
    // ax to the serial port.
    let read_upper_half = |code: Code, address: u32| {
        code.raw(&[0xba, 0xf8, 0x0c, 0, 0, 0xb8])
            .raw(&address.to_le_bytes())
            .raw(&[0xef, 0xba, 0xfe, 0x0c, 0, 0, 0x66, 0xed])
            .raw(&[0xba, 0xf8, 3, 0, 0, 0xee, 0x88, 0xe0, 0xee])
    };
    let code = read_upper_half(Code::default(), 1 << 31 | 1 << 11);
    let code = read_upper_half(code, 1 << 31 | 3 << 11).power_off();
    let (mut tenant, _heard) = launch(&code);
    let mut ids = [0; 4];
    tenant.console.read_exact(&mut ids).unwrap();
    assert_eq!(ids, [0x42, 0x10, 0xff, 0xff]);
}
