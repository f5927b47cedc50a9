//! What the image process is to do, and what it says of that.

use crate::fields::{Reader, Writer, Wrong};

/// What is to be done with a range of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum What {
    /// Say where clusters are: `offset` is the number of the first window, `len` how many.
    Find = 1,
    /// Bring its data into the arena.
    Read,
    /// Write what is in the arena.
    Write,
    /// Bring data and tables to stable storage; no range.
    Flush,
    /// Give its space back; it may read as anything.
    Discard,
    /// Give its space back; it reads as zeros.
    DiscardToZero,
    /// Make its clusters read as zeros.
    ZeroClusters,
    /// Write zeros as data.
    WriteZeros,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Comes back with the answer.
    pub token: u64,
    /// What to do.
    pub what: What,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// It is done.
    Done = 1,
    /// It is not; the next one may be.
    Failed,
    /// This image cannot do it.
    Unsupported,
    /// The image cannot be opened. The arena has words of `bytes` bytes that say why, `count` is
    /// the number of the layer.
    Refused,
}

/// What the image process says of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// That of the task; 0 for the start.
    pub token: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// How many bytes of data are in the arena.
    pub bytes: u32,
    /// How many windows are in the arena.
    pub count: u32,
}

const WHATS: [What; 8] = [
    What::Find,
    What::Read,
    What::Write,
    What::Flush,
    What::Discard,
    What::DiscardToZero,
    What::ZeroClusters,
    What::WriteZeros,
];
const OUTCOMES: [Outcome; 4] =
    [Outcome::Done, Outcome::Failed, Outcome::Unsupported, Outcome::Refused];

impl Task {
    /// Size of the message.
    pub const BYTES: usize = 32;

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.token).u64(self.offset).u64(self.len).u32(self.what as u32);
        out.padded(Self::BYTES)
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no task.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let mut read = Reader::of(bytes, Self::BYTES)?;
        let (token, offset, len, number) = (read.u64()?, read.u64()?, read.u64()?, read.u32()?);
        let what = WHATS.into_iter().find(|what| *what as u32 == number);
        let what = what.ok_or(Wrong::Value { what: "the operation", value: number.into() })?;
        Ok(Self { token, what, offset, len })
    }
}

impl Answer {
    /// Size of the message.
    pub const BYTES: usize = 24;

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.token).u32(self.outcome as u32).u32(self.bytes).u32(self.count);
        out.padded(Self::BYTES)
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are no answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let mut read = Reader::of(bytes, Self::BYTES)?;
        let (token, number) = (read.u64()?, read.u32()?);
        let outcome = OUTCOMES.into_iter().find(|outcome| *outcome as u32 == number);
        let outcome = outcome.ok_or(Wrong::Value { what: "the outcome", value: number.into() })?;
        Ok(Self { token, outcome, bytes: read.u32()?, count: read.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            token in any::<u64>(), at in 0..8_usize, offset in any::<u64>(), len in any::<u64>(),
            bytes in any::<u32>(), count in any::<u32>(),
        ) {
            let task = Task { token, what: WHATS[at], offset, len };
            prop_assert_eq!(Task::decode(&task.encode()), Ok(task));
            let answer = Answer { token, outcome: OUTCOMES[at % 4], bytes, count };
            prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }

        #[test]
        fn any_bytes_are_an_answer_or_wrong_and_mean_what_they_say(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            outcome in 0_u32..7,
        ) {
            let mut near = [0; Answer::BYTES];
            near.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
            near[8..12].copy_from_slice(&outcome.to_le_bytes());
            for bytes in [&bytes[..], &near] {
                match Answer::decode(bytes) {
                    Ok(answer) => prop_assert_eq!(&answer.encode()[..20], &bytes[..20]),
                    Err(Wrong::Length(len)) => prop_assert!(len == bytes.len() && len != 24),
                    Err(Wrong::Value { value, .. }) => prop_assert!(value == 0 || value > 4),
                }
            }
        }
    }
}
