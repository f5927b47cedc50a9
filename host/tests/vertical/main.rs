//! The data path end to end: a guest in a tenant process, its disk in the I/O domain, its vCPU under
//! the dispatcher. Real KVM, real files, no service.

mod bench;

use std::os::unix::net::UnixStream;

use bench::{MS, Tenant, contract, domain_with_disk, volume};
use moirai_devices::backend::file::Volume;
use moirai_host::dispatcher::{Dispatcher, DispatcherSpec, StallLog, VcpuSpec};
use moirai_host::iodomain::BlkSpec;
use moirai_scheduler::Contract;

#[test]
fn a_guest_reads_its_volume_and_nobody_copies_the_payload() {
    let folder = tempfile::tempdir().unwrap();
    let domain = domain_with_disk();
    let (backend, frontend) = UnixStream::pair().unwrap();
    let path = volume(folder.path(), 16 << 20);
    let spec = BlkSpec {
        tenant: "thrash".into(),
        disk: "disk".into(),
        volume: Volume::open(&path, true).unwrap(),
        contract: contract(10, 2),
        socket: backend,
    };
    let id = domain.attach_blk(spec).unwrap();
    let words = "mode=read depth=8 size=65536 count=2000 report_ms=500";
    let mut tenant = Tenant::start("thrash", words, vec![(2, 1, frontend)]);
    tenant.report("ready");
    let done = tenant.report("done");
    println!("{done}");
    let snapshot = domain.snapshot().unwrap();
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
    let core = std::thread::available_parallelism().unwrap().get() - 1;
    let dispatcher = Dispatcher::start(DispatcherSpec {
        core,
        policy: "atropos".into(),
        scheduling: true,
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
            contract: Contract::new(10 * MS, 2 * MS, 10 * MS, None).unwrap(),
        })
        .unwrap();
    let begin = std::time::Instant::now();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let last = dispatcher.detach(id).unwrap();
    let elapsed = begin.elapsed().as_nanos();
    println!("{last:?} in {elapsed} ns");
    let share = u128::from(last.guaranteed_ns) * 1000 / elapsed;
    // A share, not a time: the machine may stall, but then it gives nobody anything.
    assert!((150..=205).contains(&share), "{share} per mille of a contract for 200");
    assert_eq!((last.extra_ns, last.misses), (0, 0));
}
