//! How admission says what it counts: shares, memory, the time that a wake-up takes.

use std::fmt;

use crate::costs::CoreCosts;
use crate::units::Time;

/// Name of the resource that is counted in bytes.
pub(super) const MEMORY: &str = "memory";
/// What is asked for is counted in whole pages of this size.
pub(super) const MIB: u64 = 1 << 20;

/// A service in nanoseconds per second as a percentage with two places.
pub(super) struct Percent(pub(super) u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.0 / 100_000;
        f.pad(&format!("{}.{:02}%", hundredths / 100, hundredths % 100))
    }
}

/// Bytes as whole MiB, rounded up.
pub(super) struct Mebibytes(pub(super) u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}M", self.0.div_ceil(MIB)))
    }
}

/// How much of a resource, in what it is measured in.
pub(super) struct Quantity<'a>(pub(super) &'a str, pub(super) u64);

impl fmt::Display for Quantity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(MEMORY, u64::MAX) => f.pad("unknown"),
            Self(MEMORY, bytes) => Mebibytes(bytes).fmt(f),
            Self(_, service) => Percent(service).fmt(f),
        }
    }
}

/// How long a wake-up takes on a host with these costs.
pub(super) struct WakeUp(pub(super) CoreCosts);

impl fmt::Display for WakeUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CoreCosts { wake_p99, measured, .. } = self.0;
        write!(f, "a wake-up takes up to {} ({})", Time(rounded(wake_p99)), source(measured))
    }
}

/// Up to whole microseconds, where it is that long.
pub(super) fn rounded(nanos: u64) -> u64 {
    if nanos < 1_000 { nanos } else { nanos.div_ceil(1_000).saturating_mul(1_000) }
}

/// Where costs come from.
pub(super) fn source(measured: bool) -> &'static str {
    if measured { "measured on this host" } else { "not measured here yet" }
}
