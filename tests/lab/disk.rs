//! Volumes: fio writes and verifies inside the guest, and another program reads from outside what
//! the guest wrote. A file system survives the end of its machine in mid-write.

use std::path::Path;
use std::time::Duration;

use moirai_tests::{Host, kill, lives, program, wait_for};

use super::guest::{Guest, Machine, tools, volume};

/// Bytes of a volume under test.
const SIZE: u64 = 64 << 20;

/// Has fio write all of `/dev/vda` in random order and read it back, block by block with a
/// checksum; then returns the guest's checksum of the whole volume.
fn fio(guest: &mut Guest<'_>) -> String {
    guest.mount_tools(2);
    guest.run(
        "chroot /mnt /bin/fio --name=verify --filename=/dev/vda --rw=randwrite --bsrange=4k-128k \
         --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1 \
         --randrepeat=0 --output-format=terse",
    );
    guest.run("sync; echo 3 >/proc/sys/vm/drop_caches");
    first_word(&guest.run("md5sum /dev/vda"))
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn md5(path: &Path) -> String {
    first_word(&program(&["md5sum", &path.to_string_lossy()]))
}

fn fio_verifies(
    transport: &'static str,
    vcpus: u32,
    keys: &str,
    outside: impl Fn(&Host) -> String,
) {
    let host = Host::start();
    tools(&host);
    let _ = volume(&host, "raw", SIZE);
    for file in ["s0", "s1", "s2"] {
        let _ = volume(&host, file, SIZE / 4);
    }
    let folder = host.folder().display().to_string();
    program(&["qemu-img", "create", "-q", "-f", "qcow2", &format!("{folder}/qcow2"), "64M"]);
    let machine = Machine { transport, vcpus, ..Machine::default() };
    let mut guest = Guest::boot(&host, "linux", &machine.with_volume(keys).with_tools());
    let inside = fio(&mut guest);
    guest.power_off();
    assert_eq!(outside(&host), inside, "what the guest reads is what others read");
}

#[test]
fn fio_verifies_a_raw_volume_over_mmio() {
    let keys = "volume = \"raw\"\nformat = \"raw\"";
    fio_verifies("mmio", 1, keys, |host| md5(&host.folder().join("raw")));
}

#[test]
fn fio_verifies_a_raw_volume_over_pci_with_two_vcpus() {
    let keys = "volume = \"raw\"\nformat = \"raw\"";
    fio_verifies("pci", 2, keys, |host| md5(&host.folder().join("raw")));
}

#[test]
fn fio_verifies_a_qcow2_volume() {
    fio_verifies("pci", 1, "volume = \"qcow2\"\nformat = \"qcow2\"", |host| {
        let (image, raw) = (host.folder().join("qcow2"), host.folder().join("converted"));
        let (image, raw) = (image.to_string_lossy(), raw.to_string_lossy());
        program(&["qemu-img", "check", "-q", &image]);
        program(&["qemu-img", "convert", "-f", "qcow2", "-O", "raw", &image, &raw]);
        md5(Path::new(&*raw))
    });
}

/// The files of the stripe set are put together here, unit by unit.
#[test]
fn fio_verifies_a_stripe_set() {
    const FILES: [&str; 3] = ["s0", "s1", "s2"];
    const UNIT: usize = 64 << 10;
    let keys = "stripe = { files = [\"s0\", \"s1\", \"s2\"], unit = \"64K\" }\nqueues = 2";
    fio_verifies("pci", 2, keys, |host| {
        let files = FILES.map(|name| std::fs::read(host.folder().join(name)).unwrap());
        let mut whole = Vec::new();
        for row in 0..files[0].len() / UNIT {
            for file in &files {
                whole.extend_from_slice(&file[row * UNIT..(row + 1) * UNIT]);
            }
        }
        let path = host.folder().join("whole");
        std::fs::write(&path, whole).unwrap();
        md5(&path)
    });
}

/// What the guest reads of a fresh image comes from the image behind it, and what it writes does
/// not get there.
#[test]
fn a_qcow2_image_stands_on_its_backing_file() {
    let host = Host::start();
    let base = host.folder().join("base");
    program(&[
        "dd",
        "if=/dev/urandom",
        &format!("of={}", base.display()),
        "bs=1M",
        "count=16",
        "status=none",
    ]);
    let (before, folder) = (md5(&base), host.folder().to_string_lossy());
    let words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base"];
    program(&[&words[..], &[&format!("{folder}/overlay")]].concat());
    let machine = Machine::default().with_volume("volume = \"overlay\"\nformat = \"qcow2\"");
    let mut guest = Guest::boot(&host, "linux", &machine);
    assert_eq!(first_word(&guest.run("md5sum /dev/vda")), before);
    guest.run("dd if=/dev/urandom of=/dev/vda bs=64k seek=10 count=20 conv=fsync 2>/dev/null");
    let inside = first_word(&guest.run("echo 3 >/proc/sys/vm/drop_caches; md5sum /dev/vda"));
    guest.power_off();
    assert_eq!(md5(&base), before, "the backing file is as it was");
    let (overlay, flat) = (format!("{folder}/overlay"), format!("{folder}/flat"));
    program(&["qemu-img", "convert", "-f", "qcow2", "-O", "raw", &overlay, &flat]);
    assert_eq!(md5(Path::new(&flat)), inside);
}

/// A discarded range reads as zeros and no longer takes space on the host's disk; the serial number
/// is the one of the configuration.
#[test]
fn discards_reach_the_host_and_the_serial_number_the_guest() {
    use std::os::unix::fs::MetadataExt as _;
    let host = Host::start();
    let path = volume(&host, "raw", SIZE);
    let keys = "volume = \"raw\"\nserial = \"clotho-1\"";
    let mut guest = Guest::boot(&host, "linux", &Machine::default().with_volume(keys));
    assert_eq!(guest.run("cat /sys/block/vda/serial"), "clotho-1");
    guest.run("dd if=/dev/urandom of=/dev/vda bs=1M count=64 conv=fsync 2>/dev/null");
    let full = std::fs::metadata(&path).unwrap().blocks();
    guest.run("blkdiscard -o 16777216 -l 33554432 /dev/vda && sync");
    let left = std::fs::metadata(&path).unwrap().blocks();
    assert!(full - left >= (32 << 20) / 512, "{full} blocks, then {left}");
    guest.run(
        "dd if=/dev/vda bs=1M skip=16 count=32 2>/dev/null | tr -d '\\0' | wc -c | grep -qx 0",
    );
}

/// The guest writes files and says which of them are on the disk; then its process is killed. The
/// file system has to be whole, and every file that was promised to be there.
#[test]
fn ext4_survives_a_kill_in_mid_write() {
    let host = Host::start();
    tools(&host);
    let path = volume(&host, "raw", 2 * SIZE);
    let machine = Machine::default().with_volume("volume = \"raw\"\nformat = \"raw\"").with_tools();
    let mut guest = Guest::boot(&host, "writer", &machine);
    guest.mount_tools(2);
    guest.run("chroot /mnt /bin/mke2fs -q -t ext4 /dev/vda");
    guest.run("mkdir -p /data && mount /dev/vda /data");
    guest.start(
        "n=0; while true; do n=$((n+1)); dd if=/dev/urandom of=/data/$n bs=64k count=8 conv=fsync \
         2>/dev/null && md5sum /data/$n >/data/$n.sum && sync && echo \"[file $n]\"; done",
    );
    guest.expect("[file 12]");
    let pid = guest.pid();
    kill(pid);
    wait_for("the process has gone", || !lives(pid));
    std::thread::sleep(Duration::from_millis(200)); // what is on its way to the disk arrives
    let promised = guest.output().matches("[file ").count();
    drop(guest);
    host.stop_failed("writer");

    // The journal is replayed by another kernel; then an independent judge looks.
    let mut guest = Guest::boot(&host, "reader", &machine);
    guest.run("mkdir -p /data && mount /dev/vda /data");
    for number in 1..=promised {
        guest.run(&format!("md5sum -c /data/{number}.sum >/dev/null"));
    }
    guest.run("umount /data");
    guest.power_off();
    program(&["e2fsck", "-f", "-n", &path.to_string_lossy()]);
}
