//! An unmodified distribution kernel boots, sees the machine that was asked for, and answers what
//! is typed on its console.

use moirai_tests::Host;

use super::guest::{Guest, Machine};

fn boots(kernel: &'static str, transport: &'static str, vcpus: u32) {
    let host = Host::start();
    let more = "balloon = true\n";
    let machine = Machine { kernel, transport, vcpus, more: more.to_owned(), ..Machine::default() };
    let mut guest = Guest::boot(&host, "linux", &machine.on_link("10.77.0.2/24"));
    assert_eq!(guest.run("nproc"), vcpus.to_string());
    assert!(guest.run("uname -r").contains("cloud"));
    guest.run("ip link show eth0");
    let clock = guest.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource");
    assert_eq!(clock, "kvm-clock");
    let warnings = guest.run("dmesg | grep -ciE 'firmware bug|call trace|acpi error' || true");
    assert_eq!(warnings, "0", "{}", guest.run("dmesg"));
}

#[test]
fn pvh_mmio_1_vcpu() {
    boots("vmlinux", "mmio", 1);
}

#[test]
fn pvh_mmio_4_vcpus() {
    boots("vmlinux", "mmio", 4);
}

#[test]
fn pvh_pci_1_vcpu() {
    boots("vmlinux", "pci", 1);
}

#[test]
fn pvh_pci_4_vcpus() {
    boots("vmlinux", "pci", 4);
}

#[test]
fn bzimage_mmio_1_vcpu() {
    boots("bzImage", "mmio", 1);
}

#[test]
fn bzimage_mmio_4_vcpus() {
    boots("bzImage", "mmio", 4);
}

#[test]
fn bzimage_pci_1_vcpu() {
    boots("bzImage", "pci", 1);
}

#[test]
fn bzimage_pci_8_vcpus() {
    boots("bzImage", "pci", 8);
}

/// The memory is sparse: of 5 GiB, which reach beyond the hole up to 6 GiB, only what the guest
/// touches exists.
#[test]
fn memory_reaches_beyond_the_hole() {
    let host = Host::start();
    let machine = Machine { memory: "5G", ..Machine::default() };
    let mut guest = Guest::boot(&host, "large", &machine);
    let mib: u64 = guest.run("free -m | awk '/Mem:/ {print $2}'").parse().expect("MiB");
    assert!((4700..5120).contains(&mib), "{mib} MiB of 5120");
    let map = guest.run("grep -c 'System RAM' /proc/iomem; tail -3 /proc/iomem");
    assert!(map.contains("-17fffffff"), "RAM ends at 6 GiB: {map}");
    // Pages on both sides of the hole keep what is written.
    guest.run(
        "mount -t tmpfs -o size=4900m tmp /tmp && dd if=/dev/zero of=/tmp/a bs=1M count=64 \
               2>/dev/null && rm /tmp/a",
    );
}
