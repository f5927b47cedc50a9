//! The process's own devices under an unmodified Linux. Runs in the lab's machine only, whose KVM
//! runs ring 0:
//!
//! ```text
//! cargo test -p moirai-vmm --test lab_own --no-run
//! tests/lab/run.sh cmd 'PATH_OF_THE_TEST --test-threads 1'
//! ```
//!
//! The guest is that of the lab (`tests/lab/guest-init`), with socat added to its initial RAM disk.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is a failed test, and progress of a slow one is printed"
)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use moirai_launch::channel::Channel;
use moirai_launch::handover::{FromTenant, HostHandover, ToTenant};
use moirai_launch::{
    BalloonReport, Boot, Child, FromHost, LaunchFds, LaunchSpec, OwnDevice, Sandbox, ToHost,
    Transport,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// The clock of an emulated machine on a busy host runs fast.
const PATIENCE: Duration = Duration::from_secs(900);
const MEMORY: u64 = 256 << 20;

/// Linux with all of its own devices.
struct Linux {
    child: Child,
    serial: UnixStream,
    seen: Vec<u8>,
    console: UnixStream,
    vsock: HostHandover,
}

fn guest_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/guest")
}

/// The guest's initial RAM disk, followed by one with socat and its libraries.
fn initrd(folder: &Path) -> File {
    let script = format!(
        "set -e; cd {guest}; cp initramfs.cpio {out}; mkdir {folder}/tree; \
         for file in $(ldd tools/bin/socat | grep -oE '/[^ ]+'); do \
           mkdir -p {folder}/tree$(dirname $file); cp -L $file {folder}/tree$file; done; \
         mkdir -p {folder}/tree/bin; cp tools/bin/socat {folder}/tree/bin/socat; \
         cd {folder}/tree; find . | {guest}/tree/bin/busybox cpio -o -H newc -R 0:0 >> {out}",
        guest = guest_files().display(),
        folder = folder.display(),
        out = folder.join("initrd").display(),
    );
    let status = Command::new("bash").args(["-c", &script]).status().unwrap();
    assert!(status.success(), "the lab's guest is not there: `make lab` builds it");
    File::open(folder.join("initrd")).unwrap()
}

fn boot(transport: Transport) -> Linux {
    let folder = tempfile::tempdir().unwrap();
    let own_devices =
        vec![OwnDevice::Rng, OwnDevice::Console, OwnDevice::Balloon, OwnDevice::Vsock { cid: 9 }];
    let spec = LaunchSpec {
        memory_bytes: MEMORY,
        cmdline: "console=ttyS0 quiet panic=-1 lab.plain".to_owned(),
        boot: Boot::Auto,
        initrd: true,
        transport,
        own_devices,
        sandbox: Sandbox::default(),
        ..support::spec()
    };
    let flags = SocketFlags::CLOEXEC;
    let (host, tenant) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    let (console, theirs) = UnixStream::pair().unwrap();
    let image = File::open(guest_files().join("vmlinux")).expect("`make lab` builds the kernel");
    let fds = LaunchFds {
        initrd: Some(initrd(folder.path()).into()),
        own_devices: vec![theirs.into(), tenant],
        ..support::fds(image, support::gates(1))
    };
    let (serial, theirs) = UnixStream::pair().unwrap();
    let fds = LaunchFds { console: OwnedFd::from(theirs), ..fds };
    let child = moirai_launch::spawn(support::binary(), &spec, fds).unwrap();
    for stream in [&serial, &console] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    match child.control().receive().unwrap().0 {
        ToHost::Running { .. } => {}
        other => panic!("{other:?}"),
    }
    let mut linux = Linux { child, serial, seen: Vec::new(), console, vsock: Channel::new(host) };
    linux.expect("guest: ready");
    linux.expect("\n");
    linux
}

impl Linux {
    fn expect(&mut self, text: &str) -> String {
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = seen.find(text) {
                self.seen = seen.as_bytes()[at + text.len()..].to_vec();
                return seen[..at].to_owned();
            }
            let mut chunk = [0; 4096];
            let len = self.serial.read(&mut chunk).unwrap_or_else(|e| panic!("{e}:\n{seen}"));
            assert_ne!(len, 0, "the guest has ended:\n{seen}");
            self.seen.extend(&chunk[..len]);
        }
    }

    fn run(&mut self, command: &str) -> String {
        self.serial.write_all(format!("{command}; echo \"@<$?>\"\n").as_bytes()).unwrap();
        let output = self.expect("@<");
        let status = self.expect(">");
        assert_eq!(status, "0", "{command}: {output}");
        output.replace('\r', "").trim().to_owned()
    }

    fn balloon(&self, bytes: Option<u64>) -> BalloonReport {
        self.child.control().send(&FromHost::Balloon { bytes }, &[]).unwrap();
        match self.child.control().receive().unwrap().0 {
            ToHost::Balloon(report) => report,
            other => panic!("{other:?}"),
        }
    }

    /// Bytes of guest memory that the machine has allocated.
    fn allocated(&self) -> u64 {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", self.child.pid())).unwrap();
        let memory = fds.flatten().find(|fd| {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            target.to_string_lossy().starts_with("/memfd:moirai:")
        });
        std::fs::metadata(memory.unwrap().path()).unwrap().blocks() * 512
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Tries out one device.
type Check = fn(&mut Linux);

fn all_devices(transport: Transport) {
    let mut linux = boot(transport);
    let checks: [(&str, Check); 4] =
        [("entropy", entropy), ("balloon", balloon), ("vsock", vsock), ("console", second_console)];
    for (name, part) in checks {
        part(&mut linux);
        println!("{name} works");
    }
    // Drivers reset their devices and take them up again.
    for (bus, kind) in
        [("virtio_rng", 4), ("virtio_balloon", 5), ("vmw_vsock_virtio_transport", 19)]
    {
        let find = format!(
            "cd /sys/bus/virtio/drivers/{bus} && d=$(ls | grep virtio) && \
             [ $(($(cat $d/device))) = {kind} ] && echo $d > unbind && echo $d > bind && cd /"
        );
        linux.run(&find);
    }
    entropy(&mut linux);
    balloon(&mut linux);
    vsock(&mut linux);
    linux.run("! dmesg | grep -E 'virtio.*(fail|error|broken)|BUG:|WARNING:'");
}

fn entropy(linux: &mut Linux) {
    let source = linux.run("cat /sys/class/misc/hw_random/rng_current");
    assert!(source.starts_with("virtio_rng"), "{source}");
    let sums = linux.run(
        "for i in 1 2; do dd if=/dev/hwrng bs=4096 count=16 iflag=fullblock 2>/dev/null | md5sum; \
         done",
    );
    let sums: Vec<_> = sums.lines().collect();
    assert_eq!(sums.len(), 2);
    assert_ne!(sums[0], sums[1]);
}

fn second_console(linux: &mut Linux) {
    linux.run("stty raw -echo < /dev/hvc0; seq 1 2000 > /dev/hvc0 & true");
    let mut reader = BufReader::new(linux.console.try_clone().unwrap());
    for number in 1..=2000 {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), number.to_string());
    }
    linux.console.write_all(b"typed by the host\n").unwrap();
    assert_eq!(linux.run("head -n 1 < /dev/hvc0"), "typed by the host");
}

fn vsock(linux: &mut Linux) {
    linux.run("socat VSOCK-LISTEN:1234,fork,reuseaddr PIPE >/dev/null 2>&1 & sleep 1");
    let (mut client, theirs) = UnixStream::pair().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    linux.vsock.send(&ToTenant::Connect { port: 1234 }, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut greeting = String::new();
    reader.read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("OK "), "{greeting:?}");
    let sent: Vec<u8> = (0..400_000_u32).map(|n| n.wrapping_mul(7).to_le_bytes()[1]).collect();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || {
            client.write_all(&sent).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    let mut echo = Vec::new();
    reader.read_to_end(&mut echo).unwrap();
    writer.join().unwrap();
    assert!(echo == sent, "{} of {} bytes came back", echo.len(), sent.len());

    // A port of the guest where nobody listens.
    let (mut refused, theirs) = UnixStream::pair().unwrap();
    linux.vsock.send(&ToTenant::Connect { port: 4321 }, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(refused.read(&mut [0; 8]).unwrap(), 0);

    // The guest opens: one port is there, one is not.
    linux.serial.write_all(b"seq 1 10000 | socat - VSOCK-CONNECT:2:99\n").unwrap();
    let (FromTenant::Open { port, id }, _) = linux.vsock.receive().unwrap();
    assert_eq!(port, 99);
    let (mut server, theirs) = UnixStream::pair().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    linux.vsock.send(&ToTenant::Opened { id }, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let mut numbers = String::new();
    server.read_to_string(&mut numbers).unwrap();
    assert_eq!(numbers.lines().count(), 10_000);
    drop(server);
    linux.serial.write_all(b"echo x | socat - VSOCK-CONNECT:2:98 || echo refu''sed\n").unwrap();
    let (FromTenant::Open { id, .. }, _) = linux.vsock.receive().unwrap();
    linux.vsock.send(&ToTenant::Opened { id }, &[]).unwrap();
    linux.expect("refused");
    linux.run("killall socat");
}

fn balloon(linux: &mut Linux) {
    let target = 64 << 20;
    // The root is a file system in memory, and has half of it at most.
    linux.run("md5sum /bin/busybox >/tmp/sum && md5sum -c /tmp/sum");
    linux.run("dd if=/dev/zero of=/tmp/file bs=1M count=60");
    let before = linux.allocated();
    linux.run("rm /tmp/file");
    // The guest reports what is free, without being asked.
    wait_until("free pages are reported", || linux.allocated() + (30 << 20) < before);
    let free = linux.allocated();
    linux.balloon(Some(target));
    wait_until("the balloon is inflated", || linux.balloon(None).actual_bytes == target);
    let stats = linux.balloon(None);
    let Some(free_bytes) = stats.free_bytes else { panic!("{stats:?}") };
    assert!(free_bytes < MEMORY - target, "{stats:?}");
    assert!(stats.total_bytes.is_some() && stats.available_bytes.is_some(), "{stats:?}");
    println!("allocated: {before} with a file, {free} without, {} inflated", linux.allocated());
    assert!(linux.allocated() < MEMORY - target);
    linux.balloon(Some(0));
    wait_until("the balloon is deflated", || linux.balloon(None).actual_bytes == 0);
    linux.run(
        "dd if=/dev/zero of=/tmp/file bs=1M count=20 2>/dev/null; rm /tmp/file; md5sum -c /tmp/sum",
    );
}

#[test]
fn linux_drives_all_devices_over_mmio() {
    all_devices(Transport::Mmio);
}

#[test]
fn linux_drives_all_devices_over_pci() {
    all_devices(Transport::Pci);
}

#[test]
fn a_guest_that_runs_out_of_memory_takes_it_back_from_the_balloon() {
    let mut linux = boot(Transport::Mmio);
    linux.balloon(Some(MEMORY));
    std::thread::sleep(Duration::from_secs(5));
    linux.run("dd if=/dev/zero of=/tmp/file bs=1M count=60 2>/dev/null && rm /tmp/file");
}
