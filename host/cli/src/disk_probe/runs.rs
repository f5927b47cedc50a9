//! What is measured: every kind, pattern and size, one at a time and as many as are configured.

pub(super) const KIB: u64 = 1 << 10;
/// Sizes of units, in bytes.
pub(super) const SIZES: [u64; 4] = [4 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB];

/// Where units lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Random,
    Sequential,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// "read", "write", or "flush": one of each write before it.
    pub(super) kind: &'static str,
    pub(super) pattern: Pattern,
    pub(super) bytes: u64,
    pub(super) depth: u32,
}

/// All runs for a disk that takes `depth` units at a time; one that is not `writable` is only read.
pub(super) fn runs(depth: u32, writable: bool) -> Vec<Run> {
    let mut runs = Vec::new();
    let kinds: &[&'static str] = if writable { &["read", "write"] } else { &["read"] };
    let depths: &[u32] = if depth > 1 { &[1, depth] } else { &[1] };
    for &kind in kinds {
        for pattern in [Pattern::Random, Pattern::Sequential] {
            for bytes in SIZES {
                runs.extend(depths.iter().map(|&depth| Run { kind, pattern, bytes, depth }));
            }
        }
    }
    if writable {
        let (pattern, bytes, depth) = (Pattern::Random, 64 * KIB, 1);
        runs.push(Run { kind: "flush", pattern, bytes, depth });
    }
    runs
}
