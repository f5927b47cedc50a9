//! Instants, durations and service: three types, so that one is not taken for another.
//!
//! | type | what | examples |
//! | --- | --- | --- |
//! | [`Moment`] | an instant of the owner's clock | `now`, an end, an absolute deadline |
//! | [`Span`] | how long, between two moments | a period, a relative deadline, how late |
//! | [`Amount`] | service: the time that the whole resource takes for it | a slice, a cost |
//!
//! All count integer nanoseconds from 0 to 2^64 - 1 and cost what a `u64` costs. Operators do what
//! those of `u64` do, and an overflow is a mistake there; the methods saturate. Nothing goes from
//! one type to another but by a step with a name:
//!
//! | from | to | step |
//! | --- | --- | --- |
//! | two moments | span | [`Moment::since`], `-` |
//! | moment, span | moment | [`Moment::saturating_add`], `+` |
//! | span | amount | [`Span::service`]: what the whole resource gives in it |
//! | amount | span | [`Amount::time`]: how long the whole resource takes |
//! | span | `core::time::Duration`, and back | [`Span::duration`], [`Span::from_duration`] |
//! | number | each | `from_nanos`: where a clock, a document or a wire is read |
//! | each | number | `as_nanos`: where one is written |
//!
//! A duration is no instant, and neither is service:
//! ```compile_fail
//! # use moirai_scheduler::{Moment, Span};
//! let now: Moment = Span::from_millis(10);
//! ```
//! ```compile_fail
//! # use moirai_scheduler::{Amount, Moment};
//! let end = Moment::from_nanos(5) + Amount::from_millis(10);
//! ```
//! Two instants have no sum, and no order with a duration:
//! ```compile_fail
//! # use moirai_scheduler::Moment;
//! let sum = Moment::from_nanos(5) + Moment::from_nanos(6);
//! ```
//! ```compile_fail
//! # use moirai_scheduler::{Moment, Span};
//! let late = Moment::from_nanos(5) > Span::from_nanos(5);
//! ```
//! A slice does not fit before a deadline until somebody says how fast it is served:
//! ```compile_fail
//! # use moirai_scheduler::{Amount, Span};
//! let fits = Amount::from_millis(3) <= Span::from_millis(10);
//! ```
//! ```
//! # use moirai_scheduler::{Amount, Moment, Span};
//! assert!(Amount::from_millis(3).time() <= Span::from_millis(10));
//! assert_eq!(Moment::from_nanos(5) + Amount::from_nanos(10).time(), Moment::from_nanos(15));
//! ```

mod operators;

use core::fmt;
use core::time::Duration;

/// An instant of the owner's clock, in nanoseconds since that began. Zero: its beginning, or never.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Moment(u64);

/// A duration, in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Span(u64);

/// Service of a resource, in nanoseconds that the whole of it takes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Amount(u64);

/// What all three have: ends, plain numbers, and their text, which is the plain number.
macro_rules! number {
    ($name:ident) => {
        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);
            /// The end of the range, which stands for ever.
            pub const MAX: Self = Self(u64::MAX);

            /// From nanoseconds.
            #[must_use]
            pub const fn from_nanos(nanos: u64) -> Self {
                Self(nanos)
            }

            /// From microseconds.
            #[must_use]
            pub const fn from_micros(micros: u64) -> Self {
                Self(micros.saturating_mul(1_000))
            }

            /// From milliseconds.
            #[must_use]
            pub const fn from_millis(millis: u64) -> Self {
                Self(millis.saturating_mul(1_000_000))
            }

            /// From seconds.
            #[must_use]
            pub const fn from_secs(secs: u64) -> Self {
                Self(secs.saturating_mul(1_000_000_000))
            }

            /// In nanoseconds.
            #[must_use]
            pub const fn as_nanos(self) -> u64 {
                self.0
            }

            /// In whole microseconds, rounded down.
            #[must_use]
            pub const fn as_micros(self) -> u64 {
                self.0 / 1_000
            }

            /// In whole milliseconds, rounded down.
            #[must_use]
            pub const fn as_millis(self) -> u64 {
                self.0 / 1_000_000
            }

            /// Whether it is zero.
            #[must_use]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// What can be summed and multiplied.
macro_rules! quantity {
    ($name:ident) => {
        impl $name {
            /// A nanosecond of it.
            pub const ONE: Self = Self(1);

            /// The sum, at most [`Self::MAX`].
            #[must_use]
            pub const fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference; zero if `other` is more.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// So many times it, at most [`Self::MAX`].
            #[must_use]
            pub const fn saturating_mul(self, times: u64) -> Self {
                Self(self.0.saturating_mul(times))
            }

            /// The sum, if it is in the range.
            #[must_use]
            pub fn checked_add(self, other: Self) -> Option<Self> {
                self.0.checked_add(other.0).map(Self)
            }

            /// The difference, if `other` is not more.
            #[must_use]
            pub fn checked_sub(self, other: Self) -> Option<Self> {
                self.0.checked_sub(other.0).map(Self)
            }

            /// So many times it, if that is in the range.
            #[must_use]
            pub fn checked_mul(self, times: u64) -> Option<Self> {
                self.0.checked_mul(times).map(Self)
            }

            /// How often `other` goes into it; `None` if `other` is zero.
            #[must_use]
            pub const fn checked_div(self, other: Self) -> Option<u64> {
                self.0.checked_div(other.0)
            }

            /// What is left when `other` was taken out as often as it goes into it; `None` if
            /// `other` is zero.
            #[must_use]
            pub fn checked_rem(self, other: Self) -> Option<Self> {
                self.0.checked_rem(other.0).map(Self)
            }

            /// How many of `other` cover it. `other` is not zero.
            #[must_use]
            pub const fn div_ceil(self, other: Self) -> u64 {
                self.0.div_ceil(other.0)
            }

            /// How far the two are apart.
            #[must_use]
            pub const fn abs_diff(self, other: Self) -> Self {
                Self(self.0.abs_diff(other.0))
            }

            /// As a number to take products with.
            #[must_use]
            pub const fn wide(self) -> u128 {
                self.0 as u128
            }

            /// From a product or a quotient, at most [`Self::MAX`].
            #[must_use]
            pub fn from_wide(nanos: u128) -> Self {
                Self(u64::try_from(nanos).unwrap_or(u64::MAX))
            }
        }
    };
}

number!(Moment);
number!(Span);
number!(Amount);
quantity!(Span);
quantity!(Amount);

impl Moment {
    /// How long after `earlier` it is; zero if it lies before.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// So much later, at most at the end of time.
    #[must_use]
    pub const fn saturating_add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// So much earlier, not before the beginning.
    #[must_use]
    pub const fn saturating_sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Span {
    /// What the whole resource gives in this time.
    #[must_use]
    pub const fn service(self) -> Amount {
        Amount(self.0)
    }

    /// For the standard library.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// From the standard library, at most [`Span::MAX`].
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        Self::from_wide(duration.as_nanos())
    }
}

impl Amount {
    /// How long the whole resource takes to give it.
    #[must_use]
    pub const fn time(self) -> Span {
        Span(self.0)
    }

    /// For sums with debt, which is negative, at most `i64::MAX`: no contract is long enough to be
    /// cut.
    #[must_use]
    pub fn signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// What is left of a sum with debt; zero if it is all debt.
    #[must_use]
    pub fn from_signed(nanos: i64) -> Self {
        Self(u64::try_from(nanos).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
