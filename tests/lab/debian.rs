//! The Debian of `moirai image debian`: it boots to a login on the console, lets its user in there
//! and over the network, and powers off in order.
//!
//! Each test has a disk of the lab's machine with the image on it as a block device for a volume.
//! The machine forgets what was written there.

use moirai_tests::{Host, program, root, said, wait_for};

use super::guest::Guest;

fn logs_in(disk: &str, kernel: &str, transport: &str, vcpus: u32) {
    // Both cores of the lab's machine: four vCPUs that wait for one another on one core boot half
    // as fast.
    let host = Host::start_on(&[0, 1]);
    let image = root().join("target/lab/debian/root");
    let image = image.to_string_lossy();
    let volume = host.folder().join("root");
    program(&["cp", "--archive", disk, &volume.to_string_lossy()]); // the device, not what is on it
    host.launch(&format!(
        "[[tenant]]\nname = \"debian\"\nkernel = \"{image}.{kernel}\"\ninitrd \
         = \"{image}.initrd\"\n\
         cmdline = \"root=/dev/vda console=ttyS0 quiet \
         ip=10.77.0.2::10.77.0.1:255.255.255.0:::off\"\n\
         transport = \"{transport}\"\nvcpus = {vcpus}\ncores = [0, 1]\nmemory = \"512M\"\n\
         [[tenant.disk]]\ndisk = \"disk\"\nvolume = \"root\"\n[[tenant.net]]\nlink = \"link\"\n"
    ));
    let mut guest = Guest::attach(&host, "debian");
    guest.expect("debian login:");
    guest.start("user");
    guest.expect("user@debian");
    guest.start("exec sh");
    guest.start("stty -echo; PS1=");
    let _ = guest.run("true");
    assert_eq!(guest.run("nproc"), vcpus.to_string());
    assert_eq!(guest.run("sudo id -u"), "0");
    assert_eq!(guest.run("cat /etc/debian_version | cut -d . -f 1"), "12");
    let failed = guest.run("systemctl --failed --no-legend --plain");
    assert_eq!(failed, "", "units that have failed");

    let key = host.folder().join("key");
    let key = key.to_string_lossy();
    program(&["install", "-m", "600", &format!("{image}.key"), &key]);
    let mut heard = String::new();
    wait_for("the guest answers by ssh", || {
        let words = ["netns", "exec", &host.netns, "ssh", "-q", "-i", &key];
        let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"];
        let output = std::process::Command::new("ip")
            .args(words)
            .args(options.iter().flat_map(|option| ["-o", option]))
            .args(["user@10.77.0.2", "uname -r"])
            .output()
            .expect("ip netns exec ssh");
        heard = said(&output);
        output.status.success()
    });
    assert!(heard.contains("cloud"), "{heard}");

    let stopped = host.ask(&["stop", "debian"]);
    assert!(stopped.status.success(), "{}", said(&stopped));
    guest.expect("reboot: Power down");
    program(&["e2fsck", "-f", "-n", &volume.to_string_lossy()]);
}

#[test]
fn logs_in_with_four_vcpus_by_pvh_over_pci() {
    logs_in("/dev/vdb", "vmlinux", "pci", 4);
}

#[test]
fn logs_in_with_one_vcpu_by_bzimage_over_mmio() {
    logs_in("/dev/vdc", "vmlinuz", "mmio", 1);
}
