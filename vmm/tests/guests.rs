//! Small guests on real KVM, started as the host service starts them.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use moirai_abi::machine::{
    END_STATUS_PORT, IOAPIC_BASE, LAPIC_BASE, POWER_BUTTON_GSI, VIRTIO_MMIO_BASE,
};
use moirai_launch::{Boot, DeviceSpec, Ended, ExitReason, FromHost, LaunchSpec, Sandbox, ToHost};
use support::image::{Code, Notes, image, image_with};
use support::{Tenant, backend, file, gates, spec};

fn exit_reason(tenant: &Tenant) -> ExitReason {
    match tenant.message() {
        ToHost::Exited { reason, .. } => reason,
        other => panic!("expected Exited, got {other:?}"),
    }
}

/// Waits, with a limit that only a broken program reaches.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "still not so: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_ring_3_guest_prints_and_powers_off() {
    let code = Code::default().print("hello\n").power_off();
    let mut tenant = Tenant::launch(&spec(), file(&image(&code.0, Notes::Ring3)));
    assert_eq!(tenant.running().len(), 1);
    assert_eq!(tenant.expect("\n"), "hello\n");
    assert_eq!(exit_reason(&tenant), ExitReason::PowerOff);
    assert_eq!(tenant.child.wait().unwrap(), Ended::Exited(0));
}

#[test]
fn a_guest_that_says_that_it_failed_does_not_end_well() {
    let failed = |words: Code| {
        let mut tenant = Tenant::launch(&spec(), file(&image(&words.0, Notes::Ring3)));
        tenant.running();
        let reason = exit_reason(&tenant);
        assert_eq!(tenant.child.wait().unwrap(), Ended::Exited(0));
        reason
    };
    let status = |status| Code::default().out(END_STATUS_PORT, status);
    assert_eq!(failed(status(3).power_off()), ExitReason::Failed { status: 3 });
    assert_eq!(failed(status(101).out(END_STATUS_PORT, 0).power_off()), ExitReason::PowerOff);
}

#[test]
fn a_pvh_guest_prints_and_resets() {
    let code = Code::default().print("hi\n").out(0x64, 0xfe).spin();
    let spec = LaunchSpec { boot: Boot::Pvh, ..spec() };
    let mut tenant = Tenant::launch(&spec, file(&image(&code.0, Notes::Both)));
    tenant.running();
    assert_eq!(tenant.expect("\n"), "hi\n");
    assert_eq!(exit_reason(&tenant), ExitReason::Reset);
}

/// A guest that listens to its power button as an operating system does: local APIC enabled, the
/// button's pin of the I/O APIC unmasked with this vector. It polls for the interrupt.
fn listening_guest() -> Code {
    let vector = 0x41;
    let pin_entry = 0x10 + 2 * POWER_BUTTON_GSI;
    let (select, window) = (IOAPIC_BASE, IOAPIC_BASE + 0x10);
    Code::default()
        .store(LAPIC_BASE + 0xf0, 0x1ff)
        .store(select, pin_entry)
        .store(window, vector)
        .print("listening\n")
        .wait_for_bit(LAPIC_BASE + 0x200 + vector / 32 * 0x10, 1 << (vector % 32))
        .print("pressed\n")
        .power_off()
}

#[test]
fn stop_presses_the_power_button_of_a_guest_that_listens() {
    let mut tenant = Tenant::launch(&spec(), file(&image(&listening_guest().0, Notes::Pvh)));
    tenant.running();
    tenant.expect("listening\n");
    tenant.child.control().send(&FromHost::Stop, &[]).unwrap();
    tenant.expect("pressed\n");
    assert_eq!(exit_reason(&tenant), ExitReason::PowerOff);
}

#[test]
fn stop_ends_a_guest_that_does_not_listen_and_kill_ends_any() {
    let deaf = Code::default().print("listening\n").spin();
    for (code, notes, command) in [
        (deaf.clone(), Notes::Pvh, FromHost::Stop),
        (deaf, Notes::Ring3, FromHost::Stop),
        (listening_guest(), Notes::Pvh, FromHost::Kill),
    ] {
        let mut tenant = Tenant::launch(&spec(), file(&image(&code.0, notes)));
        tenant.running();
        tenant.expect("listening\n");
        tenant.child.control().send(&command, &[]).unwrap();
        assert_eq!(exit_reason(&tenant), ExitReason::Stopped);
    }
}

/// Linux jumps to the BIOS when it wants to reboot; what it finds there has to reset the machine.
#[test]
fn a_guest_that_jumps_to_the_reset_vector_resets() {
    // From 32-bit code by way of a 16-bit segment: lgdt [gdt]; jmp 0x08:real; and there in 16-bit
    // protected mode mov eax, cr0; and al, 0xfe; mov cr0, eax; jmp f000:fff0.
    let gdt = 0x1_0100_u32;
    let (real, pointer) = (0x1_0000_u32, 0x1_0110_u32);
    let mut code = vec![0x0f, 0x01, 0x15];
    code.extend(pointer.to_le_bytes());
    code.push(0xea);
    code.extend((real - 0x1_0000).to_le_bytes());
    code.extend([8, 0]);
    let to_real = [0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0, 0xea, 0xf0, 0xff, 0, 0xf0];
    // Code of 16 bits at 64 KiB.
    let table = [0u64, 0x0000_9a01_0000_ffff].map(u64::to_le_bytes).concat();
    let mut table_pointer = 15u16.to_le_bytes().to_vec();
    table_pointer.extend(gdt.to_le_bytes());
    let data = [&table[..], &table_pointer].concat();
    let more = [(u64::from(real), &to_real[..]), (u64::from(gdt), &data[..])];
    let image = image_with(&code, Notes::Pvh, &more);
    let tenant = Tenant::launch(&spec(), file(&image));
    tenant.running();
    assert_eq!(exit_reason(&tenant), ExitReason::Reset);
}

#[test]
fn a_string_instruction_prints_a_whole_line() {
    for notes in [Notes::Ring3, Notes::Pvh] {
        let code = Code::default().print_string("one instruction, one line\n").power_off();
        let mut tenant = Tenant::launch(&spec(), file(&image(&code.0, notes)));
        tenant.running();
        assert_eq!(tenant.expect("\n"), "one instruction, one line\n");
        assert_eq!(exit_reason(&tenant), ExitReason::PowerOff);
    }
}

#[test]
fn console_input_reaches_the_guest() {
    // Waits for data-ready in the line status register, then echoes one byte.
    let wait = [0xba, 0xfd, 3, 0, 0, 0xec, 0xa8, 1, 0x74, 0xfb];
    let echo = [0xba, 0xf8, 3, 0, 0, 0xec, 0xee];
    let code = Code::default().print("ready\n").raw(&wait).raw(&echo).power_off();
    let mut tenant = Tenant::launch(&spec(), file(&image(&code.0, Notes::Ring3)));
    tenant.running();
    tenant.expect("ready\n");
    tenant.console.write_all(b"!").unwrap();
    tenant.expect("!");
    assert_eq!(exit_reason(&tenant), ExitReason::PowerOff);
}

#[test]
fn a_closed_gate_holds_a_guest_until_it_opens() {
    let gate = gates(0);
    let code = Code::default().print("through\n").spin();
    let fds = gate.try_clone().unwrap();
    let image = file(&image(&code.0, Notes::Ring3));
    let mut tenant = Tenant::launch_with(&spec(), image, fds, Vec::new());
    let tid = tenant.running()[0];
    let cpu_time = || {
        let path = format!("/proc/{}/task/{tid}/schedstat", tenant.child.pid());
        let stat = std::fs::read_to_string(path).unwrap();
        stat.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let sleeping = || {
        let path = format!("/proc/{}/task/{tid}/stat", tenant.child.pid());
        std::fs::read_to_string(path).unwrap().contains(") S ")
    };
    until("the vCPU waits at its gate", sleeping);
    support::set_gate(&gate, 0, 1);
    tenant.console.set_nonblocking(false).unwrap();
    until("the guest runs", || cpu_time() > 20_000_000);
    support::set_gate(&gate, 0, 0);
    support::signal(tenant.child.pid(), tid);
    until("the vCPU waits at its gate again", sleeping);
    let before = cpu_time();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(cpu_time(), before, "a stopped vCPU uses no time");
    support::set_gate(&gate, 0, 1);
    until("the guest runs again", || cpu_time() > before + 20_000_000);
    tenant.expect("through\n");
    // The main thread serves its host whatever the gate says.
    support::set_gate(&gate, 0, 0);
    support::signal(tenant.child.pid(), tid);
    tenant.child.control().send(&FromHost::Stop, &[]).unwrap();
    assert_eq!(exit_reason(&tenant), ExitReason::Stopped);
}

#[test]
fn a_triple_fault_ends_the_vm_with_its_registers() {
    // ud2; the interrupt table is empty.
    let code = Code::default().print("x").raw(&[0x0f, 0x0b]);
    let tenant = Tenant::launch(&spec(), file(&image(&code.0, Notes::Ring3)));
    tenant.running();
    match exit_reason(&tenant) {
        ExitReason::TripleFault { vcpu: 0, registers } => {
            assert!(registers.contains("rip="), "{registers}");
        }
        // Software KVM may fail to interpret what is not there instead.
        ExitReason::InternalError { vcpu: 0, registers, .. } => {
            assert!(registers.contains("rip="), "{registers}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_ports_and_addresses_read_as_all_ones() {
    // in al, 0x80; out serial; mov edi, 0xd0008000; mov al, [rdi]; out serial.
    let code = Code::default()
        .raw(&[0xe4, 0x80, 0xba, 0xf8, 3, 0, 0, 0xee])
        .raw(&[0xbf, 0, 0x80, 0, 0xd0, 0x8a, 0x07, 0xba, 0xf8, 3, 0, 0, 0xee])
        .power_off();
    let mut tenant = Tenant::launch(&spec(), file(&image(&code.0, Notes::Ring3)));
    tenant.running();
    let mut bytes = [0; 2];
    std::io::Read::read_exact(&mut tenant.console, &mut bytes).unwrap();
    assert_eq!(bytes, [0xff, 0xff]);
}

#[test]
fn eight_vcpus_are_made_and_the_others_wait_for_the_first() {
    let spec = LaunchSpec { vcpus: 8, ..spec() };
    let code = Code::default().print("one of eight\n").power_off();
    let mut tenant = Tenant::launch(&spec, file(&image(&code.0, Notes::Both)));
    let mut tids = tenant.running();
    tids.dedup();
    assert_eq!(tids.len(), 8);
    tenant.expect("one of eight\n");
    assert_eq!(exit_reason(&tenant), ExitReason::PowerOff);
}

#[test]
fn a_second_vcpu_starts_by_init_and_sipi() {
    // Real mode: mov dx, 0x3f8; mov al, 'A'; out dx, al; 1: jmp 1b.
    let second = [0xba, 0xf8, 3, 0xb0, b'A', 0xee, 0xeb, 0xfe];
    let (icr_low, icr_high, apic_id) = (0xfee0_0300, 0xfee0_0310, 1 << 24);
    let (init, sipi_at_64k) = (0x4500, 0x4610);
    let first = Code::default()
        .store(icr_high, apic_id)
        .store(icr_low, init)
        .store(icr_high, apic_id)
        .store(icr_low, sipi_at_64k)
        .spin();
    let spec = LaunchSpec { vcpus: 2, ..spec() };
    let image = image_with(&first.0, Notes::Ring3, &[(0x1_0000, &second)]);
    let mut tenant = Tenant::launch(&spec, file(&image));
    tenant.running();
    tenant.expect("A");
}

#[test]
fn memory_beyond_the_device_hole_can_be_used() {
    // Far more than is touched: nothing is allocated ahead.
    let spec = LaunchSpec { memory_bytes: 5 << 30, ..spec() };
    let code = Code::default().print("wide\n").power_off();
    let mut tenant = Tenant::launch(&spec, file(&image(&code.0, Notes::Ring3)));
    tenant.running();
    tenant.expect("wide\n");
}

#[test]
fn a_tenant_is_shut_in() {
    let spec = LaunchSpec {
        sandbox: Sandbox { enabled: true, uid: Some(64_123), gid: Some(64_123) },
        ..spec()
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: becoming another user needs root");
        assert!(std::env::var_os("MOIRAI_TESTS_NEED_ROOT").is_none());
        return;
    }
    let code = Code::default().print("in\n").spin();
    let mut tenant = Tenant::launch(&spec, file(&image(&code.0, Notes::Both)));
    match tenant.message() {
        ToHost::Running { missing, .. } => assert_eq!(missing, Vec::<String>::new()),
        other => panic!("{other:?}"),
    }
    tenant.expect("in\n");
    let pid = tenant.child.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), "64123 64123 64123 64123");
    assert_eq!(field("Groups:"), "");
    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"));
    let root = std::fs::read_dir(format!("/proc/{pid}/root")).unwrap();
    assert_eq!(root.count(), 0, "an empty file system");
    for space in ["mnt", "net", "ipc", "uts"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{space}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{space}");
    }
}

#[test]
fn a_tenant_ends_when_its_host_hangs_up() {
    let code = Code::default().print("on\n").spin();
    let image = file(&image(&code.0, Notes::Ring3));
    let (host, theirs) = moirai_launch::pair().unwrap();
    let fds = support::fds(image, gates(1));
    let thread = std::thread::spawn(move || moirai_vmm::tenant::serve(&theirs));
    let spec = LaunchSpec { sandbox: Sandbox { enabled: false, ..Sandbox::default() }, ..spec() };
    support::send_launch(&host, &spec, &fds);
    assert!(matches!(host.receive().unwrap().0, ToHost::Running { .. }));
    drop(host);
    assert!(thread.join().unwrap().is_err(), "there is nobody to answer to");
}

/// One device at the first window, with its backend on a thread.
fn with_device(
    code: &Code,
) -> (Tenant, UnixStream, std::sync::Arc<std::sync::Mutex<backend::Heard>>) {
    let spec = LaunchSpec {
        devices: vec![DeviceSpec { device_id: 2, queues: 1, queue_size: 64 }],
        ..spec()
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (heard, _) = backend::serve(theirs.try_clone().unwrap());
    let device: OwnedFd = ours.into();
    let image = file(&image(&code.0, Notes::Ring3));
    let tenant = Tenant::launch_with(&spec, image, gates(1), vec![device]);
    tenant.running();
    (tenant, theirs, heard)
}

/// Code that brings the first device up with one queue, as a driver does.
fn driver() -> Code {
    let base = u32::try_from(VIRTIO_MMIO_BASE).unwrap();
    let writes = [
        (0x50, 0), // a kick before its time
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x38, 64),
        (0x80, 0x20_0000),
        (0x90, 0x20_2000),
        (0xa0, 0x20_4000),
        (0x44, 1),
        (0x70, 15),
        (0x50, 0),
    ];
    writes.iter().fold(Code::default(), |code, &(at, value)| code.store(base + at, value))
}

#[test]
fn a_guest_kicks_its_backend_past_the_tenant_process() {
    let (mut tenant, _theirs, heard) = with_device(&driver().print("up\n").spin());
    tenant.expect("up\n");
    let heard = heard.lock().unwrap();
    assert_eq!(heard.addresses, [(0, 0x20_0000, 0x20_2000, 0x20_4000)]);
    let mut count = [0; 8];
    rustix::io::read(&heard.kicks[0].1, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 2, "both kicks, the early one too");
}

#[test]
fn a_device_whose_backend_dies_needs_a_reset_and_the_vm_lives() {
    let status = u32::try_from(VIRTIO_MMIO_BASE).unwrap() + 0x70;
    let code = driver().print("up\n").wait_for_bit(status, 64).print("failed\n").power_off();
    let (mut tenant, theirs, _) = with_device(&code);
    tenant.expect("up\n");
    theirs.shutdown(std::net::Shutdown::Both).unwrap();
    drop(theirs);
    tenant.expect("failed\n");
    assert_eq!(exit_reason(&tenant), ExitReason::PowerOff);
}
