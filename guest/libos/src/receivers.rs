//! Who is sent to, and whether they can be reached. Trouble is reported when it begins, when it has
//! changed, and when it is over. Every packet is a new try; at the end there is a verdict.
//!
//! No receiver says that a packet has arrived, so a receiver that refuses is back when it stops to
//! refuse. Linux sends each of its senders a few refusals at once, then about one a second. So a
//! packet that is sent more than a second after the last refusal is *owed* one; if none comes,
//! somebody has taken the packet.
//!
//! Pure: what was tried and who answered come in, with the time.

use crate::icmp::{Reason, Unreachable};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddrV4;
use thiserror::Error;

/// Who refuses a packet sent so long after its last answer answers again: Linux allows one a
/// second.
const OWED_NS: u64 = 1_100_000_000;
/// The same, for each of several receivers that share one such allowance: chance picks who is
/// answered.
const SHARED_NS: u64 = 5_000_000_000;
/// An answer that is owed comes within this, or there is none.
const ANSWER_NS: u64 = 500_000_000;
/// Nobody is waited for longer than this if there is no way to anybody.
const HOPELESS_NS: u64 = 10_000_000_000;
/// Who has got packets for so long without an answer has got them: answers to a stream come once a
/// second.
const CONFIRMED_NS: u64 = 2_000_000_000;
/// More receivers than this are not written out.
const WRITTEN_MAX: usize = 8;

/// A datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The ring is full: wait until the device has sent something.
    #[error("the link's ring is full")]
    Full,
    /// The receiver is not in our network, and there is no gateway.
    #[error("no route: it is outside our network, and gw= names no gateway")]
    NoRoute,
    /// The next hop has not answered ARP yet.
    #[error("no neighbour: the next hop does not answer ARP")]
    Unresolved,
    /// Headers and payload are more than a packet of this link holds.
    #[error("the datagram is larger than the link's packets")]
    TooLarge,
}

/// Why a receiver cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no way to it.
    NoRoute,
    /// Its next hop does not answer ARP.
    NoNeighbour,
    /// It, or a router, has answered that a packet did not arrive.
    Answered(Reason),
}

impl Trouble {
    /// The reason in a word or two, and what may help.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NoRoute => ("no route", "it is outside the network of ip=, and gw= is missing"),
            Self::NoNeighbour => ("no neighbour", "it, or the gateway to it, does not answer ARP"),
            Self::Answered(Reason::Refused) => ("refused", "nobody listens at its port"),
            Self::Answered(Reason::NoWay) => ("no way", "a router cannot or may not reach it"),
            Self::Answered(Reason::TooLarge) => {
                ("too large", "a link on the way takes only smaller packets")
            }
        }
    }
}

/// What did not arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Not sent, because the receiver's next hop has not answered ARP.
    pub unresolved: u64,
    /// Not sent, because there is no route to the receiver.
    pub unrouted: u64,
    /// ICMP answers of receivers at whose port nobody listens.
    pub refused: u64,
    /// Other ICMP answers that say a packet did not arrive.
    pub unreachable: u64,
}

/// How a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was tried.
    New,
    /// It gets packets since then, as far as is known.
    Served { since: u64 },
    /// It does not, since then; the last answer came at `heard`, and the first packet to which it
    /// owes one was sent at `owed`.
    Troubled { why: Trouble, since: u64, heard: u64, owed: Option<u64> },
}

/// What has become of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It cannot be reached.
    Lost(Trouble),
    /// It can be reached again, as far as is known.
    Back,
}

#[derive(Debug)]
struct Receiver {
    address: SocketAddrV4,
    state: State,
    /// It has got packets for so long, [`OWED_NS`], that somebody must have taken them.
    confirmed: bool,
}

/// The receivers of a stream, in the order in which they were named.
#[derive(Debug)]
pub struct Receivers {
    source_port: u16,
    list: Vec<Receiver>,
    fresh: VecDeque<(SocketAddrV4, Change)>,
    counters: Counters,
}

impl Receivers {
    /// Receivers of what is sent from `source_port`.
    #[must_use]
    pub fn new(addresses: &[SocketAddrV4], source_port: u16) -> Self {
        let receiver = |&address| Receiver { address, state: State::New, confirmed: false };
        let list = addresses.iter().map(receiver).collect();
        Self { source_port, list, fresh: VecDeque::new(), counters: Counters::default() }
    }

    /// Their addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.list.iter().map(|receiver| receiver.address)
    }

    /// The address of one; `None` if there are not so many.
    #[must_use]
    pub fn address(&self, number: usize) -> Option<SocketAddrV4> {
        self.list.get(number).map(|receiver| receiver.address)
    }

    /// Those to whom nothing was sent yet, by number.
    #[must_use]
    pub fn untried(&self) -> Vec<(usize, SocketAddrV4)> {
        let new = |(_, receiver): &(usize, &Receiver)| receiver.state == State::New;
        let list = self.list.iter().enumerate().filter(new);
        list.map(|(number, receiver)| (number, receiver.address)).collect()
    }

    /// The port that they are sent to from.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        self.source_port
    }

    /// What did not arrive so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The next thing that has changed, oldest first.
    pub fn take_change(&mut self) -> Option<(SocketAddrV4, Change)> {
        self.fresh.pop_front()
    }

    /// A packet for receiver `number` was handed to the link, or was not.
    pub fn tried(&mut self, number: usize, result: Result<(), SendError>, now: u64) {
        let sharing = self.sharing(number);
        let Some(receiver) = self.list.get_mut(number) else { return };
        let trouble = match result {
            Ok(()) => {
                if receiver.served(sharing, now) {
                    self.fresh.push_back((receiver.address, Change::Back));
                }
                return;
            }
            Err(SendError::Full | SendError::TooLarge) => return,
            Err(SendError::NoRoute) => {
                self.counters.unrouted += 1;
                Trouble::NoRoute
            }
            Err(SendError::Unresolved) => {
                self.counters.unresolved += 1;
                Trouble::NoNeighbour
            }
        };
        if receiver.begin(trouble, now) {
            self.fresh.push_back((receiver.address, Change::Lost(trouble)));
        }
    }

    /// How many receivers share with receiver `number` what their host, or their router, may
    /// answer.
    fn sharing(&self, number: usize) -> u64 {
        let Some(Receiver { address, state: State::Troubled { why, .. }, .. }) =
            self.list.get(number)
        else {
            return 1;
        };
        let shares = |other: &&Receiver| match other.state {
            State::Troubled { why: Trouble::Answered(reason), .. } => {
                // Only a port is refused by the receiver's own host.
                let own = reason == Reason::Refused && *why == Trouble::Answered(reason);
                other.address != *address && (!own || other.address.ip() == address.ip())
            }
            _ => false,
        };
        self.list.iter().filter(shares).count() as u64 + 1
    }

    /// Somebody has said that a packet did not arrive.
    pub fn answered(&mut self, answer: &Unreachable, now: u64) {
        if answer.source.port() != self.source_port {
            return;
        }
        let mut known = false;
        // A receiver may be named twice.
        for receiver in self.list.iter_mut().filter(|to| to.address == answer.destination) {
            let trouble = Trouble::Answered(answer.reason);
            if receiver.begin(trouble, now) && !known {
                self.fresh.push_back((receiver.address, Change::Lost(trouble)));
            }
            known = true;
        }
        match answer.reason {
            _ if !known => {}
            Reason::Refused => self.counters.refused += 1,
            Reason::NoWay | Reason::TooLarge => self.counters.unreachable += 1,
        }
    }

    /// May an answer still come that says that nothing has arrived?
    #[must_use]
    pub fn is_uncertain(&self, now: u64) -> bool {
        self.list.iter().any(|receiver| receiver.is_uncertain(now))
    }

    /// Is there nothing to be sent to anybody, and was there nothing for so long that nobody is
    /// waited for?
    #[must_use]
    pub fn is_hopeless(&self, now: u64) -> bool {
        let hopeless = |receiver: &Receiver| match receiver.state {
            State::Troubled { why: Trouble::NoRoute | Trouble::NoNeighbour, since, .. } => {
                now.saturating_sub(since) > HOPELESS_NS
            }
            _ => false,
        };
        !self.list.is_empty() && self.list.iter().all(hopeless)
    }

    /// Is there anybody who has got what was sent, up to now? `None`: yes, or nothing was tried.
    /// Who has left within the last seconds counts.
    #[must_use]
    pub fn verdict(&self, now: u64) -> Option<String> {
        if !self.list.iter().all(|receiver| receiver.is_lost(now)) || self.list.is_empty() {
            return None;
        }
        let lost = self.list.iter().any(|receiver| receiver.confirmed);
        let text = if lost { "no receiver is left" } else { "no receiver could be reached" };
        let mut text = String::from(text);
        for (place, receiver) in self.list.iter().take(WRITTEN_MAX).enumerate() {
            let State::Troubled { why, since, .. } = receiver.state else { continue };
            let (reason, hint) = why.words();
            let before = if place == 0 { ": " } else { "; " };
            text.push_str(&format!("{before}{} {reason}", receiver.address));
            if receiver.confirmed {
                text.push_str(&format!(" since t_ms={}", since / 1_000_000));
            }
            text.push_str(&format!(" ({hint})"));
        }
        if self.list.len() > WRITTEN_MAX {
            text.push_str(&format!("; and {} more", self.list.len() - WRITTEN_MAX));
        }
        Some(text)
    }
}

impl Receiver {
    /// A packet was sent to it; `sharing` receivers share what may be answered. True if it is back.
    fn served(&mut self, sharing: u64, now: u64) -> bool {
        match &mut self.state {
            State::Served { .. } => false,
            State::New => {
                self.state = State::Served { since: now };
                false
            }
            State::Troubled { why: Trouble::Answered(_), heard, owed, .. } => {
                let allowed = if sharing > 1 { sharing * SHARED_NS } else { OWED_NS };
                if owed.is_none() && now.saturating_sub(*heard) >= allowed {
                    *owed = Some(now);
                }
                match *owed {
                    Some(since) if is_taken(since, now) => {
                        self.state = State::Served { since };
                        true
                    }
                    _ => false,
                }
            }
            State::Troubled { .. } => {
                self.state = State::Served { since: now };
                true
            }
        }
    }

    /// True if that is new.
    fn begin(&mut self, why: Trouble, now: u64) -> bool {
        let (before, since) = match self.state {
            State::New => (None, now),
            State::Served { since } => {
                self.confirmed |= now.saturating_sub(since) >= OWED_NS;
                (None, now)
            }
            State::Troubled { why, since, .. } => (Some(why), since),
        };
        self.state = State::Troubled { why, since, heard: now, owed: None };
        before != Some(why)
    }

    fn is_uncertain(&self, now: u64) -> bool {
        let ip = self.address.ip();
        let answers = !ip.is_multicast() && !ip.is_broadcast();
        let waiting = match self.state {
            State::New => false,
            State::Served { since } => now.saturating_sub(since) <= CONFIRMED_NS,
            State::Troubled { owed, .. } => owed.is_some_and(|at| !is_taken(at, now)),
        };
        answers && waiting
    }

    fn is_lost(&self, now: u64) -> bool {
        match self.state {
            State::New | State::Served { .. } => false,
            State::Troubled { owed: Some(at), .. } if is_taken(at, now) => false,
            State::Troubled { since, .. } => {
                !self.confirmed || now.saturating_sub(since) > CONFIRMED_NS
            }
        }
    }
}

/// Was a packet taken to which an answer is owed since `at`?
fn is_taken(at: u64, now: u64) -> bool {
    now.saturating_sub(at) >= ANSWER_NS
}

#[cfg(test)]
#[path = "receivers_tests.rs"]
mod tests;
