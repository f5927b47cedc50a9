//! What is wrong with a text that is to be a time, a size or a rate.

use std::fmt;

/// Why a text is no time, size or rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// Nothing to read.
    Empty {
        /// A value of the right kind.
        example: &'static str,
    },
    /// A minus sign.
    Negative {
        /// What was written.
        text: String,
    },
    /// The text does not begin with a decimal number.
    NoNumber {
        /// What was written.
        text: String,
        /// A value of the right kind.
        example: &'static str,
    },
    /// A number without its unit.
    NoUnit {
        /// What was written.
        text: String,
        /// The units that are known.
        known: String,
    },
    /// A unit of another kind, or a typing error.
    UnknownUnit {
        /// What stands behind the number.
        unit: String,
        /// The units that are known.
        known: String,
    },
    /// More than 64 bits can hold.
    TooLarge {
        /// What was written.
        text: String,
    },
    /// A fraction of the smallest unit.
    NotWhole {
        /// What was written.
        text: String,
        /// What everything is counted in.
        smallest: &'static str,
    },
}

impl UnitError {
    /// The broken rule, for who knows a better example than the error does.
    #[must_use]
    pub fn rule(&self) -> String {
        match self {
            Self::Empty { .. } => "the value is empty".to_owned(),
            Self::Negative { text } => {
                format!("{text:?} is negative; only values of zero or more make sense here")
            }
            Self::NoNumber { text, .. } => format!("{text:?} does not begin with a number"),
            Self::NoUnit { text, known } => {
                format!("{text:?} has no unit; write one of {known} behind the number")
            }
            Self::UnknownUnit { unit, known } => {
                format!("{unit:?} is not a unit known here; write one of {known}")
            }
            Self::TooLarge { text } => format!("{text:?} is too large"),
            Self::NotWhole { text, smallest } => {
                format!("{text:?} is not a whole number of {smallest}")
            }
        }
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { example } | Self::NoNumber { example, .. } => {
                write!(f, "{}; write for example {example}", self.rule())
            }
            _ => write!(f, "{}", self.rule()),
        }
    }
}

impl std::error::Error for UnitError {}
