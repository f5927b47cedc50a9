//! Reads through virtio-blk beside fio with io_uring on the same file, past the page cache.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use moirai_tests::last_json;

use crate::children::run;
use crate::load::Load;
use crate::options::Options;
use crate::pair::Pairs;
use crate::report::{Goal, Report};
use crate::server::Server;

const VOLUME: &str = "bench.img";
const VOLUME_BYTES: usize = 1 << 30;
const DEVICES: &str = "[[tenant.disk]]\ndisk = \"disk\"\nvolume = \"bench.img\"\nreadonly = true\n";

/// A way of reading.
struct Shape {
    name: &'static str,
    /// The guest's words.
    guest: &'static str,
    /// fio's words.
    fio: [&'static str; 3],
    unit: &'static str,
    /// Requests in a unit.
    requests: f64,
    goal: Goal,
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "4 KiB random reads, depth 32",
        guest: "mode=read depth=32 size=4096 pattern=random",
        fio: ["--rw=randread", "--bs=4k", "--iodepth=32"],
        unit: "k/s",
        requests: 1000.0,
        goal: Goal::Share(0.8),
    },
    Shape {
        name: "1 MiB sequential reads, depth 8",
        guest: "mode=read depth=8 size=1048576 pattern=sequential",
        fio: ["--rw=read", "--bs=1M", "--iodepth=8"],
        unit: "MiB/s",
        requests: 1.0,
        goal: Goal::Share(0.8),
    },
];

/// Measures both shapes.
pub(crate) fn measure(report: &mut Report, options: &Options) {
    let mut server = Server::start();
    let file = server.folder().join(VOLUME);
    write_volume(&file, VOLUME_BYTES);
    for shape in &SHAPES {
        let mut busy = String::new();
        let pairs = Pairs::take(
            options.pairs,
            || {
                let tenant = server.launch("thrash", shape.guest, DEVICES);
                tenant.settle();
                let load = Load::of(&tenant, "disk", options.run);
                busy = load.busy();
                load.rate() / shape.requests
            },
            || fio(&file, shape, options.run) / shape.requests,
        );
        report.compare(shape.name, shape.unit, "fio io_uring, same file", pairs, shape.goal);
        report.note(format!("{}: {busy}", shape.name));
    }
}

/// Reads per second.
fn fio(file: &Path, shape: &Shape, time: Duration) -> f64 {
    let file = format!("--filename={}", file.display());
    let runtime = format!("--runtime={}", time.as_secs());
    let mut words = vec!["--name=peer", "--ioengine=io_uring", "--direct=1", "--readonly"];
    words.extend(["--time_based", "--ramp_time=1", "--output-format=json", &file, &runtime]);
    words.extend(shape.fio);
    let output = run(time + Duration::from_secs(30), "fio", &words);
    last_json(&output)["jobs"][0]["read"]["iops"].as_f64().expect("fio says how many reads it made")
}

/// A file of which every block is there: holes would be read from nowhere.
pub(crate) fn write_volume(path: &Path, bytes: usize) {
    let mut file = File::create(path).expect("a volume");
    let mut seed = 1u64;
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..bytes / block.len() {
        for word in block.chunks_exact_mut(8) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&seed.to_le_bytes());
        }
        file.write_all(&block).expect("room for the volume in /var/tmp");
    }
    file.sync_all().expect("the volume reaches the disk");
    let allocated = file.metadata().expect("the volume").blocks() * 512;
    assert!(allocated >= bytes as u64, "{} is sparse", path.display());
}
