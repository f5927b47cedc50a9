//! Makes the contract that a scheduler keeps out of the one that a user has written: turns rates
//! into slices, fills in defaults, and names the key that breaks a rule.

use moirai_scheduler::{Contract, ContractError, Weight};

use crate::document::{ContractTable, Extra};
use crate::problem::Problem;
use crate::units::{Rate, Time};

/// The shortest period: a decision costs microseconds, and one period has at least one.
const SHORTEST_PERIOD: u64 = 10_000;
/// Period of a contract that guarantees nothing and names none.
const BEST_EFFORT_PERIOD: u64 = 10_000_000;

const PPM: u64 = 1_000_000;

/// What a rate is a rate of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Cores: only shares make sense. The contract is divided among so many virtual CPUs.
    Core {
        /// At least 1.
        vcpus: u32,
    },
    /// A disk, with the bytes per second it delivers, where declared.
    Disk {
        /// Bytes per second.
        bandwidth: Option<u64>,
    },
    /// A link, with its rate.
    Link {
        /// Bits per second.
        rate_bps: u64,
    },
}

/// Makes the contract; `path` is the place of its table.
///
/// # Errors
/// The first broken rule.
pub fn resolve(table: &ContractTable, scope: Scope, path: &str) -> Result<Contract, Problem> {
    let at = |key: &str, message: String, help: &str| Problem {
        path: if table.has(key) { format!("{path}.{key}") } else { path.to_owned() },
        message,
        help: help.to_owned(),
    };
    let guaranteed = table.slice.is_some() || table.rate.is_some();
    let period = match table.period {
        Some(Time(period)) => period,
        None if guaranteed => {
            let message = "a slice or a rate without a `period` is no contract".to_owned();
            return Err(at("", message, "add a period, for example period = \"10ms\""));
        }
        None => BEST_EFFORT_PERIOD,
    };
    if (1..SHORTEST_PERIOD).contains(&period) {
        let shortest = Time(SHORTEST_PERIOD);
        let message = format!("a period of {} is shorter than {shortest}", Time(period));
        let help = "write for example \"10ms\": no scheduler decides that often";
        return Err(at("period", message, help));
    }
    let slice = match (table.slice, table.rate) {
        (Some(_), Some(_)) => {
            let message = "`slice` and `rate` are both given".to_owned();
            return Err(at("rate", message, "keep one of them: they say the same thing"));
        }
        (Some(Time(slice)), None) => slice,
        (None, Some(rate)) => slice_of(rate, period, scope)
            .map_err(|broken| at("rate", broken.message(rate, scope), broken.help()))?,
        (None, None) => 0,
    };
    let slice = match scope {
        Scope::Core { vcpus } => slice / u64::from(vcpus.max(1)),
        _ => slice,
    };
    let deadline = table.deadline.map_or(period, |Time(deadline)| deadline);
    let extra = match table.extra {
        Some(Extra::Shares(shares)) => shares.then_some(Weight::MIN),
        Some(Extra::Weight(weight)) => Weight::new(weight),
        None => (!guaranteed).then_some(Weight::MIN),
    };
    let (period, deadline) = (Time(period).span(), Time(deadline).span());
    Contract::new(period, Time(slice).work(), deadline, extra)
        .map_err(|error| broken_rule(error, table, slice, &at))
}

/// Says a broken rule of [`Contract::new`] in the words of the configuration.
fn broken_rule(
    error: ContractError,
    table: &ContractTable,
    slice: u64,
    at: &dyn Fn(&str, String, &str) -> Problem,
) -> Problem {
    let slice_key = if table.rate.is_some() { "rate" } else { "slice" };
    match error {
        ContractError::PeriodZero => {
            let help = "write for example \"10ms\": how often the slice is released";
            at("period", "the period is zero".to_owned(), help)
        }
        ContractError::PeriodTooLong { period } => {
            let longest = Time::from(Contract::PERIOD_MAX);
            let message = format!("a period of {} is longer than {longest}", Time::from(period));
            at(
                "period",
                message,
                "write for example \"10ms\": promises about time need periods of milliseconds to \
                 seconds",
            )
        }
        ContractError::NothingAsked => {
            let message = "a slice of zero without `extra` would never get any service".to_owned();
            at(slice_key, message, "give it a slice, or extra = true to let it live on the slack")
        }
        ContractError::SliceOverDeadline { deadline, .. } if table.deadline.is_some() => {
            let (slice, deadline) = (Time(slice), Time::from(deadline));
            let message = format!("a slice of {slice} does not fit into a deadline of {deadline}");
            at(slice_key, message, "shorten the slice or move the deadline out")
        }
        ContractError::SliceOverDeadline { deadline, .. } => {
            let (slice, period) = (Time(slice), Time::from(deadline));
            let message = format!("a slice of {slice} is longer than its period of {period}");
            at(slice_key, message, "a slice is what is served in every period: shorten it")
        }
        ContractError::DeadlineOverPeriod { deadline, period } => {
            let (deadline, period) = (Time::from(deadline), Time::from(period));
            let message = format!("a deadline of {deadline} lies beyond the period of {period}");
            at("deadline", message, "a deadline is at most the period")
        }
    }
}

/// Why a rate is no slice.
enum BrokenRate {
    Whole,
    Unit,
    NoBandwidth,
    Zero,
}

impl BrokenRate {
    fn message(&self, rate: Rate, scope: Scope) -> String {
        match (self, scope) {
            (Self::Whole, Scope::Core { .. }) => format!("{rate} is more than the whole core"),
            (Self::Whole, Scope::Disk { .. }) => format!("{rate} is more than the whole disk"),
            (Self::Whole, Scope::Link { rate_bps }) => {
                format!("{rate} is more than the link's {}", Rate::Bits(rate_bps))
            }
            (Self::Unit, _) => format!("{rate} says nothing about CPU time"),
            (Self::NoBandwidth, _) => {
                format!("{rate} of a disk whose `bandwidth` is not declared")
            }
            (Self::Zero, _) => format!("a rate of {rate} guarantees nothing"),
        }
    }

    fn help(&self) -> &'static str {
        match self {
            Self::Whole => "ask for less",
            Self::Unit => "write a share of the core, for example rate = \"30%\"",
            Self::NoBandwidth => {
                "add what the disk delivers to its [[disk]], for example bandwidth = \"400MB/s\", \
                 or write a share of its time, for example rate = \"30%\""
            }
            Self::Zero => "leave the rate out and write extra = true for best effort",
        }
    }
}

/// The slice of `period` that gives `rate`, rounded up.
fn slice_of(rate: Rate, period: u64, scope: Scope) -> Result<u64, BrokenRate> {
    let (part, whole) = match (rate, scope) {
        (Rate::Share(ppm), Scope::Core { vcpus }) if ppm <= PPM.saturating_mul(vcpus.into()) => {
            let slice = (u128::from(ppm) * u128::from(period)).div_ceil(u128::from(PPM));
            return u64::try_from(slice).map_err(|_| BrokenRate::Whole);
        }
        (Rate::Share(ppm), _) => (ppm, PPM),
        (Rate::Bits(_) | Rate::Bytes(_), Scope::Core { .. }) => return Err(BrokenRate::Unit),
        (Rate::Bits(_) | Rate::Bytes(_), Scope::Disk { bandwidth: None }) => {
            return Err(BrokenRate::NoBandwidth);
        }
        (rate, Scope::Disk { bandwidth: Some(bytes) }) => {
            (rate.bits_per_second().ok_or(BrokenRate::Whole)?, bytes.saturating_mul(8))
        }
        (rate, Scope::Link { rate_bps }) => {
            (rate.bits_per_second().ok_or(BrokenRate::Whole)?, rate_bps)
        }
    };
    if part == 0 {
        return Err(BrokenRate::Zero);
    }
    if part > whole {
        return Err(BrokenRate::Whole);
    }
    // `part <= whole` keeps the quotient within the period, hence within 64 bits.
    let slice = (u128::from(part) * u128::from(period)).div_ceil(u128::from(whole));
    u64::try_from(slice).map_err(|_| BrokenRate::Whole)
}
