//! A receiver, and whether it can be reached. Trouble is told once when it begins, and again when it
//! has changed or has been over. Every packet is a new try.

use core::net::SocketAddrV4;
use moirai_sdk::{MS, SendError, icmp};

/// ICMP answers come late and seldom: after so long without one, the trouble is over.
const SILENT_NS: u64 = 10_000 * MS;

/// Why a receiver cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    NoRoute,
    NoNeighbour,
    Answered(icmp::Reason),
}

impl Trouble {
    /// The reason in a word or two, and what may help.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NoRoute => ("no route", "it is outside the network of ip=, and gw= is missing"),
            Self::NoNeighbour => ("no neighbour", "it, or the gateway to it, does not answer ARP"),
            Self::Answered(icmp::Reason::Refused) => ("refused", "nobody listens at its port"),
            Self::Answered(icmp::Reason::NoWay) => {
                ("no way", "a router cannot or may not reach it")
            }
            Self::Answered(icmp::Reason::TooLarge) => {
                ("too large", "a link on the way takes only smaller packets")
            }
        }
    }
}

/// One receiver.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddrV4,
    pub(crate) ssrc: u32,
    trouble: Option<Trouble>,
    answered_at: u64,
}

impl Receiver {
    pub(crate) fn new(address: SocketAddrV4, ssrc: u32) -> Self {
        Self { address, ssrc, trouble: None, answered_at: 0 }
    }

    /// A packet was handed to the link, or was not; gives trouble that is new.
    pub(crate) fn tried(&mut self, result: Result<(), SendError>, now: u64) -> Option<Trouble> {
        let trouble = match result {
            Err(SendError::NoRoute) => Trouble::NoRoute,
            Err(SendError::Unresolved) => Trouble::NoNeighbour,
            Err(SendError::Full | SendError::TooLarge) => return None,
            Ok(()) => {
                let answered = matches!(self.trouble, Some(Trouble::Answered(_)));
                if !answered || now.saturating_sub(self.answered_at) > SILENT_NS {
                    self.trouble = None;
                }
                return None;
            }
        };
        self.begin(trouble)
    }

    /// It, or a router, has answered; gives trouble that is new.
    pub(crate) fn answered(&mut self, reason: icmp::Reason, now: u64) -> Option<Trouble> {
        self.answered_at = now;
        self.begin(Trouble::Answered(reason))
    }

    fn begin(&mut self, trouble: Trouble) -> Option<Trouble> {
        (self.trouble.replace(trouble) != Some(trouble)).then_some(trouble)
    }
}
