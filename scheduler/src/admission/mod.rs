//! Admission: can this set of contracts be kept? Asked before every promise.
//!
//! Earliest deadline first keeps a set if and only if the service that is *due* in any time `t`
//! fits into what the resource can *supply* in `t`. With `C_i` the slice and its overheads:
//!
//! 1. demand `h(t) = sum over D_i <= t of (floor((t - D_i)/p_i) + 1) * C_i` (Baruah, Rosier and
//!    Howell 1990), for every deadline `t`;
//! 2. `C_i = s_i + 2*(switch + cache)`: a slice is switched to and from once, and so may be one
//!    that it preempts;
//! 3. interrupts: plus `ceil(t/p_j) * cost_j` for every source `j`;
//! 4. blocking: plus `B`, what may be inside the device and cannot be taken back. That is one
//!    largest unit at every depth where a window bounds it in time ([`crate::device::Window`]).
//!    Best-effort traffic is made of such units too, so `B` counts at every `t`;
//! 5. overrun: plus `e` for every client with `D_i <= t`: where units cannot be preempted a client
//!    may overdraw its slice by one, which it repays only in its next period;
//! 6. supply: `floor(capacity * t)`, since not more than `capacity` of a resource is promised.
//!
//! The set fits if demand is at most supply at every deadline. [`check`] decides this exactly by
//! QPA (`qpa.rs`), in integers. Where it cannot be decided (more than [`WORK_MAX`] looks; only for
//! sets within a millionth of the capacity or made to be hard) the answer is *no*, says so, and
//! tells down to which time everything fits.

mod bound;
mod channels;
mod classic;
pub mod demand;
mod load;
mod nearest;
mod qpa;

use alloc::vec::Vec;

pub use channels::{Channel, ChannelRefusal, DOrder, Order};
pub use classic::{DrrQueue, density_fits, drr_latency, reserved_ppm, utilisation_fits};

pub use qpa::WORK_MAX;

use crate::contract::Contract;
use crate::time::{Amount, Span};
use demand::Set;

/// Parts per million that make a whole.
pub const WHOLE_PPM: u32 = 1_000_000;

/// A source of interrupts that takes time from the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The shortest time between two interrupts, in nanoseconds. Zero counts as one.
    pub period: Span,
    /// What one of them costs, in nanoseconds.
    pub cost: Amount,
}

/// What keeping contracts costs on a host, as measured by its profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// One switch between clients, in nanoseconds.
    pub switch: Amount,
    /// Refilling caches after a switch, in nanoseconds.
    pub cache: Amount,
    /// By how much a client may overdraw a slice, in nanoseconds: one largest unit, where units are
    /// charged when they are handed out ([`crate::Policy::hand_out`]). Zero on a preemptible
    /// resource.
    pub overrun: Amount,
    /// What else takes time.
    pub interrupts: Vec<Interrupt>,
}

impl Overhead {
    /// Nothing costs anything.
    pub const NONE: Self = Self {
        switch: Amount::ZERO,
        cache: Amount::ZERO,
        overrun: Amount::ZERO,
        interrupts: Vec::new(),
    };
}

/// A resource as far as admission is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The share that may be promised at most, in parts per million; more than the whole counts as
    /// the whole.
    pub capacity_ppm: u32,
    /// How long what is inside a device may keep it from others, in nanoseconds: one largest unit
    /// at every depth, where a window bounds it ([`crate::device::Window`]). Zero on a preemptible
    /// resource.
    pub blocking: Amount,
    /// Costs of switching and interrupts.
    pub overhead: Overhead,
}

impl Resource {
    /// A whole device whose units cannot be preempted: the largest one takes `unit` nanoseconds.
    #[must_use]
    pub fn of_units(unit: Amount) -> Self {
        let overhead = Overhead { overrun: unit, ..Overhead::NONE };
        Self { capacity_ppm: WHOLE_PPM, blocking: unit, overhead }
    }
}

/// A time by which more is due than can be supplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Length of the interval that starts when all slices are released at once, in nanoseconds.
    pub time: Span,
    /// Service due in it with all overheads, in nanoseconds.
    pub demand: Amount,
    /// Service that the resource promises in it at most, in nanoseconds.
    pub supply: Amount,
    /// Nothing fails here: it is where the test gave up. Everything later fits.
    pub undecided: bool,
}

/// Why a contract is not admitted, and what would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for.
    pub requested: Contract,
    /// Share of the resource that is not reserved, in parts per million.
    pub available_ppm: u32,
    /// The nearest contract that fits: the largest slice in the same period; if there is none, the
    /// same slice with the shortest deadline, else the shortest period, that works.
    pub nearest: Option<Contract>,
    /// The whole slice, with the shortest later deadline by which it fits, if there is one within
    /// the period.
    pub later: Option<Contract>,
    /// Where the set with the newcomer fails.
    pub violation: Violation,
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { time, demand, supply, undecided } = *self;
        if undecided {
            let spare = supply.saturating_sub(demand);
            return write!(
                f,
                "the exact test gave up after {WORK_MAX} looks without a violation: all times \
                 beyond {time} ns fit, and there {spare} ns are to spare"
            );
        }
        write!(f, "in {time} ns up to {demand} ns are due, but only {supply} ns can be supplied")
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} ns in every {} ns do not fit: {}; {} ppm of the resource are left",
            self.requested.slice(),
            self.requested.period(),
            self.violation,
            self.available_ppm
        )?;
        match self.nearest {
            Some(fit) => write!(
                f,
                "; {} ns in every {} ns by {} ns would fit",
                fit.slice(),
                fit.period(),
                fit.deadline()
            ),
            None => write!(f, "; no contract of this kind would fit"),
        }
    }
}

impl core::error::Error for Violation {}
impl core::error::Error for Refusal {}

/// Whether the whole set can be kept.
///
/// # Errors
/// The deadline at which it cannot.
pub fn check(resource: &Resource, set: &[Contract]) -> Result<(), Violation> {
    Set::new(resource, set.iter().copied()).check()
}

/// Whether `newcomer` can be admitted beside those that are admitted already.
///
/// # Errors
/// A [`Refusal`] that says where the set fails and what would fit instead.
pub fn admit(
    resource: &Resource,
    admitted: &[Contract],
    newcomer: &Contract,
) -> Result<(), Refusal> {
    let base = Set::new(resource, admitted.iter().copied());
    // Nothing is promised to a newcomer without a slice, but the resource may cost more with it.
    let Err(violation) = base.with(newcomer).check() else { return Ok(()) };
    let capacity = resource.capacity_ppm.min(WHOLE_PPM);
    let (nearest, later) = if newcomer.slice() == Amount::ZERO {
        (None, None)
    } else {
        let mut search = nearest::Search::new(newcomer, |it| base.with(&it), violation);
        (search.nearest(), search.later())
    };
    Err(Refusal {
        requested: *newcomer,
        available_ppm: capacity.saturating_sub(reserved_ppm(admitted)),
        nearest,
        later,
        violation,
    })
}
