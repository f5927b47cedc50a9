//! `moirai probe disk`: what a disk takes for its units, measured before anything is promised on
//! it.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `target.rs` | a file of our own without a name, or a block device, which is only read |
//! | `runs.rs` | what is measured: every kind, pattern and size |
//! | `bench.rs` | one run: units of one kind and size, so many at a time |
//! | `report.rs` | the measures, and what follows for the configuration |
//!
//! Talks to no host service. Bounded in time and in bytes.

mod bench;
mod report;
mod runs;
mod target;

use std::io;
use std::path::Path;
use std::time::Duration;

pub use report::{Measure, ProbeReport};

use bench::Bench;
use moirai_io::PRIORITY;
use moirai_runtime::set_scheduler_inherited;
use runs::runs;
use target::Target;

/// Bytes that one run moves at most.
const RUN_BYTES: u64 = 512 << 20;

/// Why a disk was not measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No file could be made, or it could not be opened.
    #[error("cannot use {path}: {source}")]
    Target {
        /// The disk's path.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no io_uring, or no memory.
    #[error("cannot measure: {0}")]
    Ring(#[source] io::Error),
    /// A fault of the probe.
    #[error("the measurement has ended early")]
    Ended,
    /// A unit failed.
    #[error("a {kind} of {bytes} bytes failed: {source}")]
    Unit {
        /// What it was.
        kind: &'static str,
        /// Its size.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Measures the disk at `path`, a folder or a block device, with up to `depth` units at a time, for
/// about `time`.
///
/// # Errors
/// If no file can be made there, or a unit fails.
pub fn probe(path: &Path, depth: u32, time: Duration) -> Result<ProbeReport, ProbeError> {
    let target = Target::open(path).map_err(|source| {
        let path = path.display().to_string();
        ProbeError::Target { path, source }
    })?;
    // A thread of its own, which has the priority of an I/O domain while it lasts: else the time
    // that others have the core would be taken for the disk's. Without the right to it the figures
    // tell.
    let measures = std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            let _ = set_scheduler_inherited(libc::SCHED_FIFO, PRIORITY);
            measure(&target, depth, time)
        });
        measured.join().unwrap_or(Err(ProbeError::Ended))
    })?;
    Ok(ProbeReport::new(path, target.is_direct(), measures))
}

/// All runs, one after the other.
fn measure(target: &Target, depth: u32, time: Duration) -> Result<Vec<Measure>, ProbeError> {
    let runs = runs(depth, target.is_writable());
    let count = u32::try_from(runs.len()).unwrap_or(u32::MAX);
    let mut bench = Bench::new(target, depth).map_err(ProbeError::Ring)?;
    let share = time / count.max(1);
    let mut measures = Vec::new();
    for run in runs {
        let measure = bench.run(run, moirai_runtime::instant() + share, RUN_BYTES);
        measures.push(measure.map_err(|source| ProbeError::Unit {
            kind: run.kind,
            bytes: run.bytes,
            source,
        })?);
    }
    Ok(measures)
}

#[cfg(test)]
mod tests {
    use super::runs::KIB;
    use super::*;

    #[test]
    fn a_folder_is_measured_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let report = probe(folder.path(), 2, Duration::from_millis(200)).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let kinds = |kind| report.measures.iter().filter(move |it| it.kind == kind).count();
        assert_eq!((kinds("read"), kinds("write"), kinds("flush")), (16, 16, 1));
        assert!(report.measures.iter().all(|it| it.count > 0 && it.p50_ns <= it.max_ns));
        let slower = |bytes| {
            let mut measures = report.measures.iter();
            measures.find(|it| it.kind == "write" && it.bytes == bytes).map(|it| it.max_ns)
        };
        assert!(slower(4 * KIB) > Some(1_000), "no system call takes less than a microsecond");
        assert!(report.max_unit_ns > 0 && report.bandwidth > 0);
    }

    #[test]
    fn a_path_that_is_no_disk_says_so() {
        let error = probe(Path::new("/nonexistent"), 1, Duration::ZERO).unwrap_err();
        assert!(error.to_string().starts_with("cannot use /nonexistent"), "{error}");
    }
}
