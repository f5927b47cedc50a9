//! The data path end to end: a guest in a tenant process, its disk in the I/O domain, its vCPU
//! under the dispatcher. Real KVM, real files, and no service but where it changes what the I/O
//! domain does.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;
mod blocks;
mod export;
mod net;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use bench::{TEN, Tenant, contract, domain_with_disk, volume};
use moirai_bench::recorder::{Capture, Stalls, analyse};
use moirai_cpu::{Dispatcher, DispatcherSpec, VcpuSpec};
use moirai_devices::backend::Volume;
use moirai_io::{BlkSpec, NetSpec};
use moirai_runtime::StallLog;
use moirai_runtime::netns::in_netns;
use moirai_scheduler::{Amount, Contract, PolicyKind};
use net::{Namespace, domain_with_link};

#[test]
fn a_guest_reads_its_volume_and_nobody_copies_the_payload() {
    let _turn = bench::turn();
    let folder = tempfile::tempdir().unwrap();
    let domain = domain_with_disk();
    let (backend, frontend) = UnixStream::pair().unwrap();
    let path = volume(folder.path(), 16 << 20);
    let spec = BlkSpec {
        tenant: "thrash".into(),
        disk: "disk".into(),
        volume: Volume::open(&path, true).unwrap(),
        queues: 1,
        contract: contract(10, 2),
        bandwidth: None,
        memory: 1 << 30,
        socket: backend,
    };
    let id = domain.attach_blk(spec).unwrap();
    let words = "mode=read depth=8 size=65536 count=2000 report_ms=500";
    let mut tenant = Tenant::start("thrash", words, vec![(2, 1, frontend)]);
    tenant.report("ready");
    let done = tenant.report("done");
    println!("{done}");
    let snapshot = domain.snapshot(Duration::from_secs(5)).unwrap();
    let device = snapshot.devices.iter().find(|device| device.id == id.0).unwrap();
    println!("{device:?}");
    assert_eq!(device.completed, 2000);
    assert_eq!(device.bytes, 2000 * 65536);
    assert_eq!((device.errors, device.copied_by_us_bytes), (0, 0));
    assert_eq!(device.failed, None);
    assert!(device.guaranteed_ns > 0);
    let charged = device.guaranteed_ns + device.extra_ns;
    // Every busy nanosecond is charged once, but for the remainders of a division.
    assert!(snapshot.disks[0].busy_ns - charged < 1_000, "{:?}", snapshot.disks[0]);
    domain.detach(id).unwrap();
}

#[test]
fn a_vcpu_without_extra_gets_its_slice_and_no_more() {
    let _turn = bench::turn();
    let core = std::thread::available_parallelism().unwrap().get() - 1;
    let dispatcher = Dispatcher::start(DispatcherSpec {
        wake_cost: Amount::ZERO,
        core,
        policy: PolicyKind::Atropos,
        stalls: StallLog::default(),
    });
    let dispatcher = dispatcher.unwrap();
    let mut tenant = Tenant::start("carnage", "report_ms=200", Vec::new());
    tenant.report("ready");
    let id = dispatcher
        .attach(VcpuSpec {
            tenant: "carnage".into(),
            pid: i32::try_from(tenant.child.pid()).unwrap(),
            tid: tenant.tids[0],
            gate: tenant.gates.word(0).unwrap(),
            contract: Contract::new(TEN, Amount::from_millis(2), TEN, None).unwrap(),
        })
        .unwrap();
    let begin = moirai_runtime::instant();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let last = dispatcher.detach(id).unwrap();
    let elapsed = moirai_runtime::since(begin).as_nanos();
    println!("{last:?} in {elapsed} ns");
    let share = u128::from(last.guaranteed_ns) * 1000 / elapsed;
    // A share, not a time: the machine may stall, but then it gives nobody anything.
    assert!((150..=205).contains(&share), "{share} per mille of a contract for 200");
    assert_eq!((last.extra_ns, last.misses), (0, 0));
}

/// Attaches a network device for a tenant; the frontend's end of its socket.
fn network(domain: &moirai_io::IoDomain, last_byte: u8) -> (u32, UnixStream) {
    let (backend, frontend) = UnixStream::pair().unwrap();
    let spec = NetSpec {
        tenant: "guest".into(),
        link: "link".into(),
        mac: [2, 0, 0, 0, 0, last_byte],
        pairs: 1,
        sources: moirai_io::Sources::Own(Vec::new()),
        receive: 100,
        memory: 1 << 30,
        contract: contract(10, 5),
        socket: backend,
    };
    (domain.attach_net(spec).unwrap().0, frontend)
}

#[test]
fn a_guest_answers_what_comes_over_the_link() {
    let _turn = bench::turn();
    let namespace = Namespace::create("moirai-echo");
    let domain = domain_with_link(&namespace, 100_000_000, PolicyKind::Atropos);
    let (_, frontend) = network(&domain, 2);
    let mut tenant = Tenant::start("echo", "ip=10.77.0.2/24 port=7", vec![(1, 2, frontend)]);
    tenant.report("ready");
    let answers = in_netns(&namespace.0, || {
        let socket = std::net::UdpSocket::bind("10.77.0.1:0").unwrap();
        socket.set_read_timeout(Some(bench::PATIENCE)).unwrap();
        (0..20u32)
            .filter(|n| {
                let payload = n.to_le_bytes().repeat(100);
                socket.send_to(&payload, "10.77.0.2:7").unwrap();
                let mut answer = [0; 1500];
                let length = socket.recv(&mut answer).unwrap();
                answer[..length] == payload[..]
            })
            .count()
    });
    assert_eq!(answers.unwrap(), 20);
}

#[test]
fn a_film_is_streamed_without_a_copy_and_without_loss() {
    let _turn = bench::turn();
    let folder = tempfile::tempdir().unwrap();
    let namespace = Namespace::create("moirai-film");
    let domain = domain_with_link(&namespace, 100_000_000, PolicyKind::Atropos);
    let (net, net_frontend) = network(&domain, 2);
    let (backend, blk_frontend) = UnixStream::pair().unwrap();
    let film = bench::film(folder.path());
    let spec = BlkSpec {
        tenant: "streamer".into(),
        disk: "disk".into(),
        volume: Volume::open(&film, true).unwrap(),
        queues: 1,
        contract: contract(50, 10),
        bandwidth: None,
        memory: 1 << 30,
        socket: backend,
    };
    domain.attach_blk(spec).unwrap();
    let address = "10.77.0.1:5004".parse().unwrap();
    let capture = in_netns(&namespace.0, || Capture::start(address)).unwrap().unwrap();
    let words = "ip=10.77.0.2/24 to=10.77.0.1:5004 loop=0";
    let sockets = vec![(2, 1, blk_frontend), (1, 2, net_frontend)];
    let mut tenant = Tenant::start("streamer", words, sockets);
    tenant.report("ready");
    tenant.report("done");
    let seen = analyse(&capture.finish(), &Stalls::default());
    println!("{seen:?}");
    assert_eq!(seen.lost, 0);
    assert_eq!(seen.packets, bench::FILM_PACKETS / 7);
    let snapshot = domain.snapshot(Duration::from_secs(5)).unwrap();
    let device = snapshot.devices.iter().find(|device| device.id == net).unwrap();
    println!("{device:?}");
    assert!(snapshot.devices.iter().all(|device| device.copied_by_us_bytes == 0));
    assert_eq!(device.dropped_tx, 0);
}
