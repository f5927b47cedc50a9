//! A volume under a guest of QEMU: no acknowledged write is lost, whichever process dies.

use moirai_tests::{Host, kill, wait_for};

use super::qemu::{Device, Qemu};
use super::{disk, export, socket};

/// Writes at random, in several sizes, reads everything back and compares.
const VERIFY: &str = "/usr/bin/fio --name=v --filename=/dev/vda --direct=1 --ioengine=libaio \
                      --iodepth=16 --rw=randwrite --bsrange=4k-128k --verify=crc32c \
                      --verify_fatal=1 --fsync=64 --group_reporting --output-format=terse";

#[test]
fn linux_behind_qemu_verifies_what_it_writes_and_finds_it_after_its_vmm_was_killed() {
    let host = Host::start();
    export(&host, &disk(&host, "db", "extra = true"));
    let mut guest = Qemu::boot(&[Device::Disk(&socket(&host, "db"))]);
    let view = host.json(&["exports"])[0].clone();
    assert_eq!(view["peer"].as_u64(), Some(guest.pid().into()), "{view}");
    guest.run(&format!("{VERIFY} --size=16M"));
    let size = guest.run("cat /sys/block/vda/size");
    assert!(size.lines().any(|line| line == "131072"), "{size}");

    // Acknowledged and flushed: there for whoever comes next.
    let write = "yes acknowledged | head -c 1048576 >/tmp/text && \
                 dd if=/tmp/text of=/dev/vda bs=64k seek=600 conv=fsync 2>/dev/null && md5sum \
                 </tmp/text";
    let sum = guest.run(write).lines().last().unwrap().to_owned();
    guest.start(&format!("{VERIFY} --size=32M --loops=50"));
    std::thread::sleep(std::time::Duration::from_secs(1));
    kill(guest.pid());
    drop(guest);
    wait_for("its place is free", || host.json(&["exports"])[0]["peer"].is_null());

    let mut guest = Qemu::boot(&[Device::Disk(&socket(&host, "db"))]);
    let read = guest.run("dd if=/dev/vda bs=64k skip=600 count=16 2>/dev/null | md5sum");
    assert_eq!(read.lines().last(), Some(sum.as_str()));
    guest.run(&format!("{VERIFY} --size=16M"));
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

#[test]
fn a_guest_does_not_notice_that_the_host_service_was_killed_and_started_again() {
    let host = Host::start();
    let table = disk(&host, "db", "extra = true");
    export(&host, &table);
    let mut guest = Qemu::boot(&[Device::Disk(&socket(&host, "db"))]);
    guest.start(&format!("{VERIFY} --size=48M --loops=2"));
    let mut host = host;
    for _ in 0..2 {
        let before = host.part("export/db", "disk")["completed"].as_u64().unwrap();
        wait_for("the guest writes", || {
            host.part("export/db", "disk")["completed"].as_u64().unwrap() > before + 100
        });
        let (folder, netns) = host.kill();
        host = Host::start_in(folder, netns, &[]);
        assert!(!socket(&host, "db").exists(), "the old socket is cleaned up");
        export(&host, &table);
    }
    guest.finish();
    let served = host.part("export/db", "disk");
    assert!(served["completed"].as_u64().unwrap() > 0, "{served}");
    assert_eq!(served["errors"], 0, "{served}");
}
