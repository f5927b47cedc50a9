//! Times, sizes and rates as people write them: `"10ms"`, `"64K"`, `"8Mbit/s"`, `"30%"`.
//!
//! Pure text to integers, without a float on the way: a decimal number is scaled by its unit in
//! `u128` and must come out whole. Stateless; used by [`super::document`] and by the command line.

mod error;

use moirai_scheduler::{Amount, Span};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use error::UnitError;

/// One kind of quantity: its units with their size in the smallest one.
struct Kind {
    units: &'static [(&'static str, u64)],
    smallest: &'static str,
    example: &'static str,
}

impl Kind {
    fn known(&self) -> String {
        let names: Vec<_> = self.units.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// Reads a decimal number and a unit; returns the value in the smallest unit, and the index of
    /// the unit that was written.
    fn parse(&self, text: &str) -> Result<(u64, usize), UnitError> {
        let body = text.trim();
        if body.is_empty() {
            return Err(UnitError::Empty { example: self.example });
        }
        if body.starts_with('-') {
            return Err(UnitError::Negative { text: text.to_owned() });
        }
        let end = body.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(body.len());
        let (number, unit) = body.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
            return Err(UnitError::NoNumber { text: text.to_owned(), example: self.example });
        }
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Err(UnitError::NoUnit { text: text.to_owned(), known: self.known() });
        }
        let (index, scale) = self
            .units
            .iter()
            .enumerate()
            .find(|(_, (name, _))| *name == unit)
            .map(|(index, (_, scale))| (index, *scale))
            .ok_or_else(|| UnitError::UnknownUnit { unit: unit.to_owned(), known: self.known() })?;
        let too_large = || UnitError::TooLarge { text: text.to_owned() };
        let fraction = fraction.trim_end_matches('0');
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| too_large())?;
        let places = u32::try_from(fraction.len()).map_err(|_| too_large())?;
        let divisor = 10u128.checked_pow(places).ok_or_else(too_large)?;
        let scaled = digits.checked_mul(u128::from(scale)).ok_or_else(too_large)?;
        if scaled % divisor != 0 {
            return Err(UnitError::NotWhole { text: text.to_owned(), smallest: self.smallest });
        }
        let value = u64::try_from(scaled / divisor).map_err(|_| too_large())?;
        Ok((value, index))
    }
}

const TIMES: Kind = Kind {
    units: &[
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("min", 60_000_000_000),
    ],
    smallest: "nanoseconds",
    example: "\"10ms\"",
};

const SIZES: Kind = Kind {
    units: &[
        ("B", 1),
        ("K", 1 << 10),
        ("KiB", 1 << 10),
        ("M", 1 << 20),
        ("MiB", 1 << 20),
        ("G", 1 << 30),
        ("GiB", 1 << 30),
    ],
    smallest: "bytes",
    example: "\"64M\"",
};

/// The first unit counts in ppm, those up to `LAST_BIT_UNIT` in bit/s, the rest in byte/s.
const RATES: Kind = Kind {
    units: &[
        ("%", 10_000),
        ("bit/s", 1),
        ("kbit/s", 1_000),
        ("Mbit/s", 1_000_000),
        ("Gbit/s", 1_000_000_000),
        ("B/s", 1),
        ("kB/s", 1_000),
        ("MB/s", 1_000_000),
        ("GB/s", 1_000_000_000),
        ("KiB/s", 1 << 10),
        ("MiB/s", 1 << 20),
        ("GiB/s", 1 << 30),
    ],
    smallest: "bits per second, bytes per second or millionths",
    example: "\"8Mbit/s\"",
};
const LAST_BIT_UNIT: usize = 4;

/// A time in integer nanoseconds. In TOML and JSON a text with a unit, or an integer of ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// As the time between two things.
    #[must_use]
    pub const fn span(self) -> Span {
        Span::from_nanos(self.0)
    }

    /// As the service that takes the whole resource so long.
    #[must_use]
    pub const fn work(self) -> Amount {
        Amount::from_nanos(self.0)
    }
}

impl From<Span> for Time {
    fn from(span: Span) -> Self {
        Self(span.as_nanos())
    }
}

impl From<Amount> for Time {
    fn from(amount: Amount) -> Self {
        Self(amount.as_nanos())
    }
}

/// A size in bytes. In TOML and JSON a text with a unit, or an integer of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A share of a resource. In TOML and JSON a text with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Millionths of the whole resource.
    Share(u64),
    /// Bits per second.
    Bits(u64),
    /// Bytes per second.
    Bytes(u64),
}

impl FromStr for Time {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        TIMES.parse(text).map(|(nanos, _)| Self(nanos))
    }
}

impl FromStr for Size {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        SIZES.parse(text).map(|(bytes, _)| Self(bytes))
    }
}

impl FromStr for Rate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        RATES.parse(text).map(|(value, unit)| match unit {
            0 => Self::Share(value),
            1..=LAST_BIT_UNIT => Self::Bits(value),
            _ => Self::Bytes(value),
        })
    }
}

impl Rate {
    /// The rate in bits per second; `None` for a share, and where it leaves 64 bits.
    #[must_use]
    pub fn bits_per_second(self) -> Option<u64> {
        match self {
            Self::Share(_) => None,
            Self::Bits(bits) => Some(bits),
            Self::Bytes(bytes) => bytes.checked_mul(8),
        }
    }
}

/// Writes `value` with the largest unit of `units` that leaves it whole.
fn write_whole(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (name, scale) = units
        .iter()
        .rev()
        .find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale))
        .or(units.first())
        .copied()
        .unwrap_or(("", 1));
    write!(f, "{}{name}", value / scale)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
        write_whole(f, self.0, &UNITS)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_whole(f, self.0, &[("B", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)])
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SI: [(&str, u64); 4] =
            [("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
        match *self {
            Self::Share(ppm) if ppm.is_multiple_of(10_000) => write!(f, "{}%", ppm / 10_000),
            Self::Share(ppm) => {
                let fraction = format!("{:04}", ppm % 10_000);
                write!(f, "{}.{}%", ppm / 10_000, fraction.trim_end_matches('0'))
            }
            Self::Bits(bits) => {
                write_whole(f, bits, &SI)?;
                write!(f, "bit/s")
            }
            Self::Bytes(bytes) => {
                write_whole(f, bytes, &SI)?;
                write!(f, "B/s")
            }
        }
    }
}

/// Reads a text, or an integer of the smallest unit.
struct Quantity<T> {
    expecting: &'static str,
    from_integer: Option<fn(u64) -> T>,
}

impl<T: FromStr<Err = UnitError>> de::Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        let unexpected = de::Unexpected::Unsigned(value);
        let make = self.from_integer.ok_or_else(|| E::invalid_type(unexpected, &self))?;
        Ok(make(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::custom(UnitError::Negative { text: value.to_string() })),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expecting = "a time such as \"10ms\" or \"250us\", or an integer of nanoseconds";
        from.deserialize_any(Quantity { expecting, from_integer: Some(Time) })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expecting = "a size such as \"64M\", or an integer of bytes";
        from.deserialize_any(Quantity { expecting, from_integer: Some(Size) })
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expecting = "a rate such as \"8Mbit/s\", \"20MB/s\" or \"30%\"";
        from.deserialize_any(Quantity { expecting, from_integer: None })
    }
}

/// Serializes a quantity as the text that reads back as the same value, and describes it to the
/// two schema generators.
macro_rules! quantity_text {
    ($name:ident, $description:literal, $schema:tt) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some($description))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

quantity_text!(Time, "A time such as \"10ms\" or \"250us\", or an integer of nanoseconds.", {
    "description": "A time such as \"10ms\" or \"250us\", or an integer of nanoseconds.",
    "anyOf": [
        { "type": "string", "pattern": "^\\s*[0-9]+(\\.[0-9]+)?\\s*(ns|us|µs|ms|s|min)\\s*$" },
        { "type": "integer", "minimum": 0 }
    ]
});
quantity_text!(Size, "A size such as \"64M\", or an integer of bytes.", {
    "description": "A size such as \"64M\" (1024-based), or an integer of bytes.",
    "anyOf": [
        { "type": "string", "pattern": "^\\s*[0-9]+(\\.[0-9]+)?\\s*(B|[KMG](iB)?)\\s*$" },
        { "type": "integer", "minimum": 0 }
    ]
});
quantity_text!(Rate, "A rate such as \"8Mbit/s\", \"20MB/s\" or \"30%\".", {
    "description": "A rate such as \"8Mbit/s\", \"20MB/s\" or \"30%\".",
    "type": "string",
    "pattern": "^\\s*[0-9]+(\\.[0-9]+)?\\s*(%|[kMG]?bit/s|[kMG]?B/s|[KMG]iB/s)\\s*$"
});

#[cfg(test)]
#[path = "units_tests.rs"]
mod tests;
