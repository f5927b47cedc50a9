//! The measures of a disk, and what to write into the configuration because of them.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::runs::{Pattern, Run};
use moirai_config::units::{Rate, Size, Time};

/// The least that `max_unit` is proposed to be, in nanoseconds, and its step.
const LEAST_UNIT: u64 = 500_000;
const UNIT_STEP: u64 = 100_000;
/// The shortest part that a request is cut into; what is longer need not fit.
const LEAST_PART: u64 = 64 << 10;
/// What a rate is served with.
const RATE_PART: u64 = 256 << 10;

/// One run. Times in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    /// "read", "write" or "flush" (after one write of this size).
    pub kind: &'static str,
    /// "random" or "sequential".
    pub pattern: &'static str,
    /// Size of a unit in bytes.
    pub bytes: u64,
    /// Units at a time.
    pub depth: u32,
    /// Units done.
    pub count: u64,
    /// Half of them took at most this.
    pub p50_ns: u64,
    /// 99 of 100 took at most this.
    pub p99_ns: u64,
    /// 999 of 1000 took at most this.
    pub p999_ns: u64,
    /// The longest one.
    pub max_ns: u64,
    /// Bytes per second.
    pub bytes_per_second: u64,
}

/// All runs of one disk.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// The folder or device.
    pub path: String,
    /// Whether the page cache was bypassed; without, the figures are the cache's.
    pub direct: bool,
    /// The runs.
    pub measures: Vec<Measure>,
    /// What to declare as `max_unit`, in nanoseconds: twice what 999 of 1000 of the slowest kind
    /// took, of what cannot be cut any further, one at a time.
    pub max_unit_ns: u64,
    /// What to declare as `bandwidth`, in bytes per second: the slower one of reading and writing
    /// 256 KiB in sequence, one at a time.
    pub bandwidth: u64,
}

impl Measure {
    pub(super) fn new(
        run: Run,
        count: u64,
        moved: u64,
        time: Duration,
        times: &Histogram<u64>,
    ) -> Self {
        let per_second = u128::from(moved) * 1_000_000_000 / time.as_nanos().max(1);
        Self {
            kind: run.kind,
            pattern: match run.pattern {
                Pattern::Random => "random",
                Pattern::Sequential => "sequential",
            },
            bytes: run.bytes,
            depth: run.depth,
            count,
            p50_ns: times.value_at_quantile(0.5),
            p99_ns: times.value_at_quantile(0.99),
            p999_ns: times.value_at_quantile(0.999),
            max_ns: times.max(),
            bytes_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
        }
    }
}

impl ProbeReport {
    pub(super) fn new(path: &Path, direct: bool, measures: Vec<Measure>) -> Self {
        let single = || measures.iter().filter(|it| it.depth == 1);
        let whole = single().filter(|it| it.bytes <= LEAST_PART);
        let slowest = whole.map(|it| it.p999_ns).max().unwrap_or(0);
        let max_unit_ns = slowest.saturating_mul(2).next_multiple_of(UNIT_STEP).max(LEAST_UNIT);
        let moving = single().filter(|it| it.bytes == RATE_PART && it.pattern == "sequential");
        let bandwidth = moving.map(|it| it.bytes_per_second).min().unwrap_or(0);
        let path = path.display().to_string();
        Self { path, direct, measures, max_unit_ns, bandwidth }
    }
}

/// Microseconds.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.div_ceil(1_000).to_string())
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path)?;
        if !self.direct {
            writeln!(f, "no O_DIRECT here: what follows is the page cache, not the disk")?;
        }
        writeln!(
            f,
            "{:<6} {:<10} {:>6} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "kind",
            "pattern",
            "size",
            "depth",
            "count",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "max us",
            "MB/s"
        )?;
        for it in &self.measures {
            let [p50, p99, p999, max] = [it.p50_ns, it.p99_ns, it.p999_ns, it.max_ns].map(Micros);
            writeln!(
                f,
                "{:<6} {:<10} {:>6} {:>5} {:>8} {p50:>8} {p99:>8} {p999:>8} {max:>8} {:>8}",
                it.kind,
                it.pattern,
                Size(it.bytes).to_string(),
                it.depth,
                it.count,
                it.bytes_per_second / 1_000_000
            )?;
        }
        let megabytes = self.bandwidth / 1_000_000 * 1_000_000;
        writeln!(f, "\nmax_unit = \"{}\"", Time(self.max_unit_ns))?;
        if megabytes > 0 {
            writeln!(f, "bandwidth = \"{}\"", Rate::Bytes(megabytes))?;
        }
        Ok(())
    }
}
