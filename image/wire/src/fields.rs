//! Numbers of messages, little-endian, one behind the other.

use thiserror::Error;

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Wrong {
    /// Too short or too long.
    #[error("a message of {0} bytes")]
    Length(usize),
    /// A number that stands for nothing.
    #[error("{what} {value}")]
    Value {
        /// Of what.
        what: &'static str,
        /// The number.
        value: u64,
    },
}

/// Numbers that are read.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A message of exactly so many bytes.
    pub(crate) fn of(bytes: &'a [u8], len: usize) -> Result<Self, Wrong> {
        if bytes.len() == len { Ok(Self(bytes)) } else { Err(Wrong::Length(bytes.len())) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let Some((number, rest)) = self.0.split_first_chunk() else {
            return Err(Wrong::Length(self.0.len()));
        };
        self.0 = rest;
        Ok(*number)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Wrong> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Wrong> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Wrong> {
        self.take().map(u64::from_le_bytes)
    }

    /// A number that is 0 or 1.
    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, Wrong> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(Wrong::Value { what, value: value.into() }),
        }
    }
}

/// Numbers that are written.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn u16(&mut self, number: u16) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(crate) fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    /// The message, with zeros up to its size.
    pub(crate) fn padded(&mut self, len: usize) -> Vec<u8> {
        debug_assert!(self.0.len() <= len, "{} bytes in a message of {len}", self.0.len());
        self.0.resize(len, 0);
        std::mem::take(&mut self.0)
    }
}
