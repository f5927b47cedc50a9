//! A tenant process, an I/O domain and a dispatcher, wired by hand: the data path without the
//! service around it.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moirai_cpu::GatePage;
use moirai_io::{DiskSpec, GroupSpec, IoDomain};
use moirai_launch::{
    Boot, Child, DeviceSpec, LaunchFds, LaunchSpec, Sandbox, ToHost, Transport, open_kvm, spawn,
};
use moirai_runtime::StallLog;
use moirai_scheduler::{Amount, Contract, PolicyKind, Span, Weight};
use serde_json::Value;

/// A test that waits longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const TEN: Span = Span::from_millis(10);

/// One test at a time has the machine's real-time priorities to itself.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `target/`, wherever cargo keeps it.
fn target() -> PathBuf {
    let me = std::env::current_exe().expect("a test knows where it runs");
    let profile = me.parent().and_then(Path::parent).expect("target/PROFILE/deps/NAME");
    profile.to_owned()
}

/// The tenant binary of this build, or that of `make`.
fn tenant_binary() -> PathBuf {
    let candidates = [
        std::env::var_os("MOIRAI_TENANT").map(PathBuf::from),
        Some(target().join("moirai-tenant")),
        Some(root().join("target/release/moirai-tenant")),
    ];
    let found = candidates.into_iter().flatten().find(|path| path.exists());
    found.expect("moirai-tenant is not built; run `make host` first")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace").to_owned()
}

pub(crate) fn image(name: &str) -> OwnedFd {
    let folder = std::env::var_os("MOIRAI_IMAGES").map(PathBuf::from);
    let path = folder.unwrap_or_else(|| root().join("target/images")).join(name);
    let file = std::fs::File::open(&path);
    file.unwrap_or_else(|e| panic!("{}: {e}; run `make images` first", path.display())).into()
}

/// An I/O domain with one disk and no link.
pub(crate) fn domain_with_disk() -> IoDomain {
    let disk = DiskSpec {
        name: "disk".into(),
        depth: 4,
        max_unit: Amount::from_millis(1),
        blocking: Amount::from_millis(1),
        policy: PolicyKind::Atropos,
    };
    let spec = GroupSpec {
        name: "test".into(),
        core: None,
        disks: vec![disk],
        links: Vec::new(),
        poll: Duration::ZERO,
        stalls: StallLog::default(),
    };
    IoDomain::start(spec).expect("real-time priority and io_uring are needed: run as root")
}

pub(crate) fn contract(period_ms: u64, slice_ms: u64) -> Contract {
    let period = Span::from_millis(period_ms);
    Contract::new(period, Amount::from_millis(slice_ms), period, Some(Weight::MIN)).unwrap()
}

/// A running tenant and its console.
pub(crate) struct Tenant {
    pub(crate) child: Child,
    pub(crate) gates: GatePage,
    pub(crate) tids: Vec<i32>,
    console: BufReader<UnixStream>,
}

impl Tenant {
    /// Starts `app`; `sockets` are the frontends' ends, with virtio device id and queue count.
    pub(crate) fn start(app: &str, cmdline: &str, sockets: Vec<(u32, u16, UnixStream)>) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let (gates, gate) = GatePage::create().unwrap();
        let device = |(device_id, queues, _): &(u32, u16, UnixStream)| DeviceSpec {
            device_id: *device_id,
            queues: *queues,
            queue_size: 256,
        };
        let spec = LaunchSpec {
            name: app.into(),
            memory_bytes: 256 << 20,
            prefault: false,
            huge_pages: false,
            vcpus: 1,
            cmdline: cmdline.into(),
            boot: Boot::Auto,
            initrd: false,
            transport: Transport::Mmio,
            devices: sockets.iter().map(device).collect(),
            own_devices: Vec::new(),
            sandbox: Sandbox { enabled: true, uid: Some(233_333), gid: Some(233_333) },
        };
        let fds = LaunchFds {
            kvm: open_kvm().unwrap(),
            image: image(app),
            console: theirs.into(),
            gate,
            initrd: None,
            own_devices: Vec::new(),
            devices: sockets.into_iter().map(|(_, _, socket)| socket.into()).collect(),
        };
        let child = spawn(&tenant_binary(), &spec, fds).unwrap();
        let tids = match child.control().receive().unwrap().0 {
            ToHost::Running { vcpu_tids, .. } => vcpu_tids,
            other => panic!("the tenant did not start: {other:?}"),
        };
        // Most tests have no dispatcher that would let it run.
        gates.word(0).unwrap().open();
        Self { child, gates, tids, console: BufReader::new(ours) }
    }

    /// The next report of this kind on the console; everything else goes to the test's output.
    pub(crate) fn report(&mut self, event: &str) -> Value {
        let begin = moirai_runtime::instant();
        while moirai_runtime::since(begin) < PATIENCE {
            let mut line = String::new();
            let length = self.console.read_line(&mut line).expect("the console fell silent");
            assert!(length > 0, "the tenant ended");
            eprint!("console: {line}");
            let value: Value = serde_json::from_str(line.trim()).unwrap_or_default();
            if value["event"] == event {
                return value;
            }
            assert_ne!(value["event"], "error", "the guest reports an error");
        }
        panic!("no {event:?} within {PATIENCE:?}");
    }
}

/// A file of this size with every sector different and nothing sparse.
pub(crate) fn volume(folder: &Path, bytes: u64) -> PathBuf {
    let path = folder.join("volume");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for sector in 0..bytes / 512 {
        file.write_all(&[sector.to_le_bytes(); 64].concat()).unwrap();
    }
    file.into_inner().unwrap().sync_all().unwrap();
    path
}

/// Packets of the test film, 188 bytes each: a multiple of 7, three seconds at 1.5 Mbit/s.
pub(crate) const FILM_PACKETS: u64 = 2_996;

/// A transport stream with nothing in it but a clock: a PCR in every tenth packet.
pub(crate) fn film(folder: &Path) -> PathBuf {
    const TICKS_PER_PACKET: u64 = 27_000; // 27 MHz: 1 ms a packet, 1.5 Mbit/s
    let path = folder.join("film.ts");
    let mut stream = Vec::new();
    for n in 0..FILM_PACKETS {
        let mut packet = [0xffu8; 188];
        let counter = u8::try_from(n % 16).unwrap();
        packet[..4].copy_from_slice(&[0x47, 0x01, 0x00, 0x30 | counter]);
        packet[4] = 7; // adaptation field with flags and PCR
        packet[5] = 0;
        if n % 10 == 0 {
            let pcr = n * TICKS_PER_PACKET;
            let (base, extension) = (pcr / 300, pcr % 300);
            let field = base << 15 | 0x3f << 9 | extension;
            packet[5] = 0x10;
            packet[6..12].copy_from_slice(&field.to_be_bytes()[2..]);
        }
        stream.extend(packet);
    }
    stream.resize(stream.len().next_multiple_of(512), 0);
    std::fs::write(&path, stream).unwrap();
    path
}
