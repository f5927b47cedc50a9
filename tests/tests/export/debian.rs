//! Debian whose root is our volume and whose network card is our port, under QEMU without KVM.

use std::path::Path;

use moirai_tests::{Host, program, root};

use super::qemu::{Device, Qemu, Software};
use super::{disk, export, port, socket};

const MAC: &str = "52:54:00:00:00:01";

/// The image of `moirai image debian` that the lab has, built if need be.
fn image() -> String {
    program(&[env!("CARGO_BIN_EXE_lab"), "debian"]);
    root().join("target/lab/debian/root").display().to_string()
}

fn boot(host: &Host, image: &str) -> Qemu {
    let software = Software {
        kernel: Path::new(image).with_extension("vmlinuz"),
        initrd: Path::new(image).with_extension("initrd"),
        words: "root=/dev/vda ip=10.77.0.2::10.77.0.1:255.255.255.0:::off".to_owned(),
    };
    let (volume, link) = (socket(host, "db"), socket(host, "port"));
    let devices = [Device::Disk(&volume), Device::Net(&link, MAC, "10.77.0.2/24")];
    let mut guest = Qemu::begin_with(&software, &devices);
    guest.wait_for("debian login:");
    guest.enter("user");
    guest.wait_for("user@debian");
    guest.enter("exec sh");
    guest
}

#[test]
fn qemu_boots_debian_from_our_volume_and_finds_after_a_reboot_what_it_wrote() {
    let (host, image) = (Host::start(), image());
    let volume = host.folder().join("db.img").display().to_string();
    program(&["cp", "--sparse=always", &image, &volume]);
    export(&host, &disk(&host, "db", "extra = true"));
    export(&host, &port("port", MAC, "extra = true"));

    let mut guest = boot(&host, &image);
    assert!(guest.run("findmnt -n -o SOURCE /").contains("/dev/vda"));
    let said_by_ping = guest.run("ping -c 3 -W 5 10.77.0.1");
    assert!(said_by_ping.contains(" 0% packet loss"), "{said_by_ping}");
    guest.run("head -c 4000000 /dev/urandom >written && md5sum written >sum && sync");
    guest.enter("sudo poweroff");
    guest.wait_for_end();
    program(&["e2fsck", "-f", "-n", &volume]);

    let mut guest = boot(&host, &image);
    assert!(guest.run("md5sum -c sum").contains("written: OK"));
}
