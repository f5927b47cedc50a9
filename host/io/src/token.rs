//! What a completion belongs to, packed into the 64 bits that io_uring carries.

use crate::DeviceId;

/// The source of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Commands wait.
    Doorbell,
    /// The vhost-user socket of a device is readable.
    Session(DeviceId),
    /// A queue of a device was kicked.
    Kick(DeviceId, u16),
    /// The TAP of a link is readable.
    Tap(u16),
    /// A disk request made progress; the number is its place in the table of jobs.
    Job(u32),
}

const KIND_SHIFT: u32 = 56;
const QUEUE_SHIFT: u32 = 32;

impl Token {
    pub(crate) fn encode(self) -> u64 {
        let (kind, queue, number) = match self {
            Self::Doorbell => (0, 0, 0),
            Self::Session(device) => (1, 0, device.0),
            Self::Kick(device, queue) => (2, queue, device.0),
            Self::Tap(link) => (3, link, 0),
            Self::Job(slot) => (4, 0, slot),
        };
        kind << KIND_SHIFT | u64::from(queue) << QUEUE_SHIFT | u64::from(number)
    }

    /// `None` for a number that no token encodes to.
    pub(crate) fn decode(bits: u64) -> Option<Self> {
        // Both fields are masked to their width first.
        let queue = u16::try_from(bits >> QUEUE_SHIFT & 0xffff).ok()?;
        let number = u32::try_from(bits & 0xffff_ffff).ok()?;
        match bits >> KIND_SHIFT {
            0 => Some(Self::Doorbell),
            1 => Some(Self::Session(DeviceId(number))),
            2 => Some(Self::Kick(DeviceId(number), queue)),
            3 => Some(Self::Tap(queue)),
            4 => Some(Self::Job(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_survives_the_ring(device: u32, queue: u16) {
            for token in [
                Token::Doorbell,
                Token::Session(DeviceId(device)),
                Token::Kick(DeviceId(device), queue),
                Token::Tap(queue),
                Token::Job(device),
            ] {
                prop_assert_eq!(Token::decode(token.encode()), Some(token));
            }
        }
    }
}
