//! The contract: what a tenant is promised on one resource.

use core::num::NonZeroU32;

use crate::time::{Amount, Span};

/// The share of a client in the slack, relative to the weights of the others. Default 1.
pub type Weight = NonZeroU32;

/// `(period, slice, deadline, extra)`: in every `period` the client gets `slice` of service by
/// `deadline` after the slice is released; `extra` says whether (and with what weight) it shares
/// the slack.
///
/// A value of this type is well-formed: `period > 0`, `slice <= deadline <= period`, and it asks
/// for something (`slice > 0`, or `extra` is set).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contract {
    period: Span,
    slice: Amount,
    deadline: Span,
    extra: Option<Weight>,
}

/// Why four numbers are no contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContractError {
    /// The period is zero.
    PeriodZero,
    /// The period is longer than [`Contract::PERIOD_MAX`].
    PeriodTooLong {
        /// The period that was asked for.
        period: Span,
    },
    /// The slice is zero and the client does not share the slack: it could never run.
    NothingAsked,
    /// The slice does not fit before the deadline.
    SliceOverDeadline {
        /// The slice that was asked for.
        slice: Amount,
        /// The relative deadline it must fit into.
        deadline: Span,
    },
    /// The deadline lies beyond the period.
    DeadlineOverPeriod {
        /// The relative deadline that was asked for.
        deadline: Span,
        /// The period it must not exceed.
        period: Span,
    },
}

impl Contract {
    /// The longest period: one hour. Longer ones make no sense as promises about time.
    pub const PERIOD_MAX: Span = Span::from_secs(3_600);

    /// Checks the four numbers. `deadline` is relative to the release of the slice.
    ///
    /// # Errors
    /// One variant of [`ContractError`] for each rule that can be broken.
    pub const fn new(
        period: Span,
        slice: Amount,
        deadline: Span,
        extra: Option<Weight>,
    ) -> Result<Self, ContractError> {
        let (whole, most) = (period.as_nanos(), Self::PERIOD_MAX.as_nanos());
        if whole == 0 {
            return Err(ContractError::PeriodZero);
        }
        if whole > most {
            return Err(ContractError::PeriodTooLong { period });
        }
        if deadline.as_nanos() > whole {
            return Err(ContractError::DeadlineOverPeriod { deadline, period });
        }
        if slice.time().as_nanos() > deadline.as_nanos() {
            return Err(ContractError::SliceOverDeadline { slice, deadline });
        }
        if slice.is_zero() && extra.is_none() {
            return Err(ContractError::NothingAsked);
        }
        Ok(Self { period, slice, deadline, extra })
    }

    /// A contract that is at least as dense (`s/D`) and as short (`D`) as each of the two: what a
    /// client may claim while one takes the place of the other.
    pub(crate) fn tighter(self, other: Self) -> Self {
        if other.slice.is_zero() || self == other {
            return self;
        }
        if self.slice.is_zero() {
            return other;
        }
        let deadline = self.deadline.min(other.deadline);
        let slice = self.slice.max(other.slice).min(deadline.service());
        Self { period: self.period.max(other.period), slice, deadline, extra: self.extra }
    }

    /// Length of the period.
    #[must_use]
    pub const fn period(&self) -> Span {
        self.period
    }

    /// Service owed in every period; zero for a client that lives on slack alone.
    #[must_use]
    pub const fn slice(&self) -> Amount {
        self.slice
    }

    /// Relative deadline: the slice is delivered within this time of its release.
    #[must_use]
    pub const fn deadline(&self) -> Span {
        self.deadline
    }

    /// Weight in the slack, `None` if the client does not share it.
    #[must_use]
    pub const fn extra(&self) -> Option<Weight> {
        self.extra
    }
}

impl core::fmt::Display for ContractError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PeriodZero => write!(f, "the period must be longer than zero"),
            Self::PeriodTooLong { period } => write!(
                f,
                "the period of {period} ns is longer than the longest allowed, {} ns",
                Contract::PERIOD_MAX
            ),
            Self::NothingAsked => {
                write!(f, "a slice of zero without `extra` would never get any service")
            }
            Self::SliceOverDeadline { slice, deadline } => {
                write!(
                    f,
                    "a slice of {slice} ns cannot be served within a deadline of {deadline} ns"
                )
            }
            Self::DeadlineOverPeriod { deadline, period } => {
                write!(f, "the deadline of {deadline} ns lies beyond the period of {period} ns")
            }
        }
    }
}

impl core::error::Error for ContractError {}

#[cfg(test)]
mod tests {
    use super::{Contract, Weight};
    use crate::time::{Amount, Span};

    fn contract(period: u64, slice: u64, deadline: u64) -> Contract {
        let (period, deadline) = (Span::from_nanos(period), Span::from_nanos(deadline));
        Contract::new(period, Amount::from_nanos(slice), deadline, Weight::new(1)).unwrap()
    }

    #[test]
    fn the_tighter_of_two_contracts_is_as_dense_and_as_short_as_each() {
        let pairs = [
            // Equally dense: the earlier deadline decides, whichever comes first.
            ((20, 2, 20), (10, 1, 10), (20, 2, 10)),
            ((10, 1, 10), (20, 2, 20), (20, 2, 10)),
            // One denser, the other shorter.
            ((40, 30, 40), (20, 1, 10), (40, 10, 10)),
            ((10, 3, 10), (10, 3, 10), (10, 3, 10)),
            // Who lives on slack claims nothing.
            ((10, 0, 5), (10, 3, 10), (10, 3, 10)),
            ((10, 3, 10), (10, 0, 5), (10, 3, 10)),
        ];
        for ((p1, s1, d1), (p2, s2, d2), (p, s, d)) in pairs {
            let tighter = contract(p1, s1, d1).tighter(contract(p2, s2, d2));
            assert_eq!(tighter, contract(p, s, d));
        }
    }
}
