//! Devices that the tenant process serves itself: vsock, entropy, balloon.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use moirai_tests::{Host, wait_for};

use super::guest::{Guest, Machine, PATIENCE, tools};

fn machine(keys: &str) -> Machine {
    Machine { more: format!("{keys}\n"), ..Machine::default() }
}

#[test]
fn vsock_carries_bytes_both_ways() {
    let host = Host::start();
    tools(&host);
    let machine = machine("vsock = { cid = 7 }").with_tools();
    let mut guest = Guest::boot(&host, "linux", &machine);
    guest.mount_tools(1);

    // A client of the host reaches a server in the guest.
    guest.start("chroot /mnt /bin/socat VSOCK-LISTEN:1234,fork PIPE & sleep 2");
    guest.run("true");
    let state = host.folder().join("state");
    let mut client = UnixStream::connect(state.join("linux.vsock")).expect("the vsock's socket");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"CONNECT 1234\n").unwrap();
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("OK "), "{line:?}");
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || client.write_all(&sent).unwrap()
    });
    let mut received = vec![0; sent.len()];
    reader.read_exact(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == sent, "the echo is what was sent");

    // A client in the guest reaches a server of the host.
    let server = UnixListener::bind(state.join("linux.vsock_99")).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // To the end: whoever closes a socket with something unread in it resets the connection.
        let mut line = Vec::new();
        stream.read_to_end(&mut line).unwrap();
        stream.write_all(&line).unwrap();
    });
    let answer = guest.run("echo moirai | chroot /mnt /bin/socat -t 5 - VSOCK-CONNECT:2:99");
    assert_eq!(answer, "moirai");
    answering.join().unwrap();
    // Nobody listens there.
    assert_ne!(guest.try_run("echo x | chroot /mnt /bin/socat - VSOCK-CONNECT:2:100").0, 0);
}

#[test]
fn the_guest_has_entropy_from_the_host() {
    let host = Host::start();
    for transport in ["mmio", "pci"] {
        let mut guest =
            Guest::boot(&host, transport, &Machine { transport, ..machine("rng = true") });
        let current = guest.run("cat /sys/class/misc/hw_random/rng_current");
        assert!(current.starts_with("virtio_rng"), "{current}");
        let sums = guest.run(
            "for i in 1 2; do dd if=/dev/hwrng bs=4096 count=4 iflag=fullblock 2>/dev/null | \
             md5sum; done",
        );
        let sums: Vec<_> = sums.lines().collect();
        assert_eq!(sums.len(), 2);
        assert_ne!(sums[0], sums[1]);
    }
}

/// MiB of the guest's memory that exist on the host.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("RssShmem") / 1024
}

#[test]
fn the_balloon_takes_memory_and_gives_it_back() {
    let host = Host::start();
    let mut guest = Guest::boot(&host, "linux", &machine("balloon = true"));
    // All of it has been touched, so all of it exists.
    guest.run(
        "mount -t tmpfs -o size=150m tmp /tmp; dd if=/dev/zero of=/tmp/a bs=1M count=140 \
               2>/dev/null; rm /tmp/a",
    );
    let available = "free -m | awk '/Mem:/ {print $7}'";
    let before: u64 = guest.run(available).parse().expect("MiB");
    let set = |value: &str| {
        let set = host.ask(&["set", "linux", value]);
        assert!(set.status.success(), "{}", moirai_tests::said(&set));
    };
    set("memory=96M");
    wait_for("the balloon is full", || {
        guest.show()["balloon"]["actual_bytes"].as_u64() >= Some(150 << 20)
    });
    let small: u64 = guest.run(available).parse().expect("MiB");
    assert!(before - small >= 140, "{before} MiB, then {small}");
    let resident = resident_mib(guest.pid());
    assert!(resident <= 110, "{resident} MiB still exist of a guest that is to keep 96");
    set("memory=256M");
    wait_for("the balloon is empty", || guest.show()["balloon"]["actual_bytes"] == 0);
    let after: u64 = guest.run(available).parse().expect("MiB");
    assert!(after + 10 >= before, "{before} MiB, in the end {after}");
    guest.run("dd if=/dev/zero of=/tmp/a bs=1M count=140 2>/dev/null");
}
