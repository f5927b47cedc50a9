//! The closed-form tests: utilisation, density, and the latency bound of deficit round robin.

use super::demand::Set;
use super::{Overhead, Resource, WHOLE_PPM};
use crate::contract::Contract;
use crate::time::{Amount, Span};

/// `sum s/p <= capacity`: exact for preemptible resources if every `D = p` and nothing costs
/// anything (Liu and Layland 1973); necessary for all others.
#[must_use]
pub fn utilisation_fits(capacity_ppm: u32, set: &[Contract]) -> bool {
    bare(capacity_ppm, set).utilisation_fits()
}

/// `sum s/min(D, p) <= capacity`: sufficient on preemptible resources, and quick. As `D <= p` in
/// every [`Contract`], this is `sum s/D`.
#[must_use]
pub fn density_fits(capacity_ppm: u32, set: &[Contract]) -> bool {
    bare(capacity_ppm, set).density_fits()
}

fn bare(capacity_ppm: u32, set: &[Contract]) -> Set {
    let resource = Resource { capacity_ppm, blocking: Amount::ZERO, overhead: Overhead::NONE };
    Set::new(&resource, set.iter().copied())
}

/// `sum s/p` in parts per million, rounded up.
#[must_use]
pub fn reserved_ppm(set: &[Contract]) -> u32 {
    // Sums of 2^-60: rounding up each would make 1000001 ppm of three thirds.
    let used = bare(WHOLE_PPM, set).utilisation();
    u32::try_from(used).unwrap_or(u32::MAX)
}

/// A queue of deficit round robin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrrQueue {
    /// Service that the queue may take in each round, in nanoseconds; at least its largest unit.
    pub quantum: Amount,
}

/// The longest time that the head of a newly backlogged queue `of` waits and is served, in
/// nanoseconds: `3F - 2Q_i` with `F` the sum of all quanta (Stiliadis and Varma 1998, with the rate
/// `R` already in the quanta). `None` if there is no such queue or a sum overflows.
#[must_use]
pub fn drr_latency(queues: &[DrrQueue], of: usize) -> Option<Span> {
    let quantum = queues.get(of)?.quantum;
    let frame =
        queues.iter().try_fold(Amount::ZERO, |sum, queue| sum.checked_add(queue.quantum))?;
    frame.checked_mul(3)?.checked_sub(quantum.checked_mul(2)?).map(Amount::time)
}
