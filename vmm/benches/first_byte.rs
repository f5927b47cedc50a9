//! Exec to first guest byte, and the memory of the tenant process at that point without guest RAM.
//! A whole run, so not a micro benchmark: spawns the tenant as the host service does.
//!
//! `cargo bench -p moirai-vmm [-- IMAGE...]`; without images a guest of a few instructions runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints and may panic")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use support::image::{Code, Notes, image};
use support::{Tenant, file, spec};

const RUNS: usize = 20;

fn main() {
    let images: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let tiny = Code::default().print("x").spin();
    for (name, notes) in [("tiny guest, ring 3", Notes::Ring3), ("tiny guest, PVH", Notes::Pvh)] {
        measure(name, || file(&image(&tiny.0, notes)));
    }
    for path in images {
        measure(&path, || File::open(&path).unwrap());
    }
}

fn measure(name: &str, image: impl Fn() -> File) {
    let mut runs: Vec<(Duration, u64)> = (0..RUNS).map(|_| run(image())).collect();
    runs.sort_unstable();
    let (least, median, most) = (runs[0], runs[RUNS / 2], runs[RUNS - 1]);
    println!(
        "{name}: first byte after {:?} (min {:?}, max {:?}), own memory {} KiB",
        median.0, least.0, most.0, median.1
    );
}

fn run(image: File) -> (Duration, u64) {
    let start = Instant::now();
    let mut tenant = Tenant::launch(&spec(), image);
    tenant.console.read_exact(&mut [0]).unwrap();
    let elapsed = start.elapsed();
    tenant.running();
    (elapsed, own_memory_kib(tenant.child.pid()))
}

/// Resident memory but for shared memory, which is guest RAM.
fn own_memory_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |line: &str| line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    let ours = |line: &&str| line.starts_with("RssAnon") || line.starts_with("RssFile");
    status.lines().filter(ours).filter_map(kib).sum()
}
