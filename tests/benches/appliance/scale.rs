//! What a packet and a read of 4 KiB cost the I/O domain beside devices that do nothing: its
//! thread's CPU time for each, with 1, 10, 100 and 1000 idle devices attached. The peer of each is
//! a domain without idle devices, and what is judged is the ratio to it.
#![allow(unsafe_code, reason = "a network namespace of its own, by system call")]

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use moirai_devices::backend::Volume;
use moirai_devices::backend::tap::Tap;
use moirai_devices::mock::{Guest, SLOTS, readable, writable};
use moirai_devices::net::Offload;
use moirai_io::{BlkSpec, DiskSpec, GroupSpec, IoDomain, LinkSpec, NetSpec};
use moirai_runtime::StallLog;
use moirai_scheduler::{Amount, Contract, PolicyKind, Span, Weight};
use rustix::thread::UnshareFlags;
use vm_memory::{Bytes as _, GuestAddress};

use crate::options::Options;
use crate::pair::Pairs;
use crate::report::{Goal, Report};

const IDLE: [usize; 4] = [1, 10, 100, 1000];
/// Of what there is a sample of.
const OPERATIONS: u64 = 20_000;
/// Whoever does nothing costs the others next to nothing: a turn costs what there is to do.
const FLAT: Goal = Goal::AtMostTimes(1.1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures both, beside so many idle devices.
pub(crate) fn measure(report: &mut Report, options: &Options) {
    allow_descriptors();
    for idle in IDLE {
        let mut reads = (Bench::new(idle), Bench::new(0));
        let pairs = Pairs::take(options.pairs, || reads.0.read(), || reads.1.read());
        let name = format!("4 KiB read, {idle} idle devices");
        report.compare(name, "ns", "none idle", pairs, FLAT);
        let pairs = Pairs::take(options.pairs, || reads.0.send(), || reads.1.send());
        let name = format!("packet, {idle} idle devices");
        report.compare(name, "ns", "none idle", pairs, FLAT);
    }
    report.note("scale: CPU time of the loop's thread for each read or packet; one at a time");
}

/// A domain with a disk and a link, one device on each, and others that do nothing.
struct Bench {
    domain: IoDomain,
    disk: Guest,
    card: Guest,
    _idle: Vec<Guest>,
    _volumes: tempfile::TempDir,
}

impl Bench {
    fn new(idle: usize) -> Self {
        let domain = IoDomain::start(GroupSpec {
            name: "scale".into(),
            core: None,
            disks: vec![DiskSpec {
                name: "disk".into(),
                depth: 4,
                max_unit: Amount::from_millis(4),
                blocking: Amount::from_millis(4),
                policy: PolicyKind::Atropos,
            }],
            links: vec![LinkSpec {
                name: "link".into(),
                rate_bps: 100_000_000_000,
                mtu: 1500,
                policy: PolicyKind::Atropos,
                reserved: Vec::new(),
                broadcast: 20,
                tap: tap(),
            }],
            poll: Duration::ZERO,
            stalls: StallLog::default(),
        });
        let domain = domain.expect("real-time priority and io_uring are needed: run as root");
        let volumes = tempfile::tempdir().unwrap();
        let disk = |name: &str| {
            let path = volumes.path().join(name);
            std::fs::write(&path, vec![7; 1 << 20]).unwrap();
            let (socket, theirs) = UnixStream::pair().unwrap();
            let volume = Volume::open(&path, true).unwrap();
            let spec = BlkSpec {
                tenant: name.into(),
                disk: "disk".into(),
                volume,
                queues: 1,
                contract: contract(),
                bandwidth: None,
                memory: 1 << 30,
                socket,
            };
            domain.attach_blk(spec).unwrap();
            Guest::boot(theirs, 1, 0, true)
        };
        let card = |number: u16| {
            let (socket, theirs) = UnixStream::pair().unwrap();
            let [high, low] = number.to_be_bytes();
            let spec = NetSpec {
                tenant: format!("card{number}"),
                link: "link".into(),
                mac: [0x52, 0, 0, 2, high, low],
                pairs: 1,
                sources: moirai_io::Sources::Own(Vec::new()),
                receive: 250,
                memory: 1 << 30,
                contract: contract(),
                socket,
            };
            domain.attach_net(spec).unwrap();
            Guest::boot(theirs, 2, 0, true)
        };
        let (active_disk, active_card) = (disk("active"), card(0));
        let idle = (0..idle).map(|number| match number % 2 {
            0 => disk(&format!("idle{number}")),
            _ => card(u16::try_from(number).unwrap()),
        });
        let idle = idle.collect();
        // Whatever has to do with their attachment is over by then.
        std::thread::sleep(Duration::from_millis(300));
        Self { domain, disk: active_disk, card: active_card, _idle: idle, _volumes: volumes }
    }

    /// CPU time of one read of 4 KiB, in nanoseconds.
    fn read(&mut self) -> f64 {
        let (header, data) = (self.disk.header(0, 0), self.disk.data(0, 0));
        let memory = &self.disk.memory;
        memory.write_slice(&[0; 16], GuestAddress(header)).unwrap();
        let chain = [readable(header, 16), writable(data, 4096), writable(header + 32, 1)];
        let guest = &mut self.disk;
        cost(&self.domain, || {
            guest.post(0, 0, &chain);
            wait(guest, 0, 1);
        })
    }

    /// CPU time of one packet.
    fn send(&mut self) -> f64 {
        let guest = &mut self.card;
        let slots: Vec<_> = (0..SLOTS).collect();
        for &slot in &slots {
            let frame =
                [&[0x52, 0, 0, 9, 9, 9, 0x52, 0, 0, 2, 0, 0, 8, 0][..], &[0; 1300]].concat();
            let (header, data) = (guest.header(1, slot), guest.data(1, slot));
            guest.memory.write_slice(&[0; 12], GuestAddress(header)).unwrap();
            guest.memory.write_slice(&frame, GuestAddress(data)).unwrap();
        }
        cost(&self.domain, || {
            let (header, data) = (guest.header(1, 0), guest.data(1, 0));
            guest.post(1, 0, &[readable(header, 12), readable(data, 1314)]);
            wait(guest, 1, 1);
        })
    }
}

/// What the loop's thread spends on one operation.
#[allow(clippy::cast_precision_loss, reason = "nanoseconds of CPU time")]
fn cost(domain: &IoDomain, mut operation: impl FnMut()) -> f64 {
    let spent = || domain.snapshot(Duration::from_secs(5)).unwrap().cpu_ns;
    (0..OPERATIONS / 20).for_each(|_| operation());
    let before = spent();
    (0..OPERATIONS).for_each(|_| operation());
    (spent() - before) as f64 / OPERATIONS as f64
}

/// Waits until so many chains came back.
fn wait(guest: &mut Guest, queue: usize, count: usize) {
    let begun = Instant::now();
    let mut back = 0;
    while back < count {
        match guest.returned(queue) {
            Some(_) => back += 1,
            None => assert!(begun.elapsed() < PATIENCE, "nothing comes back"),
        }
    }
}

fn contract() -> Contract {
    let period = Span::from_millis(100);
    Contract::new(period, Amount::ZERO, period, Some(Weight::MIN)).unwrap()
}

/// A TAP that is up, in a network namespace of its own.
fn tap() -> Tap {
    let thread = std::thread::spawn(|| {
        // SAFETY: a network namespace changes nothing that this thread has in memory or open.
        let left = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        left.expect("run as root");
        let tap = Tap::open("scale", Offload::None).unwrap();
        let up = Command::new("ip").args(["link", "set", "scale", "up"]).status().unwrap();
        assert!(up.success(), "ip link set up");
        tap
    });
    thread.join().unwrap()
}

/// A thousand devices have five thousand descriptors.
fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, limit).expect("run as root");
}
