//! QEMU's vhost-user frontends and its firmware's drivers against our devices: SeaBIOS boots from
//! our disk, iPXE asks for an address over our link. No KVM and no guest kernel is needed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use moirai_devices::backend::Ring as _;
use moirai_devices::backend::Volume;
use moirai_devices::backend::uring::Uring;
use moirai_devices::backend::{Job, Step, Storage};
use moirai_devices::mock::ImageThreads;
use moirai_devices::net::{MacAddr, Nic, Offload, tx};
use moirai_devices::vhost::{DeviceProfile, Event, Session};
use moirai_devices::{blk, net};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Nothing happens for so long only if something is broken.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A QEMU that is killed when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qemu {
    /// A PC whose memory is a sealed memfd, and one vhost-user device at `socket`.
    fn start(socket: &Path, device: &[&str]) -> Option<Self> {
        let chardev = format!("socket,id=c,path={}", socket.display());
        let machine = ["-M", "pc,accel=tcg,memory-backend=m", "-nodefaults", "-display", "none"];
        let child = Command::new("qemu-system-x86_64")
            .args(machine)
            .args(["-object", "memory-backend-memfd,id=m,size=64M,share=on", "-m", "64M"])
            .args(["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4"])
            .args(["-chardev", &chardev])
            .args(device)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        match child {
            Ok(child) => Some(Self(child)),
            Err(error) => {
                assert!(std::env::var_os("MOIRAI_REQUIRE_QEMU").is_none(), "QEMU: {error}");
                eprintln!("NOT TESTED HERE: no qemu-system-x86_64: {error}");
                None
            }
        }
    }

    /// What it wrote to its serial line until it ended.
    fn output(mut self) -> String {
        let mut output = String::new();
        let stdout = self.0.stdout.take().unwrap();
        std::io::Read::read_to_string(&mut { stdout }, &mut output).unwrap();
        output
    }
}

/// Accepts QEMU's connection.
fn session(listener: &UnixListener, profile: DeviceProfile) -> Session {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&PATIENCE)).unwrap(), 1, "QEMU does not connect");
    Session::new(listener.accept().unwrap().0, profile).unwrap()
}

/// Waits until the session or one of the kicks is readable.
fn wait(session: &mut Session, queues: u16) {
    let kicks: Vec<OwnedFd> = (0..queues)
        .filter_map(|index| session.queue(index)?.kick()?.try_clone_to_owned().ok())
        .collect();
    let mut fds = vec![PollFd::new(&*session, PollFlags::IN)];
    fds.extend(kicks.iter().map(|kick| PollFd::new(kick, PollFlags::IN)));
    assert!(poll(&mut fds, Some(&PATIENCE)).unwrap() > 0, "QEMU stands still");
}

/// Handles messages; every queue counts as drained. False when QEMU has left.
fn converse(session: &mut Session) -> bool {
    loop {
        let ready = session.ready().unwrap();
        let mut again = ready.again;
        for event in ready.events {
            match event {
                Event::Closed => return false,
                Event::QueueStopped { index, drain: true } => {
                    session.drained(index).unwrap();
                    again = true;
                }
                _ => {}
            }
        }
        if !again {
            return true;
        }
    }
}

/// Serves one request after the other until the ring is empty.
fn serve_disk(session: &mut Session, frontend: &mut blk::Frontend, volume: &mut Volume) {
    let vring = session.queue(0).unwrap();
    vring.drain_kick().unwrap();
    if !vring.is_running() {
        return;
    }
    let mut ring = Uring::new(4).unwrap();
    while let Some((mem, queue)) = vring.parts() {
        match frontend.next_request(mem, queue).unwrap() {
            blk::Next::Empty => break,
            blk::Next::Answered => {}
            blk::Next::Request(blk::Taken { chain, request }) => {
                let mut job = Job::new(request);
                let mut step = volume.submit(&mut ring, 1, &mut job).unwrap();
                while step == Step::Pending {
                    ring.submit_and_wait(Some(Duration::from_secs(60))).unwrap();
                    let Some(done) = ring.next_completion() else { continue };
                    step = volume.completed(&mut ring, done.token, &mut job, done.result).unwrap();
                }
                let Step::Done(outcome) = step else { panic!("still pending") };
                frontend.complete(mem, queue, chain, outcome).unwrap();
            }
        }
    }
    vring.signal().unwrap();
}

/// A boot sector that reads the next sector by the firmware, writes it to the serial line as text
/// and ends QEMU.
const BOOT_SECTOR: [u8; 39] = [
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, // segments to zero
    0xb8, 0x01, 0x02, // read one sector
    0xb9, 0x02, 0x00, 0xb6, 0x00, // cylinder 0, sector 2, head 0
    0xbb, 0x00, 0x7e, 0xcd, 0x13, // to 0x7e00
    0xbe, 0x00, 0x7e, 0xba, 0xf8, 0x03, // from there to the serial port
    0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, // until a zero byte
    0xb0, 0x01, 0xe6, 0xf4, 0xf4, 0x00, // end
];

/// Boots from a volume of 1 MiB; `make` makes one of a folder and of the file with its contents.
fn boots_from(make: impl FnOnce(&Path, &Path) -> Volume) {
    let directory = tempfile::tempdir().unwrap();
    let (path, socket) = (directory.path().join("disk"), directory.path().join("socket"));
    let mut disk = vec![0; 1 << 20];
    disk[..BOOT_SECTOR.len()].copy_from_slice(&BOOT_SECTOR);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[512..534].copy_from_slice(b"moirai served sector 2");
    std::fs::write(&path, disk).unwrap();
    let mut volume = make(directory.path(), &path);
    let worker = volume.take_worker().map(|worker| std::thread::spawn(|| worker.run()));
    let shown = volume.disk(2, 128);
    let mut frontend = blk::Frontend::new(shown.clone());

    let listener = UnixListener::bind(&socket).unwrap();
    let device = "vhost-user-blk-pci,chardev=c,num-queues=2,queue-size=128,bootindex=0";
    let Some(qemu) = Qemu::start(&socket, &["-device", device]) else { return };
    let mut session = session(&listener, shown.profile());
    while converse(&mut session) {
        serve_disk(&mut session, &mut frontend, &mut volume);
        wait(&mut session, 2);
    }
    let output = qemu.output();
    assert!(output.contains("moirai served sector 2"), "{output:?}");
    assert!(frontend.counters.completed >= 2);
    assert_eq!((frontend.counters.refused, frontend.counters.unanswerable), (0, 0));
    drop(volume);
    if let Some(worker) = worker {
        worker.join().unwrap();
    }
}

#[test]
fn seabios_boots_from_our_disk_behind_qemu() {
    boots_from(|_, path| Volume::open(path, false).unwrap());
}

#[test]
fn seabios_boots_from_an_image_behind_qemu() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        assert!(std::env::var_os("MOIRAI_REQUIRE_QEMU").is_none(), "no qemu-img");
        return eprintln!("NOT TESTED HERE: no qemu-img");
    }
    boots_from(|folder, path| {
        let convert = ["convert", "-O", "qcow2", "-c"];
        let mut command = Command::new("qemu-img");
        let done = command.args(convert).arg(path).arg(folder.join("image")).status().unwrap();
        assert!(done.success());
        let processes = ImageThreads::new(|socket| drop(moirai_image::serve(socket, |_| Ok(()))));
        Volume::open_qcow2(folder, Path::new("image"), false, &processes).unwrap()
    });
}

#[test]
fn seabios_boots_from_a_stripe_set_behind_qemu() {
    boots_from(|folder, path| {
        let bytes = std::fs::read(path).unwrap();
        let files = [folder.join("even"), folder.join("odd")];
        for (number, file) in files.iter().enumerate() {
            let units: Vec<_> = bytes.chunks(4096).skip(number).step_by(2).collect();
            std::fs::write(file, units.concat()).unwrap();
        }
        Volume::open_striped(&files, 4096, false).unwrap()
    });
}

#[test]
fn ipxe_sends_and_receives_over_our_link_behind_qemu() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mac = MacAddr([0x52, 0x54, 0, 1, 2, 3]);
    let offload = Offload::TcpAndUdp;
    let nic = Nic { mac, mtu: 1500, queue_size: 256, pairs: 1, offload };
    let device = "virtio-net-pci,netdev=n,mac=52:54:00:01:02:03,bootindex=0";
    let netdev = "vhost-user,id=n,chardev=c";
    let Some(qemu) = Qemu::start(&socket, &["-netdev", netdev, "-device", device]) else { return };
    let mut session = session(&listener, nic.profile());
    let mut tx = tx::Frontend::new(nic.clone());
    let mut rx = net::rx::Frontend::new(0);
    let mut discovers = 0;
    // iPXE repeats its DHCP discover; by the second one it has seen what we sent after the first.
    while discovers < 2 {
        assert!(converse(&mut session), "QEMU has left");
        let features = session.features();
        tx.set_features(features);
        let vring = session.queue(1).unwrap();
        vring.drain_kick().unwrap();
        let mut packets = 0;
        while let Some((mem, queue)) = vring.parts().filter(|_| discovers < 2) {
            match tx.next_packet(mem, queue).unwrap() {
                tx::Next::Empty => break,
                tx::Next::Dropped => {}
                tx::Next::Packet(tx::Taken { chain, packet }) => {
                    let mut udp = [0; 28];
                    packet.payload.copy_to(&mut udp);
                    discovers += u32::from(packet.head[24..] == [8, 0] && udp[22..24] == [0, 67]);
                    packets += 1;
                    tx.complete(mem, queue, chain).unwrap();
                }
            }
        }
        vring.signal().unwrap();
        if packets > 0 && session.queue(0).unwrap().is_running() {
            rx = net::rx::Frontend::new(features);
            let vring = session.queue(0).unwrap();
            let (mem, queue) = vring.parts().unwrap();
            let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0; 46]].concat();
            let delivery = rx.deliver(mem, queue, &net::VnetHeader::default(), &frame).unwrap();
            assert_eq!(delivery, net::rx::Delivery::Delivered);
            vring.signal().unwrap();
        }
        if discovers < 2 {
            wait(&mut session, 2);
        }
    }
    assert_eq!((tx.counters.dropped_tx, rx.counters.completed), (0, 1), "{:?}", tx.last_drop());
    drop(qemu);
}
